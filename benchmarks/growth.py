"""One day's new data on 1, 4 and 16 times the history: what an ordinary run takes and reads.

Each size in a fresh sandbox, since the emulator slows with what it holds: a full load of the
history, then one more day arrives and the job runs again, in a process of its own. What may not
grow is the seconds up to publishing, and the source days and rows that were read; `persons` is
rebuilt whole and stands on a line of its own.

`python -m benchmarks.growth [EVENTS_PER_DAY] [DAYS]`; the last line is JSON.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.history import History, fill_days, sandbox
from benchmarks.job import run_job

FACTORS = (1, 4, 16)
_NIGHTS = 3


def measure(days: int, events_per_day: int, *, nights: int = _NIGHTS) -> dict[str, Any]:
    """The middle one of some nightly runs on so many days of history."""
    history = History(days=days + nights, events_per_day=events_per_day)
    with tempfile.TemporaryDirectory() as name, sandbox(Path(name)) as clients:
        fill_days(clients, history, range(days))
        run_job(Path(name), "--full-load")
        outcomes = []
        for night in range(nights):
            fill_days(clients, history, range(days + night, days + night + 1))
            outcomes.append(run_job(Path(name)))
    middle = sorted(outcomes, key=lambda each: each.seconds_to_publish)[nights // 2]
    return {
        "history_days": days,
        "history_events": days * events_per_day,
        "seconds_to_publish": round(middle.seconds_to_publish, 2),
        "seconds": {step: round(taken, 2) for step, taken in middle.seconds_by_step.items()},
        "days_read": middle.report["read_days"],
        "rows_read": middle.rows_read,
        "persons_seconds": round(middle.seconds_by_step["persons"], 2),
    }


def main(events_per_day: int, days: int) -> None:
    """Measure each size, and print how the largest compares with the smallest."""
    sizes = []
    for factor in FACTORS:
        sizes.append(measure(days * factor, events_per_day))
        sys.stdout.write(f"{sizes[-1]}\n")
        sys.stdout.flush()
    ratios = {
        name: round(sizes[-1][name] / sizes[0][name], 2)
        for name in ("seconds_to_publish", "days_read", "rows_read", "persons_seconds")
    }
    sys.stdout.write(f"{json.dumps({'sizes': sizes, 'ratios_16_to_1': ratios})}\n")


if __name__ == "__main__":
    given = [int(argument) for argument in sys.argv[1:]]
    main(*(given + [20_000, 4][len(given) :]))
