"""The vocabulary of metric tables, and the rules for each of them. Declares no metric. Pure.

The table of a deployment is `sessions/metrics.py` with what `config/metrics.yaml` declares.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import TYPE_CHECKING, Literal

from runs.request import FIRST_DAY

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_SECONDS_A_DAY = 86_400
_OF_DOCUMENTS = {"events_created", "checkins_created"}

# The events table's own columns, by which metrics may name them.
EVENT_COLUMNS = ("event", "event_at", "distinct_id")

ColumnType = Literal["STRING", "INT64", "FLOAT64", "BOOL", "TIMESTAMP", "DATE", "RECORD"]


class Aggregation(StrEnum):
    """The closed vocabulary of aggregations over the ordered events of one session.

    Null rules: counts of nothing are 0, `ANY` is false, lists are empty, everything else is null.
    `SUM`, `MIN`, `MAX`, `FIRST`, `LAST` and the distinct ones skip null values.
    """

    COUNT = "count"
    ANY = "any"
    SUM = "sum"
    MIN = "min"
    MAX = "max"
    DISTINCT_COUNT = "distinct_count"
    DISTINCT_LIST = "distinct_list"  # in order of last use
    DISTINCT_RECORDS = "distinct_records"  # ordered by their values
    COUNTS_BY_VALUE = "counts_by_value"  # ordered by value
    FIRST = "first"
    LAST = "last"
    SECONDS_BETWEEN = "seconds_between"
    CAPPED_GAP_SUM = "capped_gap_sum"


# These give the same result when a value that repeats the previous event's is left out.
UNCHANGED_BY_REPEATS = frozenset(
    {
        Aggregation.ANY,
        Aggregation.MIN,
        Aggregation.MAX,
        Aggregation.DISTINCT_COUNT,
        Aggregation.DISTINCT_LIST,
        Aggregation.FIRST,
        Aggregation.LAST,
    }
)


class RollUp(StrEnum):
    """How a session's value becomes a person's; sums also become a day's. Null values are skipped.

    First and last are by the sessions' starts, then their ids.
    """

    NONE = "none"
    SUM = "sum"
    EVER = "ever"
    MAX = "max"
    FIRST = "first"
    LAST = "last"
    FIRST_AND_LAST = "first_and_last"


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which events count: all the parts that are given must hold. Null never matches."""

    events: tuple[str, ...] = ()
    event_contains: tuple[str, ...] = ()  # lower case; every part, in any case of the event name
    value: str | None = None  # a property
    among: tuple[str, ...] = ()  # values of `value`; empty: any that is not null


@dataclass(frozen=True, slots=True, kw_only=True)
class Property:
    """A value read from an event's `properties`: the first non-empty scalar of `names`.

    A `fraction` is a number clipped to 0..1. With `per`, the number is divided by the first
    non-empty scalar of those names; a divisor that is no number above 0 makes the whole null.
    """

    name: str
    names: tuple[str, ...]
    kind: Literal["text", "id", "number", "fraction"] = "text"
    per: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """A column aggregated from a session's events.

    `value` is the property, or the event column, that is aggregated. `where` holds alternatives;
    empty: all events. `prefer`: if the session has any such event, only those count.
    `since` starts the clock of `SECONDS_BETWEEN`, and `where` stops it.
    """

    name: str
    aggregation: Aggregation
    type: ColumnType
    description: str
    value: str | None = None
    where: tuple[Filter, ...] = ()
    prefer: tuple[Filter, ...] = ()
    since: tuple[Filter, ...] = ()
    record: tuple[tuple[str, ColumnType, str], ...] = ()  # (field, type, property it is read from)
    roll_up: RollUp = RollUp.NONE

    @property
    def reads(self) -> set[str]:
        """The properties and event columns that it is computed from."""
        filters = (*self.where, *self.prefer, *self.since)
        sources = (source for _, _, source in self.record)
        return {name for name in (self.value, *(f.value for f in filters), *sources) if name}


@dataclass(frozen=True, slots=True, kw_only=True)
class Enriched:
    """A column that follows from the finished row and the small tables (`enrichment.py`)."""

    name: str
    type: ColumnType
    description: str
    roll_up: RollUp = RollUp.NONE


@dataclass(frozen=True, slots=True, kw_only=True)
class Derived:
    """A column computed from others of the finished row by one GoogleSQL expression."""

    name: str
    type: ColumnType
    description: str
    sql: str
    roll_up: RollUp = RollUp.NONE


@dataclass(frozen=True, slots=True, kw_only=True)
class Bookkeeping:
    """A column the run itself writes: keys, days, and which run wrote the row."""

    name: str
    type: ColumnType
    description: str
    record: tuple[tuple[str, ColumnType, str], ...] = ()
    roll_up: RollUp = RollUp.NONE


Column = Metric | Enriched | Derived | Bookkeeping

REPEATED_AGGREGATIONS = frozenset(
    {Aggregation.DISTINCT_LIST, Aggregation.DISTINCT_RECORDS, Aggregation.COUNTS_BY_VALUE}
)


