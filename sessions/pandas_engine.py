"""The pandas engine's aggregations, on Arrow buffers: a column of a metric from a block of events.

Every aggregation of the metric table is one segmented reduction over columns: no per-group Python
and no object columns. A metric looks at the rows that have its value, which are few, in event
order. `process_sessions` makes the blocks. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, assert_never

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sessions.metric_types import Aggregation

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sessions.metric_types import Filter, Metric, MetricTable

    type Ints = NDArray[np.int64]
    type Floats = NDArray[np.float64]
    type Mask = NDArray[np.bool_]
    # Of rows, places and sessions, of which there are fewer than 2**31: half the memory.
    type Index = NDArray[np.int32]

_MICROSECONDS = 1_000_000
_NEVER = np.iinfo(np.int64).max
_CELLS_PER_ROW = 8  # of a table of (session, value) that is still faster than a sort
_ALL = slice(None)

_ARROW_TYPES = {
    "STRING": pa.string(),
    "INT64": pa.int64(),
    "FLOAT64": pa.float64(),
    "BOOL": pa.bool_(),
    "TIMESTAMP": pa.timestamp("us", tz="UTC"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Which session (0, 1, …) each row belongs to, and its place in the order of all events."""

    session_nos: Ints
    starts: Ints  # the first place of each session
    session: Index  # by row
    session_at: Index  # by place
    place: Index | None = None  # by row; None: rows are in order
    row_at: Index | None = None  # by place


class Events:
    """The events of a block. Functions take and give ascending numbers of rows, or of places."""

    def __init__(self, table: pa.Table, layout: Layout) -> None:
        self.table = table
        self.layout = layout
        self.session_count = len(layout.starts)
        self.starts, self.session = layout.starts, layout.session
        self.session_at = layout.session_at
        self._chosen: dict[tuple[object, ...], Ints] = {}
        self._counts: dict[tuple[Filter, ...], Ints] = {}

    def places(self, rows: Ints) -> Ints:
        """The places of these rows. A bitmap brings them into order faster than a sort."""
        place = self.layout.place
        if place is None:
            return rows
        is_taken = np.zeros(len(place), dtype=np.bool_)
        is_taken[place[rows]] = True
        return np.flatnonzero(is_taken)

    def rows_at(self, places: Ints) -> Ints:
        """The row at each of these places."""
        row_at = self.layout.row_at
        return places if row_at is None else row_at[places].astype(np.int64)

    @cached_property
    def times(self) -> Ints:
        """Microseconds since 1970, by place."""
        times = ints(self.table.column("event_at"))
        return times if self.layout.row_at is None else times[self.layout.row_at]

    @cached_property
    def names(self) -> tuple[pa.Array, Index]:
        """The distinct event names in order, and for each row which of them it has."""
        return _ranked(self.table.column("event"))

    @cached_property
    def name_counts(self) -> _Counts:
        """How many events of each name each session has."""
        names, codes = self.names
        return _counted(self.session, codes, (self.session_count, len(names)))

    def values(self, name: str, rows: Ints) -> pa.ChunkedArray:
        """The column at these rows, in their order; null for row -1."""
        return self.table.column(name).take(pa.array(rows, mask=rows < 0))

    def rows(self, where: tuple[Filter, ...], value: str | None = None) -> Ints:
        """The rows that any filter accepts and that have the value, if one is named."""
        if not where:
            rows = self._known(value)
            return np.arange(len(self.session)) if isinstance(rows, slice) else rows
        taken = [self._rows_of(condition, value) for condition in where]
        return taken[0] if len(taken) == 1 else _distinct(np.concatenate(taken))

    def chosen_rows(self, metric: Metric) -> Ints:
        """The rows that a first or last value is chosen from: the same for both."""
        key = (metric.where, metric.value, metric.prefer)
        if key not in self._chosen:
            rows = self.rows(metric.where, metric.value)
            if metric.prefer:
                is_preferred = self._matches_any(metric.prefer, rows)
                has_preferred = self.count(metric.prefer) > 0
                rows = rows[is_preferred | ~has_preferred[self.session[rows]]]
            self._chosen[key] = rows
        return self._chosen[key]

    def _rows_of(self, condition: Filter, value: str | None) -> Ints:
        rows = self._known(value or condition.value)
        taken = np.flatnonzero(self._matches(condition, rows))
        return taken if isinstance(rows, slice) else rows[taken]

    def _known(self, name: str | None) -> Ints | slice:
        column = self.table.column(name) if name else None
        if column is None or not column.null_count:
            return _ALL
        return np.flatnonzero(_is_known(column))

    def _matches_any(self, filters: tuple[Filter, ...], rows: Ints) -> Mask:
        mask = np.zeros(len(rows), dtype=np.bool_)
        for condition in filters:
            mask |= self._matches(condition, rows)
        return mask

    def _matches(self, condition: Filter, rows: Ints | slice) -> Mask:
        names, codes = self.names
        mask = _takes_names(condition, names)[codes[rows]]
        if condition.value is not None:
            column = self.table.column(condition.value)
            values = column if isinstance(rows, slice) else column.take(pa.array(rows))
            among = pa.array(condition.among, values.type)
            mask &= pc.is_in(values, among).to_numpy() if condition.among else _is_known(values)
        return mask

    def count(self, filters: tuple[Filter, ...]) -> Ints:
        """How many rows of each session any filter accepts."""
        if filters not in self._counts:
            self._counts[filters] = self._count(filters)
        return self._counts[filters]

    def _count(self, filters: tuple[Filter, ...]) -> Ints:
        if not filters:
            return np.diff(self.starts, append=len(self.session))
        if all(condition.value is None for condition in filters):
            return self._count_names(filters)
        return np.bincount(self.session[self.rows(filters)], minlength=self.session_count)

    def _count_names(self, filters: tuple[Filter, ...]) -> Ints:
        names, _ = self.names
        taken = np.logical_or.reduce([_takes_names(condition, names) for condition in filters])
        counted = self.name_counts
        chosen = np.flatnonzero(taken[counted.codes])
        counts = np.bincount(counted.sessions[chosen], counted.counts[chosen], self.session_count)
        return counts.astype(np.int64)


