"""A session's events in order, their gaps, and which of them made each value. Pure.

It works on the rows that the projection gives, deduplicated and ordered as both engines do it.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

from sessions.metric_table import Aggregation

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from datetime import datetime

    from sessions.metric_table import Filter, Metric, MetricTable

type Row = Mapping[str, Any]

_SHORTEST_GAP_SECONDS: Final = 5.0  # a shorter one is not shown
_OF_POSTHOG: Final = "$"
_VIEWS: Final = {"$pageview", "$screen"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """An event of the session, or a row that was set aside."""

    at: datetime | None
    event: str
    kind: str
    """`view`, `ours` (an event of the app's own), `plain`, or `aside`."""
    detail: str
    aside: str | None
    """Why it does not count; None: it does."""
    marks: tuple[str, ...]
    """The columns whose values it made."""
    gap_seconds: float
    """Since the event before it that counts; 0 where that is not worth telling."""
    engaged_seconds: float
    """What of the gap counts as engaged."""


def moments(metric_table: MetricTable, rows: Sequence[Row]) -> tuple[Moment, ...]:
    """Every row of the session: those that count in their order, the others where they lie."""
    kept = _kept(rows)
    ordered = [row for row in rows if id(row) in kept]
    ordered.sort(key=lambda row: (row["event_at"], row["uuid"]))
    marks = _marks(metric_table, ordered)
    gaps = _gaps(metric_table, ordered)
    everything = sorted(
        rows, key=lambda row: (str(row["event_at"]), row["uuid"], id(row) not in kept)
    )
    found = []
    for row in everything:
        counts = id(row) in kept
        aside = None if counts else (row["reason"] or "duplicate").replace("_", " ")
        gap, engaged = gaps.get(id(row), (0.0, 0.0))
        found.append(
            Moment(
                at=row["event_at"],
                event=row["event"] or "(no name)",
                kind=_kind(row["event"], counts=counts),
                detail=_detail(row),
                aside=aside,
                marks=tuple(marks.get(id(row), ())),
                gap_seconds=gap,
                engaged_seconds=engaged,
            )
        )
    return tuple(found)


def _kept(rows: Iterable[Row]) -> set[int]:
    """The copy of each uuid that stays: the latest ingestion, then time, then hash."""
    best: dict[str, Row] = {}
    for row in rows:
        if row["reason"] is None:
            known = best.get(row["uuid"])
            if known is None or _rank(row) > _rank(known):
                best[row["uuid"]] = row
    return {id(row) for row in best.values()}


def _rank(row: Row) -> tuple[object, ...]:
    ingested = row["ingested_at"]
    return (ingested is not None, ingested or row["event_at"], row["event_at"], row["row_hash"])


def _kind(event: str, *, counts: bool) -> str:
    if not counts:
        return "aside"
    if event in _VIEWS:
        return "view"
    return "plain" if event.startswith(_OF_POSTHOG) else "ours"


def _detail(row: Row) -> str:
    shown = (row.get("screen_name"), row.get("pathname") or row.get("current_url"))
    return " ".join(str(each) for each in shown if each)


def _gaps(metric_table: MetricTable, ordered: Sequence[Row]) -> dict[int, tuple[float, float]]:
    cap = metric_table.engaged_gap_cap_seconds
    gaps = {}
    for before, row in pairwise(ordered):
        seconds = (row["event_at"] - before["event_at"]).total_seconds()
        if seconds >= _SHORTEST_GAP_SECONDS:
            gaps[id(row)] = (seconds, min(seconds, cap))
    return gaps


def _marks(metric_table: MetricTable, ordered: Sequence[Row]) -> dict[int, list[str]]:
    """For each row the columns that take their value from it."""
    marks: dict[int, list[str]] = {}
    for metric in metric_table.metrics:
        for row in _makers(metric, ordered):
            marks.setdefault(id(row), []).append(metric.name)
    return marks


def _makers(metric: Metric, ordered: Sequence[Row]) -> Iterator[Row]:
    """The rows that a metric's value comes from; none for those that all rows make."""
    rows = [row for row in ordered if _any_holds(metric.where, row)]
    value = metric.value
    match metric.aggregation:
        case Aggregation.FIRST | Aggregation.LAST if value not in {None, "event_at"}:
            preferred = [row for row in rows if metric.prefer and _any_holds(metric.prefer, row)]
            known = [row for row in preferred or rows if row.get(str(value)) is not None]
            yield from known[:1] if metric.aggregation is Aggregation.FIRST else known[-1:]
        case Aggregation.MAX | Aggregation.MIN:
            known = [row for row in rows if row.get(str(value)) is not None]
            pick = max if metric.aggregation is Aggregation.MAX else min
            if known:
                yield pick(known, key=lambda row: row[str(value)])
        case Aggregation.ANY:
            yield from rows[:1]
        case Aggregation.COUNT if metric.where:
            yield from rows
        case _:
            return


def _any_holds(where: tuple[Filter, ...], row: Row) -> bool:
    return not where or any(_holds(each, row) for each in where)


def _holds(condition: Filter, row: Row) -> bool:
    event = row["event"]
    if condition.events and event not in condition.events:
        return False
    if any(part not in event.lower() for part in condition.event_contains):
        return False
    if condition.value is None:
        return True
    value = row.get(condition.value)
    return value in condition.among if condition.among else value is not None
