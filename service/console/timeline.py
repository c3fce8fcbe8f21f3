"""A session's story as its page shows it: a timeline, and columns that point at it. Pure.

`oracle/story.py` says what happened and what each column comes from. Here nothing is decided
but what of it is worth showing.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final

from oracle.comparison import same
from service.console import formats

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from oracle.story import ColumnLine, EventLine, SetAsideLine, Story
    from sessions.metric_types import MetricTable

_SHORTEST_GAP_SECONDS: Final = 5.0  # a shorter one is not shown
_OF_POSTHOG: Final = "$"
_VIEWS: Final = {"$pageview", "$screen"}
_FEW: Final = 6  # columns of more events than these are no news at each of them
_LATEST: Final = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """An event of the session, or a row that was set aside."""

    number: int | None
    """None: it was set aside, and `aside` says why."""
    at: datetime | None
    name: str
    kind: str
    """`view`, `ours` (an event of the app's own), `plain`, or `aside`."""
    aside: str = ""
    duplicates: int = 0
    distinct_id: str | None = None
    """Where it is another than that of the event before."""
    properties: tuple[tuple[str, str], ...] = ()
    """The declared ones that differ from those of the event before."""
    marks: tuple[str, ...] = ()
    """The columns that come from it and few others."""
    gap_seconds: float = 0.0
    """Since the event before; 0 where that is not worth telling."""
    engaged_seconds: float = 0.0
    """What of the gap counts as engaged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Value:
    """A column of the session: what is stored, what it means, and the events that it comes from."""

    name: str
    text: str
    description: str = ""
    is_empty: bool = False
    events: tuple[tuple[int, int], ...] = ()
    """Their numbers, as ranges of consecutive ones."""
    comes_from_all: bool = False
    computed: str | None = None
    """What the events say now, where that is something else."""


def moments(metric_table: MetricTable, story: Story) -> tuple[Moment, ...]:
    """The events in their order, and the rows that were set aside where they lie in time."""
    events = _told(metric_table, story)
    aside = [_aside(line) for line in story.set_aside]
    return tuple(sorted((*events, *aside), key=lambda each: each.at or _LATEST))


def _told(metric_table: MetricTable, story: Story) -> Iterator[Moment]:
    marks = _marks(metric_table, story)
    before: EventLine | None = None
    for event in story.events:
        gap = event.gap_seconds if event.gap_seconds >= _SHORTEST_GAP_SECONDS else 0.0
        yield Moment(
            number=event.number,
            at=event.at,
            name=event.name or "(no name)",
            kind=_kind(event.name),
            duplicates=event.copies - 1,
            distinct_id=None if before and before.distinct_id == event.distinct_id
            else event.distinct_id,
            properties=tuple(_news(event, before)),
            marks=tuple(marks.get(event.number, ())),
            gap_seconds=gap,
            engaged_seconds=min(gap, metric_table.engaged_gap_cap_seconds),
        )  # fmt: skip
        before = event


def _aside(line: SetAsideLine) -> Moment:
    reason = line.reason.replace("_", " ")
    return Moment(
        number=None, at=line.at, name=line.name or "(no name)", kind="aside", aside=reason
    )


def _kind(event: str) -> str:
    if event in _VIEWS:
        return "view"
    return "plain" if event.startswith(_OF_POSTHOG) else "ours"


def _news(event: EventLine, before: EventLine | None) -> Iterator[tuple[str, str]]:
    known = before.properties if before else {}
    for name, value in event.properties.items():
        if known.get(name) != value:
            yield name, formats.number(value) if isinstance(value, float) else value


def _marks(metric_table: MetricTable, story: Story) -> dict[int, list[str]]:
    """For each event the metrics that come from it, if they come from few others."""
    metrics = {metric.name for metric in metric_table.metrics}
    most = max(_FEW, len(story.events) // 4)
    marks: dict[int, list[str]] = {}
    for column in story.columns:
        is_special = len(column.events) <= most and len(column.events) < len(story.events)
        if column.name in metrics and is_special and column.value:
            for number in column.events:
                marks.setdefault(number, []).append(column.name)
    return marks


def values(
    metric_table: MetricTable, stored: Mapping[str, Any], story: Story | None
) -> tuple[Value, ...]:
    """Every stored column but bookkeeping, in its order, with its events where they are known."""
    explained = {column.name: column for column in story.columns} if story else {}
    described = {column.name: column.description for column in metric_table.columns}
    count = len(story.events) if story else 0
    return tuple(
        _value(name, value, described.get(name, ""), explained.get(name), count)
        for name, value in stored.items()
        if not name.startswith("_")
    )


def _value(
    name: str, stored: object, description: str, line: ColumnLine | None, count: int
) -> Value:
    differs = line is not None and not same(stored, line.value)
    return Value(
        name=name,
        text=text_of(name, stored),
        description=description,
        is_empty=not stored,
        events=tuple(ranges(line.events)) if line else (),
        comes_from_all=line is not None and len(line.events) == count > 1,
        computed=text_of(name, line.value) if line is not None and differs else None,
    )


def ranges(numbers: Sequence[int]) -> Iterator[tuple[int, int]]:
    """The first and the last of each run of consecutive numbers."""
    for _, group in groupby(enumerate(numbers), key=lambda each: each[1] - each[0]):
        found = [number for _, number in group]
        yield found[0], found[-1]


def bookkeeping(stored: Mapping[str, Any]) -> tuple[Value, ...]:
    """The columns that say which run wrote the row."""
    names = [name for name in stored if name.startswith("_") and name != "_days"]
    return tuple(Value(name=name, text=text_of(name, stored[name])) for name in names)


def text_of(name: str, value: object) -> str:  # noqa: PLR0911 - one line for each type
    """A stored value as people read it."""
    if value is None:
        return formats.NONE
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, datetime):
        return f"{formats.day(value.date())}, {formats.clock(value)} UTC"
    if isinstance(value, (int, float)):
        return formats.duration(value) if name.endswith("_seconds") else formats.number(value)
    if isinstance(value, list):
        return ", ".join(text_of("", each) for each in value) or "none"
    if isinstance(value, dict):
        return " ".join(text_of("", each) for each in value.values())
    return str(value)