def aggregate(  # noqa: C901, PLR0911, PLR0912 - one case for each aggregation
    events: Events, metric: Metric, metric_table: MetricTable
) -> pa.Array:
    """The metric of each session of the block, in the order of `Layout.session_nos`."""
    match metric.aggregation:
        case Aggregation.COUNT:
            return pa.array(events.count(metric.where))
        case Aggregation.ANY:
            return pa.array(events.count(metric.where) > 0)
        case Aggregation.SUM:
            return _sum(events, metric)
        case Aggregation.MIN:
            return _extreme(events, metric, np.minimum)
        case Aggregation.MAX:
            return _extreme(events, metric, np.maximum)
        case Aggregation.DISTINCT_COUNT:
            return _distinct_count(events, metric)
        case Aggregation.DISTINCT_LIST:
            return _distinct_list(events, metric)
        case Aggregation.DISTINCT_RECORDS:
            return _distinct_records(events, metric)
        case Aggregation.COUNTS_BY_VALUE:
            return _counts_by_value(events, metric)
        case Aggregation.FIRST:
            return _first_or_last(events, metric, is_first=True)
        case Aggregation.LAST:
            return _first_or_last(events, metric, is_first=False)
        case Aggregation.SECONDS_BETWEEN:
            return _seconds_between(events, metric)
        case Aggregation.CAPPED_GAP_SUM:
            return _capped_gap_sum(events, metric_table.engaged_gap_cap_seconds)
        case _:
            assert_never(metric.aggregation)


def _sum(events: Events, metric: Metric) -> pa.Array:
    places = events.places(events.rows(metric.where, _value(metric)))
    sessions = events.session_at[places]  # in order: the same sum for any order of rows
    values = _floats(events.values(_value(metric), events.rows_at(places)))
    sums = np.bincount(sessions, values, events.session_count).astype(np.float64)
    missing = np.bincount(sessions, minlength=events.session_count) == 0
    return pa.array(sums, mask=missing)


def _extreme(events: Events, metric: Metric, best: np.ufunc) -> pa.Array:
    places = events.places(events.rows(metric.where, _value(metric)))
    values = _floats(events.values(_value(metric), events.rows_at(places)))
    sessions = events.session_at[places]
    firsts = stretch_starts(sessions)
    extremes = np.zeros(events.session_count)
    missing = np.ones(events.session_count, dtype=np.bool_)
    if len(firsts):
        extremes[sessions[firsts]] = best.reduceat(values, firsts)
        missing[sessions[firsts]] = False
    return pa.array(extremes, mask=missing)


