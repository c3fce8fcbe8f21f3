"""Events to sessions, in pandas on Arrow buffers. Pure: frames in, frame out.

Rows are processed in blocks that fit the processor's cache. As downloaded, most sessions are whole
and in order in one block; only rows of the others are moved. `sessions.pandas_engine` computes the
metrics of a block.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from sessions.pandas_engine import Events, Layout, aggregate, ints, stretch_starts

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sessions.metric_types import MetricTable

    type Ints = NDArray[np.int64]
    type Mask = NDArray[np.bool_]

_BLOCK_ROWS = 250_000  # what a block needs at a time fits the processor's cache
_MOST_TORN = 0.25  # of all rows: to move more of them takes longer than one large block
_GAPS = "event_no must count the events of each session from 1, without gaps."


def process_sessions(events: pd.DataFrame, metric_table: MetricTable) -> pd.DataFrame:
    """One row per session, in the order of `session_no`, with a column per metric of the table.

    `events`: one row per event, in any order, repeats left out, Arrow-backed. `session_no` (int64)
    identifies a session and `event_no` (int64) counts from 1 in the order of the session's events;
    `event_at` (timestamp, µs, UTC) and `event` are never null; `distinct_id` and a column for each
    property that the metrics read may be. A value that repeats the session's previous one may be
    left out (null) where no metric counts or sums it.

    It is fastest, and needs least memory, where most sessions' rows stand together and in order.
    Raises ValueError where `event_no` leaves a gap or repeats itself within a session.
    """
    with ThreadPoolExecutor(pa.cpu_count()) as pool:
        blocks = _blocks(pa.Table.from_pandas(events, preserve_index=False))
        # NumPy and Arrow release the GIL, so threads are enough.
        parts = pa.concat_tables(pool.map(lambda block: _sessions_of(block, metric_table), blocks))
    names, columns = parts.column_names, parts.columns[::-1]
    order = pc.sort_indices(parts.column("session_no"))
    del parts  # so that each column is freed once it is in order
    ordered = pa.table([columns.pop().combine_chunks().take(order) for _ in names], names=names)
    sessions: pd.DataFrame = ordered.to_pandas(types_mapper=pd.ArrowDtype)
    return sessions


@dataclass(frozen=True, slots=True, kw_only=True)
class _Runs:
    """Stretches of rows of one session each."""

    starts: Ints
    sizes: Ints
    session_nos: Ints
    is_whole: Mask  # whether it has its whole session in event order


@dataclass(frozen=True, slots=True, kw_only=True)
class _Block:
    """Some rows, with the runs that they stand in, or in any order."""

    table: pa.Table
    runs: _Runs | None = None


def _blocks(table: pa.Table) -> list[_Block]:
    """Blocks of adjacent rows, and one block of the sessions that are whole in no other."""
    parts = [table.slice(start, _BLOCK_ROWS) for start in range(0, len(table), _BLOCK_ROWS)]
    found = _only_whole([_runs(part) for part in parts]) if parts else []
    torn = [np.flatnonzero(np.repeat(~runs.is_whole, runs.sizes)) for runs in found]
    if not parts or sum(map(len, torn)) > len(table) * _MOST_TORN:
        return [_Block(table=table)]
    blocks = [_Block(table=part, runs=runs) for part, runs in zip(parts, found, strict=True)]
    rest = [_taken(part, rows) for part, rows in zip(parts, torn, strict=True) if len(rows)]
    return [*blocks, _Block(table=pa.concat_tables(rest))] if rest else blocks


def _taken(table: pa.Table, rows: Ints) -> pa.Table:
    """Take rows column by column, since `Table.take` joins all columns' pages at once."""
    chosen = pa.array(rows)
    return pa.table([column.take(chosen) for column in table.columns], names=table.column_names)


def _runs(table: pa.Table) -> _Runs:
    session_no, event_no = (ints(table.column(name)) for name in ("session_no", "event_no"))
    starts = stretch_starts(session_no)
    is_next = np.ones(len(event_no), dtype=np.bool_)
    np.equal(event_no[1:], event_no[:-1] + 1, out=is_next[1:])
    is_next[starts] = event_no[starts] == 1
    return _Runs(
        starts=starts,
        sizes=np.diff(starts, append=len(session_no)),
        session_nos=session_no[starts],
        is_whole=np.logical_and.reduceat(is_next, starts),
    )


def _only_whole(parts: list[_Runs]) -> list[_Runs]:
    """The runs, of which none counts as whole if its session has others."""
    session_nos = np.concatenate([runs.session_nos for runs in parts])
    numbers = session_nos - session_nos.min()
    is_only = (np.bincount(numbers) == 1)[numbers]
    ends = np.cumsum([len(runs.starts) for runs in parts])
    return [
        replace(runs, is_whole=runs.is_whole & only)
        for runs, only in zip(parts, np.split(is_only, ends[:-1]), strict=True)
    ]


def _sessions_of(block: _Block, metric_table: MetricTable) -> pa.Table:
    """A row for each session that the block has whole."""
    layout = _layout_of_runs(block.runs) if block.runs else _layout_of_any_order(block.table)
    events = Events(block.table, layout)
    columns = {"session_no": pa.array(layout.session_nos)}
    columns |= {
        metric.name: aggregate(events, metric, metric_table) for metric in metric_table.metrics
    }
    sessions = pa.table(columns)
    return sessions.filter(pa.array(block.runs.is_whole)) if block.runs else sessions


def _layout_of_runs(runs: _Runs) -> Layout:
    session = np.repeat(np.arange(len(runs.starts), dtype=np.int32), runs.sizes)
    return Layout(
        session_nos=runs.session_nos, starts=runs.starts, session=session, session_at=session
    )


def _layout_of_any_order(table: pa.Table) -> Layout:
    session_no, event_no = (ints(table.column(name)) for name in ("session_no", "event_no"))
    first = int(session_no.min()) if len(session_no) else 0
    by_number = np.bincount(session_no - first)
    present = np.flatnonzero(by_number)
    sizes = by_number[present]
    starts = np.cumsum(sizes) - sizes
    session = (np.cumsum(by_number > 0, dtype=np.int32) - np.int32(1))[session_no - first]
    if not ((event_no >= 1) & (event_no <= sizes[session])).all():
        raise ValueError(_GAPS)
    place = (starts[session] + event_no - 1).astype(np.int32)
    row_at = np.full(len(place), -1, dtype=np.int32)
    row_at[place] = np.arange(len(place), dtype=np.int32)
    if (row_at < 0).any():
        raise ValueError(_GAPS)
    return Layout(
        session_nos=present + first,
        starts=starts,
        session=session,
        session_at=np.repeat(np.arange(len(sizes), dtype=np.int32), sizes),
        place=place,
        row_at=row_at,
    )
