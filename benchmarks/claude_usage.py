"""How much memory it takes to read many rows of Claude usage, and make a Parquet file of them.

`python -m benchmarks.claude_usage [--rows N]`: a stand-in for the API serves 31 days of them to a
process of its own. Its peak counts with all that it has imported, but without the pages of program
files: the system can drop those at any time, and how many it maps differs by kernel, not by what
we do. The last line is JSON.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.figures import print_json, rounded

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sandbox.apis.anthropic import FakeAnthropic

ROOT = Path(__file__).parent.parent
LAST_DAY = dt.date(2026, 10, 20)
DAYS = 31
TARGET_MIB = 200


def measure(rows: int) -> dict[str, Any]:
    """Rows, seconds and the peak of the process that read them."""
    from sandbox.apis.anthropic import FakeAnthropic
    from sandbox.apis.serving import serve

    with serve(FakeAnthropic()) as fake:
        _fill(fake, rows)
        command = [sys.executable, "-m", "benchmarks.claude_usage", "--read", fake.url]
        ran = subprocess.run(  # noqa: S603 - our own command
            [*command, "--key", fake.key or ""],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
    found: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    return {**found, "target_mib": TARGET_MIB}


def _fill(fake: FakeAnthropic, rows: int) -> None:
    from sandbox.apis.anthropic import usage

    for number in range(rows):
        day = LAST_DAY - dt.timedelta(days=number % DAYS)
        fake.usage.setdefault(day, []).append(
            usage(
                1000 + number,
                api_key_id=f"apikey_01Rj2N8SVvo6BePZ{number:08}",
                workspace_id=f"wrkspc_01JwQvzr7rXLA5AGx3HKfF{number % 40:02}",
                model="claude-sonnet-4-5-20250929",
            )
        )


def read(url: str, key: str) -> dict[str, Any]:
    """Read all of it as a run does, in this process."""
    import google.cloud.bigquery  # noqa: F401 - a run has it in memory, too
    import pyarrow.parquet as pq

    from apis.anthropic import anthropic_api, read_usage
    from apis.arrow import parquet_file
    from apis.http import ApiClient
    from apis.outcomes import Totals
    from apis.tables import USAGE
    from apis.windows import Window
    from benchmarks.memory import count_peak_anew, file_mib, peak_mib, resident_mib
    from process_claude_usage import add_usage, usage_rows

    count_peak_anew()  # without what a first import takes to compile
    imported, started = resident_mib() - file_mib(), time.perf_counter()
    now = dt.datetime(2026, 10, 21, 14, tzinfo=dt.UTC)
    window = Window(first=LAST_DAY - dt.timedelta(days=DAYS - 1), last=LAST_DAY)
    totals = Totals()

    def rows() -> Iterator[dict[str, Any]]:
        for page in read_usage(client, window):
            add_usage(totals, page)
            yield from usage_rows(page, organization_id="org", now=now)

    with ApiClient(anthropic_api(key, base_url=url)) as client:
        file = parquet_file(rows(), USAGE)
    return {
        "rows": pq.read_metadata(file).num_rows,
        "reported_rows": totals.rows,
        "seconds": rounded(time.perf_counter() - started),
        "peak_mib": rounded(peak_mib() - file_mib()),
        "imports_mib": rounded(imported),
        "files_mib": rounded(file_mib()),
    }


def main(arguments: Sequence[str]) -> None:
    """Measure, and print what came of it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.claude_usage", description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--read", help=argparse.SUPPRESS)
    parser.add_argument("--key", default="", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    print_json(read(options.read, options.key) if options.read else measure(options.rows))


if __name__ == "__main__":
    main(sys.argv[1:])