def _first_or_last(events: Events, metric: Metric, *, is_first: bool) -> pa.Array:
    places = events.places(events.chosen_rows(metric))
    sessions = events.session_at[places]
    chosen = stretch_starts(sessions) if is_first else _lasts(sessions)
    row_of_session = np.full(events.session_count, -1)
    row_of_session[sessions[chosen]] = events.rows_at(places[chosen])
    return events.values(_value(metric), row_of_session).cast(_ARROW_TYPES[metric.type])


def _distinct_count(events: Events, metric: Metric) -> pa.Array:
    rows = events.rows(metric.where, _value(metric))
    values, codes = _encoded(events.values(_value(metric), rows))
    cells = events.session_count, len(values)
    pairs = _counted(events.session[rows], codes, cells)
    return pa.array(np.bincount(pairs.sessions, minlength=events.session_count))


def _distinct_list(events: Events, metric: Metric) -> pa.Array:
    places = events.places(events.rows(metric.where, _value(metric)))
    values, codes = _encoded(events.values(_value(metric), events.rows_at(places)))
    sessions = events.session_at[places]
    pairs = _pairs(sessions, codes, len(values))
    by_pair = np.argsort(pairs, kind="stable")
    last_uses = np.sort(by_pair[_lasts(pairs[by_pair])])
    in_order = values.cast(pa.string()).take(pa.array(codes[last_uses]))
    return _lists(in_order, sessions[last_uses], events.session_count)


def _distinct_records(events: Events, metric: Metric) -> pa.Array:
    fields = [field for field, _, _ in metric.record]
    rows = events.rows(metric.where)
    columns = {"": pa.array(events.session[rows])}
    for field, type_, source in metric.record:
        columns[field] = events.values(source, rows).cast(_ARROW_TYPES[type_])
    records = pa.table(columns).drop_null()
    keys: list[Ints | Index] = [ints(records.column(""))]
    keys += [_ranked(records.column(field))[1] for field in fields]
    order = np.lexsort(keys[::-1])
    is_new = np.ones(len(order), dtype=np.bool_)
    is_new[1:] = np.any([key[order][1:] != key[order][:-1] for key in keys], axis=0)
    distinct = records.take(pa.array(order[is_new]))
    values = distinct.select(fields).to_struct_array().combine_chunks()
    return _lists(values, ints(distinct.column("")), events.session_count)


def _counts_by_value(events: Events, metric: Metric) -> pa.Array:
    if metric.value == "event" and not metric.where:
        names, counted = events.names[0], events.name_counts
    else:
        rows = events.rows(metric.where, _value(metric))
        names, codes = _ranked(events.values(_value(metric), rows))
        counted = _counted(events.session[rows], codes, (events.session_count, len(names)))
    fields = [field for field, _, _ in metric.record]
    values = [names.cast(pa.string()).take(pa.array(counted.codes)), pa.array(counted.counts)]
    records = pa.StructArray.from_arrays(values, fields)
    return _lists(records, counted.sessions, events.session_count)


def _seconds_between(events: Events, metric: Metric) -> pa.Array:
    begun = _first_places(events, events.places(events.rows(metric.since)))
    stops = events.places(events.rows(metric.where))
    ended = _first_places(events, stops[stops >= begun[events.session_at[stops]]])
    is_over = np.flatnonzero(ended < _NEVER)
    seconds = np.zeros(events.session_count)
    seconds[is_over] = (events.times[ended[is_over]] - events.times[begun[is_over]]) / _MICROSECONDS
    return pa.array(seconds, mask=ended == _NEVER)


def _first_places(events: Events, places: Ints) -> Ints:
    """The first of the places in each session; _NEVER where it has none of them."""
    sessions = events.session_at[places]
    firsts = stretch_starts(sessions)
    found = np.full(events.session_count, _NEVER)
    found[sessions[firsts]] = places[firsts]
    return found


def _capped_gap_sum(events: Events, cap_seconds: int) -> pa.Array:
    if not events.session_count:
        return pa.array([], pa.float64())
    gaps = np.diff(events.times, prepend=events.times[:1])
    gaps[events.starts] = 0
    np.minimum(gaps, cap_seconds * _MICROSECONDS, out=gaps)
    return pa.array(np.add.reduceat(gaps, events.starts) / _MICROSECONDS)


