"""One full load by each engine over the same sources: every cell compared, both times printed.

`python -m benchmarks.engines_agree [EVENTS]`; the last line is JSON.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.history import History, fill_days, sandbox
from benchmarks.job import Outcome, run_job
from sessions.tables import sessions_schema
from tests.shipped import METRIC_TABLE

_DAYS = 10
_BOOKKEEPING = ("_loaded_at", "_run_id", "_metrics_version")
_DATASETS = {"pandas": "aggregated_by_pandas", "bigquery": "aggregated_by_bigquery"}


def compare(events: int, *, days: int = _DAYS) -> dict[str, Any]:
    """What both loads took, and how many cells of how many sessions differ."""
    history = History(days=days, events_per_day=max(1, events // days))
    with tempfile.TemporaryDirectory() as name, sandbox(Path(name)) as clients:
        fill_days(clients, history, range(days))
        outcomes = {
            engine: run_job(
                Path(name),
                "--full-load",
                "--engine",
                engine,
                POSTHOG_AGGREGATED_DATASET_ID=dataset,
            )
            for engine, dataset in _DATASETS.items()
        }
        differing = differing_sql()
        rows = [dict(row.items()) for row in clients.bigquery.query(differing).result()]
        return {
            "events": outcomes["pandas"].report["counts"]["aggregated"],
            "sessions": rows[0].pop("sessions"),
            "differing": {name: count for name, count in rows[0].items() if count},
            "seconds": {engine: _seconds(outcome) for engine, outcome in outcomes.items()},
        }


def differing_sql() -> str:
    """A SELECT of how many sessions there are and, by column, how many differ; floats to 1e-9."""
    one, other = _DATASETS.values()
    counts = []
    for column in sessions_schema(METRIC_TABLE).fields:
        left, right = f"a.{column.name}", f"b.{column.name}"
        if column.name in _BOOKKEEPING:
            continue
        if column.type == "FLOAT64":
            alike = f"IFNULL(ABS({left} - {right}) <= 1e-9, {left} IS NULL AND {right} IS NULL)"
        elif column.is_repeated:
            alike = f"TO_JSON_STRING({left}) = TO_JSON_STRING({right})"
        else:
            alike = f"{left} IS NOT DISTINCT FROM {right}"
        counts.append(f"COUNTIF(NOT ({alike})) AS {column.name}")
    lines = ",\n  ".join(counts)
    return f"""SELECT
  COUNT(*) AS sessions,
  COUNTIF(a.session_id IS NULL OR b.session_id IS NULL) AS in_one_only,
  {lines}
FROM {one}.sessions AS a
FULL JOIN {other}.sessions AS b ON b.session_id = a.session_id"""


def _seconds(outcome: Outcome) -> dict[str, float]:
    return {
        "aggregate": round(outcome.seconds_by_step["aggregate"], 2),
        "run": round(outcome.report["seconds"], 2),
    }


def main(events: int) -> int:
    """Compare, and print it; 1 where any cell differs."""
    found = compare(events)
    sys.stdout.write(f"{json.dumps(found)}\n")
    return 1 if found["differing"] else 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if sys.argv[1:] else 1_000_000))
