"""The metric table by DuckDB: one statement over the Arrow table, on all processors."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

import duckdb

from sessions.metric_types import Aggregation, Metric, is_repeated
from sessions.projection import filters_sql
from tests.shipped import METRIC_TABLE

if TYPE_CHECKING:
    import pyarrow as pa

_PICKS = {Aggregation.FIRST: "ARG_MIN", Aggregation.LAST: "ARG_MAX"}


def aggregate(events: pa.Table) -> pa.Table:
    """One row per session, in the order of `session_no`."""
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.register("events", events)
        return connection.execute(statement()).to_arrow_table()


def statement() -> str:
    """The statement: simple aggregates in groups of a kind, each of the others in its own table.

    One grouping of all of them takes a third longer: its rows no longer fit the cache.
    """
    own = {metric.name: sql for metric in METRIC_TABLE.metrics if (sql := _own_sql(metric))}
    simple = sorted(
        (metric for metric in METRIC_TABLE.metrics if metric.name not in own), key=_kind
    )
    tables = {
        kind: f"SELECT session_no, {', '.join(map(_simple_sql, metrics))}\n"
        "  FROM events GROUP BY session_no"
        for kind, metrics in groupby(simple, _kind)
    }
    spine, *others = tables
    ctes = ",\n".join(f"{name}_table AS (\n  {sql}\n)" for name, sql in (tables | own).items())
    joins = "\n".join(f"LEFT JOIN {name}_table USING (session_no)" for name in (*others, *own))
    columns = ", ".join(_column_sql(metric) for metric in METRIC_TABLE.metrics)
    return f"""WITH {ctes}
SELECT session_no, {columns}
FROM {spine}_table
{joins}
ORDER BY session_no"""


def _kind(metric: Metric) -> str:
    if metric.aggregation in _PICKS:
        return "preferred" if metric.prefer else "picked"
    kinds = {Aggregation.COUNTS_BY_VALUE: "named", Aggregation.DISTINCT_COUNT: "distinct"}
    return kinds.get(metric.aggregation, "counted")


def _column_sql(metric: Metric) -> str:
    is_list = is_repeated(metric)
    return f"COALESCE({metric.name}, []) AS {metric.name}" if is_list else metric.name


def _simple_sql(metric: Metric) -> str:
    where = f" FILTER (WHERE {filters_sql(metric.where)})" if metric.where else ""
    match metric.aggregation:
        case Aggregation.COUNT:
            sql = f"COUNT(*){where}"
        case Aggregation.ANY:
            sql = f"COUNT(*){where} > 0"
        case Aggregation.DISTINCT_COUNT:
            sql = f"COUNT(DISTINCT {metric.value}){where}"
        case Aggregation.COUNTS_BY_VALUE:
            entry = "{'event': e.key, 'count': e.value::BIGINT}"
            entries = f"MAP_ENTRIES(HISTOGRAM({metric.value}){where})"
            sql = f"LIST_TRANSFORM({entries}, LAMBDA e: {entry})"
        case Aggregation.FIRST | Aggregation.LAST:
            sql = _pick_sql(metric)
        case _:
            sql = f"{metric.aggregation}({metric.value}){where}"
    return f"{sql} AS {metric.name}"


def _pick_sql(metric: Metric) -> str:
    pick = f"{_PICKS[metric.aggregation]}({metric.value}, event_no)"
    if not metric.prefer:
        return pick
    preferred = f" FILTER (WHERE {filters_sql(metric.prefer)})"
    return f"CASE WHEN COUNT(*){preferred} > 0 THEN {pick}{preferred} ELSE {pick} END"


def _own_sql(metric: Metric) -> str:
    """A SELECT of `session_no` and the metric, where that is not one simple aggregate."""
    match metric.aggregation:
        case Aggregation.DISTINCT_LIST:
            return f"""SELECT session_no, LIST({metric.value} ORDER BY last_no) AS {metric.name}
  FROM (
    SELECT session_no, {metric.value}, MAX(event_no) AS last_no
    FROM events WHERE {metric.value} IS NOT NULL GROUP BY ALL
  ) GROUP BY session_no"""
        case Aggregation.DISTINCT_RECORDS:
            return _records_sql(metric)
        case Aggregation.SECONDS_BETWEEN:
            return f"""SELECT session_no,
    (MIN_BY(EPOCH_US(event_at), event_no) - ANY_VALUE(begun_at)) / 1e6 AS {metric.name}
  FROM events JOIN (
    SELECT session_no, MIN(event_no) AS begun_no, MIN_BY(EPOCH_US(event_at), event_no) AS begun_at
    FROM events WHERE {filters_sql(metric.since)} GROUP BY session_no
  ) USING (session_no)
  WHERE {filters_sql(metric.where)} AND event_no >= begun_no GROUP BY session_no"""
        case Aggregation.CAPPED_GAP_SUM:
            return f"""SELECT session_no, SUM(gap) / 1e6 AS {metric.name}
  FROM (
    SELECT session_no, LEAST({METRIC_TABLE.engaged_gap_cap_seconds * 1_000_000}, EPOCH_US(event_at)
      - LAG(EPOCH_US(event_at), 1, EPOCH_US(event_at)) OVER in_order) AS gap
    FROM events WINDOW in_order AS (PARTITION BY session_no ORDER BY event_no)
  ) GROUP BY session_no"""
        case _:
            return ""


def _records_sql(metric: Metric) -> str:
    sources = [source for _, _, source in metric.record]
    record = ", ".join(f"'{field}': {source}" for field, _, source in metric.record)
    known = " AND ".join(f"{source} IS NOT NULL" for source in sources)
    return f"""SELECT session_no, LIST({{{record}}} ORDER BY {", ".join(sources)}) AS {metric.name}
  FROM (
    SELECT DISTINCT session_no, {", ".join(sources)}
    FROM events WHERE {filters_sql(metric.where)} AND {known}
  ) GROUP BY session_no"""