def _value(metric: Metric) -> str:
    if metric.value is None:
        message = f"Metric {metric.name} needs a value to aggregate by {metric.aggregation}."
        raise ValueError(message)
    return metric.value


def _takes_names(condition: Filter, names: pa.Array) -> Mask:
    """Which event names the filter takes."""
    taken = [
        (not condition.events or name in condition.events)
        and all(part in name.lower() for part in condition.event_contains)
        for name in names.to_pylist()
    ]
    return np.array(taken, dtype=np.bool_)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Counts:
    """How often each value occurs in each session, by session and then by the value's code."""

    sessions: Ints
    codes: Ints
    counts: Ints


def _counted(sessions: Index, codes: Index, cells: tuple[int, int]) -> _Counts:
    """The counts, for sessions and codes that are below `cells`."""
    pairs = _pairs(sessions, codes, cells[1])
    if cells[0] * cells[1] <= _CELLS_PER_ROW * len(pairs):
        table = np.bincount(pairs)
        found = np.flatnonzero(table > 0)  # of a mask, which NumPy searches faster
        counts = table[found]
    else:
        pairs.sort()
        firsts = stretch_starts(pairs)
        found, counts = pairs[firsts], np.diff(firsts, append=len(pairs))
    in_sessions, of_codes = np.divmod(found, cells[1])
    return _Counts(sessions=in_sessions, codes=of_codes, counts=counts)


def _pairs(sessions: Index, codes: Index, width: int) -> Ints:
    """Session and code as one number, for codes below `width`."""
    pairs = sessions.astype(np.int64)
    pairs *= width
    pairs += codes
    return pairs


def _distinct(numbers: Ints) -> Ints:
    numbers.sort()
    return numbers[stretch_starts(numbers)]


def stretch_starts(ordered: Ints | Index) -> Ints:
    """Where each stretch of equal numbers begins."""
    changes = np.flatnonzero(ordered[1:] != ordered[:-1]) + 1
    return np.concatenate((np.zeros(min(len(ordered), 1), dtype=np.int64), changes))


def _lasts(ordered: Ints | Index) -> Ints:
    """Where each stretch of equal numbers ends."""
    return np.append(stretch_starts(ordered)[1:], len(ordered))[: len(ordered)] - 1


def _encoded(column: pa.ChunkedArray) -> tuple[pa.Array, Index]:
    """The distinct values of a column without nulls, and for each row which of them it has."""
    encoded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    joined = encoded.unify_dictionaries().combine_chunks()
    return joined.dictionary, joined.indices.cast(pa.int32()).to_numpy()


def _ranked(column: pa.ChunkedArray) -> tuple[pa.Array, Index]:
    """The distinct values in order, and for each row the place of its value among them."""
    values, codes = _encoded(column)
    order = pc.sort_indices(values)
    ranks = np.empty(len(values), dtype=np.int32)
    ranks[order] = np.arange(len(values))
    return values.take(order), ranks[codes]


def _lists(values: pa.Array, sessions: Ints | Index, session_count: int) -> pa.Array:
    """One list per session of the values, which stand in the order of their sessions."""
    ends = np.cumsum(np.bincount(sessions, minlength=session_count))
    offsets = np.concatenate(([0], ends)).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), values)


def _is_known(column: pa.ChunkedArray) -> Mask:
    return np.concatenate([_is_valid(chunk) for chunk in column.chunks or [pa.nulls(0)]])


def _is_valid(chunk: pa.Array) -> Mask:
    """Unpacked by NumPy, several times faster than Arrow does it."""
    bitmap = chunk.buffers()[0]
    if bitmap is None:
        return np.full(len(chunk), chunk.null_count == 0)
    first, skipped = divmod(chunk.offset, 8)
    packed = np.frombuffer(bitmap, np.uint8, (skipped + len(chunk) + 7) // 8, first)
    bits = np.unpackbits(packed, bitorder="little")
    return bits[skipped : skipped + len(chunk)].view(np.bool_)


def ints(column: pa.ChunkedArray) -> Ints:
    """The column as integers: times in microseconds."""
    if pa.types.is_timestamp(column.type):
        column = column.cast(_ARROW_TYPES["TIMESTAMP"])
    values: Ints = column.cast(pa.int64()).to_numpy()
    return values


def _floats(column: pa.ChunkedArray) -> Floats:
    values: Floats = column.cast(pa.float64()).to_numpy()
    return values
