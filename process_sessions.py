"""Events to sessions: the pandas engine, on Arrow buffers. Pure: frames in, frame out.

Every aggregation of the metric table is one segmented reduction over whole columns: no per-group
Python and no object columns. Rows are never moved: each one knows its session and its place in the
order of all events, and results are gathered by those.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, assert_never

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from sessions.metrics import ENGAGED_GAP_CAP_SECONDS, METRICS, Aggregation, Filter, Metric

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    type Ints = NDArray[np.int64]
    type Mask = NDArray[np.bool_]

_MICROSECONDS = 1_000_000
_NEVER = np.iinfo(np.int64).max
_MOST_CELLS = 50_000_000  # of a dense (session, value) table of counts: 400 MB

_ARROW_TYPES = {
    "STRING": pa.string(),
    "INT64": pa.int64(),
    "FLOAT64": pa.float64(),
    "BOOL": pa.bool_(),
    "TIMESTAMP": pa.timestamp("us", tz="UTC"),
}


def process_sessions(events: pd.DataFrame, metrics: Iterable[Metric] = METRICS) -> pd.DataFrame:
    """One row per session, in the order of `session_no`, with a column per metric.

    `events`: one row per event, in any order, repeats left out, Arrow-backed. `session_no` (int64)
    tells sessions apart and `event_no` (int64) counts from 1 in the order of the session's events;
    `event_at` (timestamp, µs, UTC) and `event` are never null; `distinct_id` and a column for each
    property that the metrics read may be. A value that repeats the session's previous one may be
    left out (null) where no metric counts or sums it.

    Raises ValueError where `event_no` leaves a gap or repeats itself within a session.
    """
    ordered = _Events(pa.Table.from_pandas(events, preserve_index=False).combine_chunks())
    columns = {"session_no": pa.array(ordered.session_nos)}
    columns |= {metric.name: _aggregate(ordered, metric) for metric in metrics}
    sessions: pd.DataFrame = pa.table(columns).to_pandas(types_mapper=pd.ArrowDtype)
    return sessions


class _Events:
    """The events of some sessions, each row with its session (0, 1, …) and its place in order."""

    def __init__(self, table: pa.Table) -> None:
        self.table = table
        session_no = _ints(table, "session_no")
        first = int(session_no.min()) if len(session_no) else 0
        by_number = np.bincount(session_no - first)
        present = np.flatnonzero(by_number)
        self.session_nos: Ints = present + first
        self.session_count = len(present)
        sizes = by_number[present]
        self.starts: Ints = np.cumsum(sizes) - sizes
        dense = np.cumsum(by_number > 0) - 1
        self.session: Ints = dense[session_no - first]
        self.place: Ints = self.starts[self.session] + _ints(table, "event_no") - 1
        self.row_at = self._rows_in_order(sizes)

    def _rows_in_order(self, sizes: Ints) -> Ints:
        event_no = _ints(self.table, "event_no")
        fits = (event_no >= 1) & (event_no <= sizes[self.session])
        rows = np.full(len(event_no), -1, dtype=np.int64)
        if fits.all():
            rows[self.place] = np.arange(len(event_no))
        if (rows < 0).any():
            message = "event_no must count the events of each session from 1, without gaps."
            raise ValueError(message)
        return rows

    @cached_property
    def event_at(self) -> Ints:
        """Microseconds since 1970, by row."""
        return _ints(self.table, "event_at")

    @cached_property
    def _dictionaries(self) -> dict[str, pa.DictionaryArray]:
        return {}

    def dictionary(self, name: str) -> pa.DictionaryArray:
        """The column, dictionary-encoded once however many metrics ask."""
        if name not in self._dictionaries:
            column = _chunk(self.table, name)
            encoded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
            self._dictionaries[name] = encoded
        return self._dictionaries[name]

    def is_known(self, name: str) -> Mask:
        """Where the column is not null, by row."""
        return _bools(_chunk(self.table, name).is_valid())

    def matches(self, filters: tuple[Filter, ...]) -> Mask | None:
        """Which rows any of the filters takes; None stands for all of them."""
        if not filters:
            return None
        mask = self._match(filters[0])
        for condition in filters[1:]:
            mask |= self._match(condition)
        return mask

    def _match(self, condition: Filter) -> Mask:
        mask = self._match_event(condition)
        if condition.among:
            mask &= self._is_among(condition.value or "", condition.among)
        elif condition.value is not None:
            mask &= self.is_known(condition.value)
        return mask

    def _match_event(self, condition: Filter) -> Mask:
        if not condition.events and not condition.event_contains:
            return np.ones(len(self.session), dtype=np.bool_)
        encoded = self.dictionary("event")
        names: list[str] = encoded.dictionary.to_pylist()
        taken = [
            (not condition.events or name in condition.events)
            and all(part in name.lower() for part in condition.event_contains)
            for name in names
        ]
        return np.array(taken, dtype=np.bool_)[_codes(encoded)] if names else _none(self.session)

    def _is_among(self, name: str, values: tuple[str, ...]) -> Mask:
        return _bools(pc.is_in(_chunk(self.table, name), value_set=pa.array(values)))

    def rows_of(self, name: str, mask: Mask | None) -> Ints:
        """The rows that have a value of the column, among those of the mask."""
        known = self.is_known(name)
        return np.flatnonzero(known if mask is None else known & mask)

    def count(self, mask: Mask | None) -> Ints:
        """How many rows of each session the mask takes."""
        sessions = self.session if mask is None else self.session[mask]
        return np.bincount(sessions, minlength=self.session_count)


def _aggregate(  # noqa: C901, PLR0911, PLR0912 - one case for each aggregation
    events: _Events, metric: Metric
) -> pa.Array:
    mask = events.matches(metric.where)
    match metric.aggregation:
        case Aggregation.COUNT:
            return pa.array(events.count(mask))
        case Aggregation.ANY:
            return pa.array(events.count(mask) > 0)
        case Aggregation.SUM:
            return _sum(events, metric, mask)
        case Aggregation.MIN:
            return _extreme(events, metric, mask, np.minimum, np.inf)
        case Aggregation.MAX:
            return _extreme(events, metric, mask, np.maximum, -np.inf)
        case Aggregation.DISTINCT_COUNT:
            return _distinct_count(events, metric, mask)
        case Aggregation.DISTINCT_LIST:
            return _distinct_list(events, metric, mask)
        case Aggregation.DISTINCT_RECORDS:
            return _distinct_records(events, metric, mask)
        case Aggregation.COUNTS_BY_VALUE:
            return _counts_by_value(events, metric, mask)
        case Aggregation.FIRST:
            return _first_or_last(events, metric, mask, np.minimum, _NEVER)
        case Aggregation.LAST:
            return _first_or_last(events, metric, mask, np.maximum, -1)
        case Aggregation.SECONDS_BETWEEN:
            return _seconds_between(events, metric, mask)
        case Aggregation.CAPPED_GAP_SUM:
            return _capped_gap_sum(events)
        case _:
            assert_never(metric.aggregation)


def _sum(events: _Events, metric: Metric, mask: Mask | None) -> pa.Array:
    rows = events.rows_of(_value(metric), mask)
    rows = rows[np.argsort(events.place[rows])]  # added in order: the same sum for any row order
    values = _floats(events.table, _value(metric))[rows]
    sessions = events.session[rows]
    sums = np.bincount(sessions, weights=values, minlength=events.session_count)
    missing = np.bincount(sessions, minlength=events.session_count) == 0
    return pa.array(sums, mask=missing)


def _extreme(
    events: _Events, metric: Metric, mask: Mask | None, best: np.ufunc, worst: float
) -> pa.Array:
    rows = events.rows_of(_value(metric), mask)
    values = np.full(events.session_count, worst)
    best.at(values, events.session[rows], _floats(events.table, _value(metric))[rows])
    return pa.array(values, mask=values == worst)


def _first_or_last(
    events: _Events, metric: Metric, mask: Mask | None, best: np.ufunc, worst: int
) -> pa.Array:
    rows = events.rows_of(_value(metric), mask)
    preferred = events.matches(metric.prefer)
    if preferred is not None:
        has_preferred = events.count(preferred) > 0
        rows = rows[preferred[rows] | ~has_preferred[events.session[rows]]]
    places = np.full(events.session_count, worst, dtype=np.int64)
    best.at(places, events.session[rows], events.place[rows])
    missing = places == worst
    places[missing] = 0
    chosen = pa.array(events.row_at[places] if len(events.row_at) else places, mask=missing)
    return _chunk(events.table, _value(metric)).take(chosen).cast(_ARROW_TYPES[metric.type])


def _distinct_count(events: _Events, metric: Metric, mask: Mask | None) -> pa.Array:
    rows = events.rows_of(_value(metric), mask)
    encoded = events.dictionary(_value(metric))
    width = max(len(encoded.dictionary), 1)
    pairs = np.unique(events.session[rows] * width + _codes(encoded)[rows])
    return pa.array(np.bincount(pairs // width, minlength=events.session_count))


def _distinct_list(events: _Events, metric: Metric, mask: Mask | None) -> pa.Array:
    rows = events.rows_of(_value(metric), mask)
    rows = rows[np.argsort(-events.place[rows])]  # the latest first
    encoded = events.dictionary(_value(metric))
    pairs = events.session[rows] * max(len(encoded.dictionary), 1) + _codes(encoded)[rows]
    _, last_use = np.unique(pairs, return_index=True)
    rows = rows[last_use]
    rows = rows[np.argsort(events.place[rows])]
    values = _chunk(events.table, _value(metric)).take(pa.array(rows))
    return _lists(values.cast(pa.string()), events.session[rows], events.session_count)


def _distinct_records(events: _Events, metric: Metric, mask: Mask | None) -> pa.Array:
    known = [events.is_known(source) for _, _, source in metric.record]
    rows = np.flatnonzero(np.logical_and.reduce(known if mask is None else [*known, mask]))
    fields = [field for field, _, _ in metric.record]
    records = pa.table(
        {
            "": pa.array(events.session[rows]),
            **{
                field: _chunk(events.table, source).take(pa.array(rows)).cast(_ARROW_TYPES[type_])
                for field, type_, source in metric.record
            },
        }
    )
    distinct = records.group_by(["", *fields]).aggregate([])
    distinct = distinct.sort_by([(name, "ascending") for name in ("", *fields)]).combine_chunks()
    values = pa.StructArray.from_arrays([_chunk(distinct, field) for field in fields], fields)
    return _lists(values, _ints(distinct, ""), events.session_count)


def _counts_by_value(events: _Events, metric: Metric, mask: Mask | None) -> pa.Array:
    encoded = events.dictionary(_value(metric))
    names: list[str] = encoded.dictionary.to_pylist()
    width = max(len(names), 1)
    rank = np.empty(width, dtype=np.int64)
    rank[sorted(range(len(names)), key=names.__getitem__)] = np.arange(len(names))
    rows = events.rows_of(_value(metric), mask)
    cells = events.session[rows] * width + rank[_codes(encoded)[rows]]
    if events.session_count * width <= _MOST_CELLS:
        counted = np.bincount(cells)
        filled = np.flatnonzero(counted)
        counts = counted[filled]
    else:
        filled, counts = np.unique(cells, return_counts=True)
    in_order = pa.array(sorted(names), pa.string())
    fields = [field for field, _, _ in metric.record]
    values = pa.StructArray.from_arrays(
        [in_order.take(pa.array(filled % width)), pa.array(counts.astype(np.int64))], fields
    )
    return _lists(values, filled // width, events.session_count)


def _seconds_between(events: _Events, metric: Metric, mask: Mask | None) -> pa.Array:
    if not events.session_count:
        return pa.array([], pa.float64())
    begun = _first_places(events, _all_rows(events, events.matches(metric.since)))
    stops = _all_rows(events, mask)
    stops = stops[events.place[stops] >= begun[events.session[stops]]]
    ended = _first_places(events, stops)
    missing = ended == _NEVER
    ended[missing] = begun[missing] = 0
    times = events.event_at[events.row_at]
    return pa.array((times[ended] - times[begun]) / _MICROSECONDS, mask=missing)


def _first_places(events: _Events, rows: Ints) -> Ints:
    places = np.full(events.session_count, _NEVER, dtype=np.int64)
    np.minimum.at(places, events.session[rows], events.place[rows])
    return places


def _capped_gap_sum(events: _Events) -> pa.Array:
    if not events.session_count:
        return pa.array([], pa.float64())
    times = events.event_at[events.row_at]
    gaps = np.diff(times, prepend=times[:1])
    gaps[events.starts] = 0
    np.minimum(gaps, ENGAGED_GAP_CAP_SECONDS * _MICROSECONDS, out=gaps)
    return pa.array(np.add.reduceat(gaps, events.starts) / _MICROSECONDS)


def _value(metric: Metric) -> str:
    if metric.value is None:
        message = f"Metric {metric.name} needs a value to aggregate by {metric.aggregation}."
        raise ValueError(message)
    return metric.value


def _all_rows(events: _Events, mask: Mask | None) -> Ints:
    return np.arange(len(events.session)) if mask is None else np.flatnonzero(mask)


def _none(rows: Ints) -> Mask:
    return np.zeros(len(rows), dtype=np.bool_)


def _lists(values: pa.Array, sessions: Ints, session_count: int) -> pa.Array:
    """One list per session of the values, which stand in the order of their sessions."""
    ends = np.cumsum(np.bincount(sessions, minlength=session_count))
    offsets = np.concatenate(([0], ends)).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), values)


def _chunk(table: pa.Table, name: str) -> pa.Array:
    column = table.column(name)
    return column.chunk(0) if column.num_chunks else pa.array([], column.type)


def _ints(table: pa.Table, name: str) -> Ints:
    column = _chunk(table, name)
    if pa.types.is_timestamp(column.type):
        column = column.cast(_ARROW_TYPES["TIMESTAMP"]).view(pa.int64())
    values: Ints = column.cast(pa.int64()).to_numpy(zero_copy_only=False)
    return values


def _floats(table: pa.Table, name: str) -> NDArray[np.float64]:
    column = _chunk(table, name).cast(pa.float64())
    values: NDArray[np.float64] = column.to_numpy(zero_copy_only=False)
    return values


def _bools(column: pa.Array) -> Mask:
    values: Mask = column.to_numpy(zero_copy_only=False).astype(np.bool_)
    return values


def _codes(encoded: pa.DictionaryArray) -> NDArray[np.int32]:
    """The codes by row; those of nulls are 0."""
    codes: NDArray[np.int32] = encoded.indices.fill_null(0).to_numpy(zero_copy_only=False)
    return codes
