"""The metric table by Polars: one lazy query over the Arrow table, on all processors.

No event is sorted but for the gaps: most columns are null on most events, so each value has a
narrow query of its own. Names are counted first, and all that counts names adds those counts up.
"""

from __future__ import annotations

from functools import reduce
from operator import and_, or_
from typing import TYPE_CHECKING

import polars as pl

from sessions.metric_types import Aggregation, Filter, Metric, is_repeated
from tests.shipped import METRIC_TABLE

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pyarrow as pa

_KEY = "session_no"
_PICKS = {Aggregation.FIRST, Aggregation.LAST}
_COUNTS = {Aggregation.COUNT, Aggregation.ANY}


def aggregate(events: pa.Table) -> pl.DataFrame:
    """One row per session, in the order of `session_no`."""
    frame = pl.from_arrow(events, rechunk=False)
    assert isinstance(frame, pl.DataFrame)  # noqa: S101 - for the type checker
    return query(frame.lazy()).collect()


def query(events: pl.LazyFrame) -> pl.LazyFrame:
    """The query: a narrow one for each value, joined to that of the names, which all have."""
    joined = _by_name(events)
    for part in (*_picks(events), *_others(events)):
        joined = joined.join(part, on=_KEY, how="left")
    return joined.sort(_KEY).select(_KEY, *map(_finished, METRIC_TABLE.metrics))


def _finished(metric: Metric) -> pl.Expr:
    """The column with its rule for sessions that have nothing to aggregate."""
    column = pl.col(metric.name)
    if metric.aggregation in _COUNTS:
        counted = column.fill_null(0)
        return counted > 0 if metric.aggregation is Aggregation.ANY else counted.cast(pl.Int64)
    if is_repeated(metric):
        return column.fill_null([])
    return column


def _counts_names(metric: Metric) -> bool:
    return metric.aggregation in _COUNTS and all(each.value is None for each in metric.where)


def _by_name(events: pl.LazyFrame) -> pl.LazyFrame:
    """All that counts names, and the names with their counts."""
    names = events.group_by(_KEY, "event").agg(pl.len().cast(pl.Int64).alias("count"))
    sums = [
        pl.col("count").filter(_condition(metric.where)).sum().alias(metric.name)
        for metric in METRIC_TABLE.metrics
        if _counts_names(metric)
    ]
    lists = [
        pl.struct("event", "count").alias(metric.name)
        for metric in METRIC_TABLE.metrics
        if metric.aggregation is Aggregation.COUNTS_BY_VALUE
    ]
    return names.sort(_KEY, "event").group_by(_KEY, maintain_order=True).agg(*sums, *lists)


def _picks(events: pl.LazyFrame) -> Iterator[pl.LazyFrame]:
    """First and last values, those of one column together."""
    picks = [metric for metric in METRIC_TABLE.metrics if metric.aggregation in _PICKS]
    for value, prefer in dict.fromkeys((metric.value or "", metric.prefer) for metric in picks):
        known = events.filter(pl.col(value).is_not_null())
        if prefer:
            known = _preferred(events, known, prefer)
        yield known.group_by(_KEY).agg(
            _pick(metric) for metric in picks if (metric.value, metric.prefer) == (value, prefer)
        )


def _pick(metric: Metric) -> pl.Expr:
    value = pl.col(metric.value or "")
    is_first = metric.aggregation is Aggregation.FIRST
    return (value.min_by if is_first else value.max_by)("event_no").alias(metric.name)


def _preferred(
    events: pl.LazyFrame, known: pl.LazyFrame, prefer: tuple[Filter, ...]
) -> pl.LazyFrame:
    having = events.filter(_condition(prefer)).select(_KEY).unique().with_columns(has=True)
    joined = known.join(having, on=_KEY, how="left")
    return joined.filter(_condition(prefer) | pl.col("has").is_null())


