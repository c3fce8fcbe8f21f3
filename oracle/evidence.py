"""Which events of a session each of its columns comes from, by the declarations alone. Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from oracle.ids import trimmed
from sessions.metric_types import Aggregation, Derived, Enriched, Metric

if TYPE_CHECKING:
    from collections.abc import Sequence

    from oracle.rows import Event
    from sessions.metric_types import Filter, MetricTable, Property


def events_behind(metric_table: MetricTable, name: str, events: Sequence[Event]) -> list[Event]:
    """Return the events that the column's value follows from, in event order.

    Those of a derived column are those of the columns that it is computed from. Columns of the
    user come from the events of the distinct ids.
    """
    column = next((each for each in metric_table.columns if each.name == name), None)
    match column:
        case Metric():
            return _of_metric(metric_table, column, events)
        case Derived():
            named = {*re.findall("[a-z_]+", column.sql)} - {name}
            sources = [each.name for each in metric_table.columns if each.name in named]
            found = {
                event.uuid
                for source in sources
                for event in events_behind(metric_table, source, events)
            }
            return [event for event in events if event.uuid in found]
        case Enriched():
            latest = {event.distinct_id: event for event in events if event.distinct_id}
            return [event for event in events if event in latest.values()]
        case _:
            return list(events)


def _of_metric(metric_table: MetricTable, metric: Metric, events: Sequence[Event]) -> list[Event]:
    """Return the events that count; for a first, last or greatest value the one that has it."""
    preferred = [each for each in events if any_matches(metric_table, metric.prefer, each)]
    looked_at = (preferred or events) if metric.prefer else events
    counted = [
        each
        for each in looked_at
        if (not metric.where or any_matches(metric_table, metric.where, each))
        and (metric.value is None or value_of(metric_table, metric.value, each) is not None)
    ]
    match metric.aggregation:
        case Aggregation.FIRST:
            return counted[:1]
        case Aggregation.LAST:
            return counted[-1:]
        case Aggregation.MAX | Aggregation.MIN:
            return _extreme(metric_table, metric, counted)
        case Aggregation.SECONDS_BETWEEN:
            starts = [each for each in events if any_matches(metric_table, metric.since, each)]
            after = [each for each in counted if starts and _place(each) >= _place(starts[0])]
            return starts[:1] + after[:1]
        case _:
            return counted


def _place(event: Event) -> tuple[int, str]:
    """Return the sort key of events."""
    return event.at, event.uuid


def _extreme(metric_table: MetricTable, metric: Metric, counted: list[Event]) -> list[Event]:
    choose = max if metric.aggregation is Aggregation.MAX else min
    known = [
        (value, -number, event)
        for number, event in enumerate(counted)
        if isinstance(value := value_of(metric_table, metric.value or "", event), float)
    ]
    return [choose(known, key=lambda each: each[:2])[2]] if known else []


def any_matches(metric_table: MetricTable, where: tuple[Filter, ...], event: Event) -> bool:
    """Whether the event fulfils any of these conditions."""
    return any(_matches(metric_table, condition, event) for condition in where)


def _matches(metric_table: MetricTable, condition: Filter, event: Event) -> bool:
    """Whether all the parts of a filter that are given hold."""
    if condition.events and event.name not in condition.events:
        return False
    if not all(part in event.name.lower() for part in condition.event_contains):
        return False
    if condition.value is None:
        return True
    value = value_of(metric_table, condition.value, event)
    return value in condition.among if condition.among else value is not None


def value_of(metric_table: MetricTable, name: str, event: Event) -> object:
    """Return the event's own column or its declared property; None where it has none."""
    own = {"event": event.name, "event_at": event.at, "distinct_id": event.distinct_id}
    if name in own:
        return own[name]
    declared = next(item for item in metric_table.properties if item.name == name)
    return property_value(declared, event)


def property_value(declared: Property, event: Event) -> str | float | None:
    """Return a declared property of the event: text, a number, or a share clipped to 0..1."""
    if declared.kind in {"text", "id"}:
        text = event.first_of(declared.names)
        return trimmed(text) if declared.kind == "id" else text
    value = event.number(declared.names)
    if value is not None and declared.per:
        divisor = event.number(declared.per)
        value = value / divisor if divisor is not None and divisor > 0 else None
    if value is None or declared.kind == "number":
        return value
    return min(max(value, 0.0), 1.0)
