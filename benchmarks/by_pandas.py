"""The metric table by idiomatic pandas: a sorted frame, flags as columns, `groupby().agg()`."""

from __future__ import annotations

from functools import reduce
from operator import and_, or_
from typing import TYPE_CHECKING, Any

import pandas as pd

from sessions.metrics import (
    ENGAGED_GAP_CAP_SECONDS,
    METRICS,
    REPEATED_AGGREGATIONS,
    Aggregation,
    Filter,
    Metric,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pyarrow as pa

    type Row = tuple[Any, ...]

_KEY = "session_no"
_PICKS = {Aggregation.FIRST: "first", Aggregation.LAST: "last"}


def aggregate(events: pa.Table) -> pd.DataFrame:
    """One row per session, in the order of `session_no`."""
    frame = events.to_pandas().sort_values([_KEY, "event_no"], ignore_index=True)
    flags = _flags(frame)
    sessions = _simple(frame, flags)
    for metric in METRICS:
        match metric.aggregation:
            case Aggregation.FIRST | Aggregation.LAST if metric.prefer:
                sessions[metric.name] = _preferred(frame, metric, flags[metric.prefer])
            case Aggregation.COUNTS_BY_VALUE:
                counts = frame.groupby([_KEY, metric.value]).size().rename("count").reset_index()
                sessions[metric.name] = _records(counts, [metric.value or "", "count"], metric)
            case Aggregation.DISTINCT_RECORDS:
                sources = [source for _, _, source in metric.record]
                known = frame[flags[metric.where]].dropna(subset=sources)
                distinct = known.drop_duplicates([_KEY, *sources]).sort_values([_KEY, *sources])
                sessions[metric.name] = _records(distinct, sources, metric)
            case Aggregation.DISTINCT_LIST:
                last_uses = frame.dropna(subset=[metric.value]).drop_duplicates(
                    [_KEY, metric.value], keep="last"
                )
                sessions[metric.name] = last_uses.groupby(_KEY)[metric.value].agg(list)
            case Aggregation.SECONDS_BETWEEN:
                sessions[metric.name] = _seconds_between(frame, metric, flags)
            case _:
                pass
    for metric in METRICS:
        if metric.aggregation in REPEATED_AGGREGATIONS:
            lists = sessions[metric.name]
            sessions[metric.name] = lists.where(lists.notna(), pd.Series([[]] * len(lists), lists.index))
    return sessions.reset_index()[[_KEY, *(metric.name for metric in METRICS)]]


def _flags(frame: pd.DataFrame) -> dict[tuple[Filter, ...], pd.Series[bool]]:
    """Which events each of the metrics' filters takes."""
    wanted = {part for metric in METRICS for part in (metric.where, metric.prefer, metric.since)}
    return {filters: _condition(frame, filters) for filters in wanted if filters}


def _condition(frame: pd.DataFrame, filters: tuple[Filter, ...]) -> pd.Series[bool]:
    return reduce(or_, (reduce(and_, _parts(frame, condition)) for condition in filters))


def _parts(frame: pd.DataFrame, condition: Filter) -> Iterator[pd.Series[bool]]:
    if condition.events:
        yield frame["event"].isin(condition.events)
    for part in condition.event_contains:
        yield frame["event"].str.lower().str.contains(part, regex=False)
    if condition.among:
        yield frame[condition.value].isin(condition.among)
    elif condition.value is not None:
        yield frame[condition.value].notna()


def _simple(frame: pd.DataFrame, flags: dict[tuple[Filter, ...], pd.Series[bool]]) -> pd.DataFrame:
    """All that one `agg` of columns and flags computes."""
    columns, how = {_KEY: frame[_KEY]}, {}
    for metric in METRICS:
        source = frame.get(metric.value or "")
        match metric.aggregation:
            case Aggregation.COUNT if not metric.where:
                source, aggregation = frame["event"], "size"
            case Aggregation.COUNT:
                source, aggregation = flags[metric.where], "sum"
            case Aggregation.ANY:
                source, aggregation = flags[metric.where], "any"
            case Aggregation.DISTINCT_COUNT:
                source = source.where(flags[metric.where]) if metric.where else source
                aggregation = "nunique"
            case Aggregation.FIRST | Aggregation.LAST if not metric.prefer:
                aggregation = _PICKS[metric.aggregation]
            case Aggregation.SUM | Aggregation.MIN | Aggregation.MAX:
                aggregation = metric.aggregation.value
            case Aggregation.CAPPED_GAP_SUM:
                source, aggregation = _gaps(frame), "sum"
            case _:
                continue
        columns[metric.name], how[metric.name] = source, aggregation
    sessions = pd.DataFrame(columns).groupby(_KEY).agg(how)
    for metric in METRICS:
        if metric.aggregation is Aggregation.CAPPED_GAP_SUM:
            sessions[metric.name] /= 1_000_000
    return sessions


def _gaps(frame: pd.DataFrame) -> pd.Series[int]:
    """Microseconds since the session's event before, capped; 0 for its first."""
    gaps = frame["event_at"].astype("int64").diff().where(frame["event_no"] > 1, 0)
    return gaps.clip(upper=ENGAGED_GAP_CAP_SECONDS * 1_000_000).astype("int64")


def _preferred(frame: pd.DataFrame, metric: Metric, is_preferred: pd.Series[bool]) -> pd.Series[str]:
    """The value of the preferred events where the session has any, else of all."""
    pick = _PICKS[metric.aggregation]
    preferred = frame[is_preferred].groupby(_KEY)[metric.value].agg(pick)
    of_all = frame.groupby(_KEY)[metric.value].agg(pick)
    return preferred.reindex(of_all.index).where(of_all.index.isin(preferred.index), of_all)


def _records(rows: pd.DataFrame, sources: list[str], metric: Metric) -> pd.Series[Any]:
    """The rows as a list of records for each session."""
    fields = [field for field, _, _ in metric.record]
    values = zip(*(rows[source] for source in sources), strict=True)
    records = [dict(zip(fields, row, strict=True)) for row in values]
    return pd.Series(records, index=rows[_KEY], dtype=object).groupby(level=0).agg(list)


def _seconds_between(
    frame: pd.DataFrame, metric: Metric, flags: dict[tuple[Filter, ...], pd.Series[bool]]
) -> pd.Series[float]:
    columns = [_KEY, "event_no", "event_at"]
    begun = frame.loc[flags[metric.since], columns].groupby(_KEY).first()
    stops = frame.loc[flags[metric.where], columns].join(begun, on=_KEY, rsuffix="_begun")
    ended = stops[stops["event_no"] >= stops["event_no_begun"]].groupby(_KEY).first()
    microseconds = ended["event_at"].astype("int64") - ended["event_at_begun"].astype("int64")
    return microseconds / 1_000_000
