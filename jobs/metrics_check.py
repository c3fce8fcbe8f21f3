"""Says whether a file of metrics can be used: `make check-config`. Reads nothing else."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from jobs.metrics_file import SHIPPED_FILE, metric_table
from runs.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(arguments: Sequence[str]) -> int:
    """The exit code: 0, or that of SettingsError after everything that is wrong with the file."""
    path = Path(arguments[0]) if arguments else SHIPPED_FILE
    try:
        count = len(metric_table(path).declared)
    except SettingsError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    sys.stdout.write(f"{path} declares {count} metrics and can be used.\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
