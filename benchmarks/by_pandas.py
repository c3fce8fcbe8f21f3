"""The metric table by idiomatic pandas: a sorted frame, flags as columns, `groupby().agg()`."""

from __future__ import annotations

from functools import reduce
from operator import and_, or_
from typing import TYPE_CHECKING, Any

import pandas as pd

from sessions.metric_types import Aggregation, Filter, Metric, is_repeated
from tests.shipped import METRIC_TABLE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import pyarrow as pa

    type Flags = dict[tuple[Filter, ...], pd.Series[bool]]

_KEY = "session_no"
_PICKS = {Aggregation.FIRST: "first", Aggregation.LAST: "last"}
_HOW = _PICKS | {
    Aggregation.COUNT: "sum",  # of a flag
    Aggregation.ANY: "any",
    Aggregation.SUM: "sum",
    Aggregation.MIN: "min",
    Aggregation.MAX: "max",
    Aggregation.DISTINCT_COUNT: "nunique",
    Aggregation.CAPPED_GAP_SUM: "sum",
}


def aggregate(events: pa.Table) -> pd.DataFrame:
    """One row per session, in the order of `session_no`."""
    frame = events.to_pandas().sort_values([_KEY, "event_no"], ignore_index=True)
    flags = _flags(frame)
    sessions = pd.concat([_simple(frame, flags), *_preferred(frame, flags)], axis="columns")
    for metric in METRIC_TABLE.metrics:
        if metric.aggregation is Aggregation.SECONDS_BETWEEN:
            sessions[metric.name] = _seconds_between(frame, metric, flags)
        elif is_repeated(metric):
            rows, values = _listed(frame, metric, flags)
            sessions[metric.name] = _lists(rows[_KEY], values, sessions.index)
    return sessions.reset_index()[[_KEY, *(metric.name for metric in METRIC_TABLE.metrics)]]


def _flags(frame: pd.DataFrame) -> Flags:
    """Which events each of the metrics' filters takes."""
    wanted = {
        part
        for metric in METRIC_TABLE.metrics
        for part in (metric.where, metric.prefer, metric.since)
    }
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


def _simple(frame: pd.DataFrame, flags: Flags) -> pd.DataFrame:
    """All that one `agg` of columns and flags computes."""
    columns, how = {_KEY: frame[_KEY]}, {}
    for metric in METRIC_TABLE.metrics:
        if aggregation := _how(metric):
            columns[metric.name] = _source(frame, metric, flags)
            how[metric.name] = aggregation
    sessions = pd.DataFrame(columns).groupby(_KEY).agg(how)
    for metric in METRIC_TABLE.metrics:
        if metric.aggregation is Aggregation.CAPPED_GAP_SUM:
            sessions[metric.name] /= 1_000_000
    return sessions


def _how(metric: Metric) -> str | None:
    """What `agg` calls it, where it is one of its own."""
    if metric.aggregation is Aggregation.COUNT and not metric.where:
        return "size"
    return None if metric.prefer else _HOW.get(metric.aggregation)


def _source(frame: pd.DataFrame, metric: Metric, flags: Flags) -> pd.Series[Any]:
    if metric.aggregation is Aggregation.CAPPED_GAP_SUM:
        return _gaps(frame)
    if metric.value is None:
        return flags[metric.where] if metric.where else frame[_KEY]
    column = frame[metric.value]
    return column.where(flags[metric.where]) if metric.where else column


def _gaps(frame: pd.DataFrame) -> pd.Series[int]:
    """Microseconds since the session's event before, capped; 0 for its first."""
    gaps = frame["event_at"].astype("int64").diff().where(frame["event_no"] > 1, 0)
    return gaps.clip(upper=METRIC_TABLE.engaged_gap_cap_seconds * 1_000_000).astype("int64")


def _preferred(frame: pd.DataFrame, flags: Flags) -> Iterator[pd.DataFrame]:
    """The values of the preferred events where the session has any of those, else of all."""
    metrics = [metric for metric in METRIC_TABLE.metrics if metric.prefer]
    for prefer, pick in dict.fromkeys((each.prefer, each.aggregation) for each in metrics):
        chosen = [each for each in metrics if (each.prefer, each.aggregation) == (prefer, pick)]
        columns = [each.value or "" for each in chosen]
        preferred = frame[flags[prefer]].groupby(_KEY)[columns].agg(_PICKS[pick])
        of_all = frame.groupby(_KEY)[columns].agg(_PICKS[pick])
        rest = of_all[~of_all.index.isin(preferred.index)]
        both = pd.concat([preferred, rest]).sort_index()
        yield both.set_axis([each.name for each in chosen], axis="columns")


def _listed(
    frame: pd.DataFrame, metric: Metric, flags: Flags
) -> tuple[pd.DataFrame, Iterable[object]]:
    """The rows that make up the lists, in order, and the value that each of them adds."""
    value = metric.value or ""
    if metric.aggregation is Aggregation.DISTINCT_LIST:
        known = frame.dropna(subset=[value])
        rows = known.drop_duplicates([_KEY, value], keep="last")
        return rows, rows[value]
    if metric.aggregation is Aggregation.COUNTS_BY_VALUE:
        rows = frame.groupby([_KEY, value]).size().rename("").reset_index()
        sources = [value, ""]
    else:
        sources = [source for _, _, source in metric.record]
        known = frame[flags[metric.where]].dropna(subset=sources)
        rows = known.drop_duplicates([_KEY, *sources]).sort_values([_KEY, *sources])
    fields = [field for field, _, _ in metric.record]
    values = zip(*(rows[source] for source in sources), strict=True)
    return rows, [dict(zip(fields, row, strict=True)) for row in values]


def _lists(keys: pd.Series[int], values: Iterable[object], index: pd.Index[Any]) -> pd.Series[Any]:
    """The values of each session as a list: a loop, since `agg(list)` takes four times as long."""
    lists: dict[int, list[object]] = {key: [] for key in index}
    for key, value in zip(keys, values, strict=True):
        lists[key].append(value)
    return pd.Series(list(lists.values()), index=index)


def _seconds_between(frame: pd.DataFrame, metric: Metric, flags: Flags) -> pd.Series[float]:
    columns = [_KEY, "event_no", "event_at"]
    begun = frame.loc[flags[metric.since], columns].groupby(_KEY).first()
    stops = frame.loc[flags[metric.where], columns].merge(
        begun, left_on=_KEY, right_index=True, suffixes=("", "_begun")
    )
    ended = stops[stops["event_no"] >= stops["event_no_begun"]].groupby(_KEY).first()
    microseconds = ended["event_at"].astype("int64") - ended["event_at_begun"].astype("int64")
    return microseconds / 1_000_000
