"""Full loads of growing sizes: peak memory of the job's process, and seconds by step.

Each size in a sandbox of its own, by the whole product: projection, download, engine, Parquet
loads, publishing. `python -m benchmarks.full_load 2500000 10000000`; the last line is JSON.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from benchmarks.history import History, fill_days, sandbox
from benchmarks.job import Outcome, run_job

_DAYS = 10


def measure(events: int, *, days: int = _DAYS) -> Outcome:
    """A full load of about so many events."""
    history = History(days=days, events_per_day=events // days)
    with tempfile.TemporaryDirectory() as name, sandbox(Path(name)) as clients:
        fill_days(clients, history, range(days))
        return run_job(Path(name), "--full-load")


def _parts(outcome: Outcome) -> dict[str, float]:
    """Seconds of what `aggregate` does side by side: their sum passes the step's own."""
    step = next(each for each in outcome.report["steps"] if each["name"] == "aggregate")
    return {name: round(taken, 1) for name, taken in step["parts"].items()}


def main(sizes: list[int]) -> None:
    """Measure each size, and print what came of it."""
    rows = []
    for size in sizes:
        outcome = measure(size)
        seconds = {step: round(taken, 1) for step, taken in outcome.seconds_by_step.items()}
        rows.append(
            {
                "events": outcome.report["counts"]["aggregated"],
                "sessions": outcome.report["sessions"]["staged"],
                "peak_mib": round(outcome.peak_mib),
                "seconds": seconds,
                "aggregate_parts": _parts(outcome),
            }
        )
        sys.stdout.write(f"{rows[-1]}\n")
        sys.stdout.flush()
    growth = rows[-1]["peak_mib"] / rows[0]["peak_mib"]
    sys.stdout.write(f"{json.dumps({'loads': rows, 'peak_ratio': round(growth, 3)})}\n")


if __name__ == "__main__":
    main([int(size) for size in sys.argv[1:]] or [2_500_000, 10_000_000])