def _others(events: pl.LazyFrame) -> Iterator[pl.LazyFrame]:
    for metric in METRIC_TABLE.metrics:
        value, taken = pl.col(metric.value or ""), events.filter(_condition(metric.where))
        match metric.aggregation:
            case Aggregation.COUNT | Aggregation.ANY if not _counts_names(metric):
                yield taken.group_by(_KEY).agg(pl.len().alias(metric.name))
            case Aggregation.SUM | Aggregation.MIN | Aggregation.MAX:
                known = taken.filter(value.is_not_null()).group_by(_KEY)
                yield known.agg(getattr(value, metric.aggregation)().alias(metric.name))
            case Aggregation.DISTINCT_COUNT:
                pairs = taken.filter(value.is_not_null()).select(_KEY, value).unique()
                counted = pairs.group_by(_KEY).agg(pl.len().cast(pl.Int64).alias(metric.name))
                yield events.select(_KEY).unique().join(counted, on=_KEY, how="left").fill_null(0)
            case Aggregation.DISTINCT_LIST:
                yield _list(taken, metric)
            case Aggregation.DISTINCT_RECORDS:
                yield _records(taken, metric)
            case Aggregation.SECONDS_BETWEEN:
                yield _seconds_between(events, metric)
            case Aggregation.CAPPED_GAP_SUM:
                yield _gaps(events, metric)
            case _:
                pass


def _list(taken: pl.LazyFrame, metric: Metric) -> pl.LazyFrame:
    value = pl.col(metric.value or "")
    uses = taken.filter(value.is_not_null()).group_by(_KEY, value).agg(pl.col("event_no").max())
    ordered = uses.sort(_KEY, "event_no").group_by(_KEY, maintain_order=True)
    return ordered.agg(value.alias(metric.name))


def _records(taken: pl.LazyFrame, metric: Metric) -> pl.LazyFrame:
    fields = [pl.col(source).alias(field) for field, _, source in metric.record]
    names = [field for field, _, _ in metric.record]
    distinct = taken.select(_KEY, *fields).drop_nulls().unique().sort(_KEY, *names)
    return distinct.group_by(_KEY, maintain_order=True).agg(pl.struct(names).alias(metric.name))


def _seconds_between(events: pl.LazyFrame, metric: Metric) -> pl.LazyFrame:
    """From the first event that starts the clock to the first one, not before it, that stops it."""
    at = pl.col("event_at").min_by("event_no")
    begun = events.filter(_condition(metric.since)).group_by(_KEY)
    stops = events.filter(_condition(metric.where)).join(
        begun.agg(pl.col("event_no").min().alias("begun_no"), at.alias("begun_at")), on=_KEY
    )
    ended = stops.filter(pl.col("event_no") >= pl.col("begun_no")).group_by(_KEY)
    taken = (at - pl.col("begun_at").first()).dt.total_microseconds() / 1_000_000
    return ended.agg(taken.alias(metric.name))


def _gaps(events: pl.LazyFrame, metric: Metric) -> pl.LazyFrame:
    ordered = events.select(_KEY, "event_no", "event_at").sort(_KEY, "event_no")
    gap = pl.col("event_at").diff().dt.total_microseconds()
    capped = gap.clip(upper_bound=METRIC_TABLE.engaged_gap_cap_seconds * 1_000_000)
    gaps = ordered.select(_KEY, gap=pl.when(pl.col("event_no") > 1).then(capped).otherwise(0))
    summed = pl.col("gap").sum() / 1_000_000
    return gaps.group_by(_KEY).agg(summed.alias(metric.name))


def _condition(filters: tuple[Filter, ...]) -> pl.Expr:
    alternatives = [reduce(and_, _parts(condition), pl.lit(value=True)) for condition in filters]
    return reduce(or_, alternatives) if alternatives else pl.lit(value=True)


def _parts(condition: Filter) -> Iterator[pl.Expr]:
    event = pl.col("event")
    if condition.events:
        yield event.is_in(condition.events)
    for part in condition.event_contains:
        yield event.str.to_lowercase().str.contains(part, literal=True)
    if condition.among:
        yield pl.col(condition.value or "").is_in(condition.among).fill_null(value=False)
    elif condition.value is not None:
        yield pl.col(condition.value).is_not_null()
