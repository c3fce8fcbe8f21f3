"""The job as an operator runs it, in a process of its own, and what its report says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The report of one run, and the figures that benchmarks take from it."""

    report: Mapping[str, Any]

    @property
    def seconds_by_step(self) -> dict[str, float]:
        """Seconds of each step, in order."""
        return {step["name"]: step["seconds"] for step in self.report["steps"]}

    @property
    def seconds_to_publish(self) -> float:
        """Up to the moment at which readers see the new rows."""
        return sum(taken for step, taken in self.seconds_by_step.items() if step != "persons")

    @property
    def rows_read(self) -> int:
        """Source rows that the run read or counted."""
        return sum(self.report["counts"].values())

    @property
    def peak_mib(self) -> float:
        """Most memory that the process had, its libraries included; the emulator's is not."""
        return float(self.report["peak_memory_bytes"]) / 2**20


def run_job(folder: Path, *arguments: str, **environment: str) -> Outcome:
    """Run `main.py --local` on the sandbox in this folder (else RuntimeError, its log)."""
    done = subprocess.run(  # noqa: S603 - our own command
        [sys.executable, "main.py", "--local", "--json", *arguments],
        cwd=ROOT,
        env={
            **os.environ,
            "SANDBOX_DIR": str(folder),
            "ETL_TIMEOUT_SECONDS": "3300",
            **environment,
        },
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(done.stderr)
    return Outcome(report=json.loads(done.stdout))