def is_repeated(column: Column) -> bool:
    """Whether the column is a REPEATED one in BigQuery."""
    if isinstance(column, Metric):
        return column.aggregation in REPEATED_AGGREGATIONS
    return isinstance(column, Bookkeeping) and bool(column.record)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tie:
    """Events that tie their distinct id to another id of the same person."""

    events: tuple[str, ...]
    names: tuple[str, ...]
    """The properties that the other id is read from: the first that is not empty."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Creation:
    """What Firebase's documents count as, by their type. Any other, or none, counts as an event."""

    checkins: tuple[str, ...]
    ignored: tuple[str, ...] = ()
    """Count nowhere."""


# Without slots, so that derived values are cached on the table.
@dataclass(frozen=True, kw_only=True)
class MetricTable:
    """Every column of `sessions`, and the rules that its rows are built by.

    Both engines aggregate any table. A whole run names some columns itself: the keys and
    bookkeeping, times, ids and `event_count`, the enriched columns, and the property `lib` for
    EXCLUDE_LIBS. Raises ValueError where a metric reads what is not declared.
    """

    columns: tuple[Column, ...]
    """In the order of the table's columns."""
    properties: tuple[Property, ...]
    """What metrics may read of an event's `properties`."""
    session_id_names: tuple[str, ...]
    """The properties that a session id is read from: the first that is not empty."""
    ignored_events: tuple[str, ...] = ()
    """Names of events that are set aside as excluded, so that they make no session longer."""
    engaged_gap_cap_seconds: int
    """The most that a gap between two events counts as engaged."""
    longest_session_seconds: int
    """An id with events further apart is split: it is not one session."""
    most_session_rows: int
    """An id of more rows is split, too; a piece of more rows is quarantined."""
    ingestion_tolerance_seconds: int
    """An event later than its ingestion by more has a bad timestamp."""
    creation_tolerance_seconds: int
    """How far outside of a session a document may be created in it."""
    creation: Creation
    """What the documents count as."""
    phone_digits: int
    """A phone number of fewer digits matches nobody."""
    ties: tuple[Tie, ...]
    """What ties ids to each other, with or without a session."""
    junk_ids: tuple[str, ...]
    """Lower-case distinct ids that identify nobody."""
    declared: frozenset[str] = frozenset()
    """The names of the columns that the file of metrics declares: no row depends on it."""

    def __post_init__(self) -> None:
        """Check that every property that a metric names is declared."""
        known = {*EVENT_COLUMNS, *(item.name for item in self.properties)}
        for metric in self.metrics:
            if unknown := metric.reads - known:
                message = f"Metric {metric.name} reads {', '.join(sorted(unknown))}: declare it."
                raise ValueError(message)

    @cached_property
    def metrics(self) -> tuple[Metric, ...]:
        """The columns aggregated from events."""
        return tuple(column for column in self.columns if isinstance(column, Metric))

    @cached_property
    def repeated(self) -> tuple[Metric, ...]:
        """Those of the metrics that are lists."""
        return tuple(metric for metric in self.metrics if is_repeated(metric))

    @cached_property
    def enriched(self) -> tuple[Enriched, ...]:
        """The columns that follow from the row and the small tables."""
        return tuple(column for column in self.columns if isinstance(column, Enriched))

    @cached_property
    def derived(self) -> tuple[Derived, ...]:
        """The columns computed from others of the row."""
        return tuple(column for column in self.columns if isinstance(column, Derived))

    @property
    def longest_session_days(self) -> int:
        """How many days before and after one of its days a session may have rows on."""
        return -(-self.longest_session_seconds // _SECONDS_A_DAY)

    def column_versions(self) -> dict[str, str]:
        """For each column a hash of its declaration and of what it is read from."""
        read = {each.name: each for each in self.properties}
        return {column.name: _hash(self._declaration(column, read)) for column in self.columns}

    def _declaration(self, column: Column, read: Mapping[str, Property]) -> tuple[object, ...]:
        names = sorted(column.reads & read.keys()) if isinstance(column, Metric) else []
        of_documents = (self.creation,) if column.name in _OF_DOCUMENTS else ()
        return (column, *(read[name] for name in names), *of_documents)

    def version(self, exclusions: Iterable[object]) -> str:
        """A hash of all that a row's values depend on, besides the source rows.

        `exclusions`: the settings that leave rows out.
        """
        parts = (
            self.columns,
            self.properties,
            self.session_id_names,
            self.ignored_events,
            self.engaged_gap_cap_seconds,
            self.longest_session_seconds,
            self.most_session_rows,
            self.ingestion_tolerance_seconds,
            self.creation_tolerance_seconds,
            self.creation,
            FIRST_DAY.isoformat(),
            self.phone_digits,
            self.ties,
            self.junk_ids,
            tuple(exclusions),
        )
        return _hash(parts)


def _hash(parts: tuple[object, ...]) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:12]
