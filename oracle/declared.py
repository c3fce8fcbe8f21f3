"""The columns that the metrics file declares, one plain function for each aggregation. Pure.

What each means stands in docs/metrics.md; `sessions.metric_types` holds the declarations.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from oracle.evidence import any_matches, value_of
from oracle.ids import SECOND
from sessions.metric_types import Aggregation, Metric

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from oracle.rows import Event
    from sessions.metric_types import MetricTable

type Row = dict[str, Any]
type Values = list[Any]


def declared_columns(metric_table: MetricTable, events: Sequence[Event]) -> Row:
    """Return the declared columns of a session's events, which come in event order."""
    return {
        metric.name: _column(metric_table, metric, events)
        for metric in metric_table.metrics
        if metric.name in metric_table.declared
    }


def _column(metric_table: MetricTable, metric: Metric, events: Sequence[Event]) -> object:
    counted = [each for each in events if _counts(metric_table, metric, each)]
    match metric.aggregation:
        case Aggregation.COUNT:
            return len(counted)
        case Aggregation.ANY:
            return bool(counted)
        case Aggregation.SECONDS_BETWEEN:
            return _seconds_between(metric_table, metric, events)
        case aggregation:
            values = [value_of(metric_table, metric.value or "", each) for each in counted]
            return _OF_VALUES[aggregation]([each for each in values if each is not None])


def _counts(metric_table: MetricTable, metric: Metric, event: Event) -> bool:
    """Whether the event is one of those that the metric names; all are where it names none."""
    return not metric.where or any_matches(metric_table, metric.where, event)


def _seconds_between(
    metric_table: MetricTable, metric: Metric, events: Sequence[Event]
) -> float | None:
    """Return the seconds from the first start to the first stop that does not stand before it."""
    places = range(len(events))
    start = next((n for n in places if any_matches(metric_table, metric.since, events[n])), None)
    if start is None:
        return None
    stops = (each for each in events[start:] if any_matches(metric_table, metric.where, each))
    stop = next(stops, None)
    return None if stop is None else (stop.at - events[start].at) / SECOND


def _total(values: Values) -> float | None:
    return sum(values) if values else None


def _least(values: Values) -> float | None:
    return min(values, default=None)


def _greatest(values: Values) -> float | None:
    return max(values, default=None)


def _distinct_count(values: Values) -> int:
    return len(set(values))


def _in_order_of_last_use(values: Values) -> Values:
    return list(dict.fromkeys(reversed(values)))[::-1]


def _first(values: Values) -> object:
    return values[0] if values else None


def _last(values: Values) -> object:
    return values[-1] if values else None


_OF_VALUES: Final[dict[Aggregation, Callable[[Values], object]]] = {
    Aggregation.SUM: _total,
    Aggregation.MIN: _least,
    Aggregation.MAX: _greatest,
    Aggregation.DISTINCT_COUNT: _distinct_count,
    Aggregation.DISTINCT_LIST: _in_order_of_last_use,
    Aggregation.FIRST: _first,
    Aggregation.LAST: _last,
}
