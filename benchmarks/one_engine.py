"""One engine in a process of its own: reads the events, aggregates them once, prints what it took.

`python -m benchmarks.one_engine ENGINE EVENTS WARM_UP RESULT`: the events as Arrow files, the
second of them a few to warm up with; RESULT is where the sessions go, or `-` for nowhere.
"""

from __future__ import annotations

import gc
import json
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa

from benchmarks.memory import count_peak_anew, peak_mib, resident_mib
from sessions.metric_types import is_repeated
from tests.shipped import METRIC_TABLE

if TYPE_CHECKING:
    from collections.abc import Callable

    from sessions.metric_types import ColumnType, Metric

ENGINES = ("process_sessions", "duckdb", "polars", "pandas")
FLOOR = "floor"
_SCALARS = {
    "STRING": pa.string(),
    "INT64": pa.int64(),
    "FLOAT64": pa.float64(),
    "BOOL": pa.bool_(),
    "TIMESTAMP": pa.timestamp("us", "UTC"),
}


def main(engine: str, events: Path, warm_up: Path, result: str) -> None:
    """Print the measurement as JSON, and keep the sessions where they are wanted."""
    aggregate = floor if engine == FLOOR else import_module(f"benchmarks.by_{engine}").aggregate
    aggregate(read(warm_up))
    sessions, measured = _measured(aggregate, read(events))
    print(json.dumps(measured))  # noqa: T201 - for the process that started this one
    if result != "-":
        write(as_arrow(sessions), Path(result))


def floor(events: pa.Table) -> object:
    """The least that any engine does: dictionary-encode the ids, and sort them with the order."""
    encoded = events.column("session_no").dictionary_encode().unify_dictionaries()
    packed = encoded.combine_chunks().indices.to_numpy().astype(np.int64) << 32
    packed |= events.column("event_no").to_numpy()
    return np.sort(packed)


def _measured(
    aggregate: Callable[[pa.Table], object], events: pa.Table
) -> tuple[object, dict[str, float]]:
    gc.collect()
    pa.default_memory_pool().release_unused()
    before = resident_mib()
    count_peak_anew()
    started, worked = time.perf_counter(), time.process_time()
    sessions = aggregate(events)
    return sessions, {
        "seconds": time.perf_counter() - started,
        "cpu_seconds": time.process_time() - worked,
        "extra_mib": peak_mib() - before,
    }


def read(path: Path) -> pa.Table:
    """The table in memory, not mapped: reading it from disk is nobody's work."""
    with pa.OSFile(str(path)) as file:
        return pa.ipc.open_file(file).read_all()


def write(table: pa.Table, path: Path) -> None:
    """Keep the table as it is, page by page."""
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)


def as_arrow(sessions: Any) -> pa.Table:  # noqa: ANN401 - each engine has a table of its own
    """The result of any engine in the types that the metric table declares."""
    if isinstance(sessions, pd.DataFrame):
        return pa.Table.from_pandas(sessions, schema(), preserve_index=False)
    table = sessions if isinstance(sessions, pa.Table) else sessions.to_arrow()
    return table.select(schema().names).cast(schema())


def schema() -> pa.Schema:
    """The columns of a result."""
    fields = [(metric.name, _type(metric)) for metric in METRIC_TABLE.metrics]
    return pa.schema([("session_no", pa.int64()), *fields])


def _type(metric: Metric) -> pa.DataType:
    type_ = pa.struct(map(_field, metric.record)) if metric.record else _SCALARS[metric.type]
    return pa.list_(type_) if is_repeated(metric) else type_


def _field(field: tuple[str, ColumnType, str]) -> tuple[str, pa.DataType]:
    return field[0], _SCALARS[field[1]]


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4])
