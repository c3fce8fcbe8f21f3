"""The session aggregation as one GoogleSQL statement, built from a metric table. Pure.

The counterpart of `process_sessions.py`: the same input (`batches_sql`'s rows), the same columns.
Each aggregation of the closed vocabulary is one line of the statement, or one CTE where a list has
a grain of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, assert_never

from sessions.metric_types import Aggregation
from sessions.projection import downloaded_columns, filters_sql
from sessions.sql_layout import called, wrapped

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from sessions.metric_types import Metric, MetricTable

_KEYS = ("batch", "session_no")


def aggregate_sql(metric_table: MetricTable, batches: str) -> str:
    """A SELECT of one row per session of `batches`: its batch and number, and a column per metric.

    `batches` is a table of the rows that `projection.batches_sql` selects.
    """
    metrics, lists = metric_table.metrics, metric_table.repeated
    gap_cap = metric_table.engaged_gap_cap_seconds * 1_000_000  # µs
    preferred = _preferred_names(metrics)
    values = ",\n    ".join(
        f"{_value_sql(metric, preferred, gap_cap=gap_cap)} AS {metric.name}"
        for metric in metrics
        if metric not in lists
    )
    columns = ",\n  ".join(
        f"IFNULL({_list_cte(metric)}.{metric.name}, []) AS {metric.name}"
        if metric in lists
        else f"s.{metric.name}"
        for metric in metrics
    )
    joins = "".join(
        f"\nLEFT JOIN {name}\n  ON {_same_session(name)}" for name in map(_list_cte, lists)
    )
    ctes = "".join(f",\n{_list_sql(metric)}" for metric in lists)
    return f"""WITH events AS (
  SELECT
    {_event_columns(metric_table)}
  FROM {batches}
  WINDOW
    session_events AS (PARTITION BY batch, session_no),
    in_order AS (PARTITION BY batch, session_no ORDER BY event_no)
),
session_values AS (
  SELECT
    batch, session_no,
    {values}
  FROM events
  GROUP BY batch, session_no
){ctes}
SELECT
  s.batch, s.session_no,
  {columns}
FROM session_values AS s{joins}"""


def _event_columns(metric_table: MetricTable) -> str:
    """What is read of each event, and what follows from its place among the others."""
    lines = [wrapped(["batch", *downloaded_columns(metric_table)], indent=4)]
    lines += [
        f"COUNTIF({prefer}) OVER session_events = 0 OR {prefer} AS {name}"
        for prefer, name in _preferred_names(metric_table.metrics).items()
    ]
    lines += [
        f"MIN(IF({filters_sql(metric.since)}, event_no, NULL)) OVER session_events"
        f" AS {_started_no(metric)}"
        for metric in metric_table.metrics
        if metric.aggregation is Aggregation.SECONDS_BETWEEN
    ]
    gap = "TIMESTAMP_DIFF(event_at, LAG(event_at) OVER in_order, MICROSECOND)"
    return ",\n    ".join([*lines, f"{gap} AS gap_microseconds"])


def _preferred_names(metrics: Iterable[Metric]) -> dict[str, str]:
    """Each condition that events are preferred by, and the column that says which of them count."""
    conditions = dict.fromkeys(filters_sql(each.prefer) for each in metrics if each.prefer)
    return {
        condition: f"is_preferred{number if number > 1 else ''}"
        for number, condition in enumerate(conditions, start=1)
    }


def _started_no(metric: Metric) -> str:
    return f"{metric.name}_started_no"


def _value_sql(  # noqa: C901, PLR0911 - one case for each aggregation
    metric: Metric, preferred: Mapping[str, str], *, gap_cap: int
) -> str:
    """The metric over the events of one session, as an aggregate expression."""
    match metric.aggregation:
        case Aggregation.COUNT:
            return f"COUNTIF({filters_sql(metric.where)})" if metric.where else "COUNT(*)"
        case Aggregation.ANY:
            return f"COUNTIF({filters_sql(metric.where)}) > 0"
        case Aggregation.SUM:
            return f"SUM({_counting_sql(metric)})"
        case Aggregation.MIN:
            return f"MIN({_counting_sql(metric)})"
        case Aggregation.MAX:
            return f"MAX({_counting_sql(metric)})"
        case Aggregation.DISTINCT_COUNT:
            return f"COUNT(DISTINCT {_counting_sql(metric)})"
        case Aggregation.FIRST:
            return _picked_sql(metric, preferred, "MIN")
        case Aggregation.LAST:
            return _picked_sql(metric, preferred, "MAX")
        case Aggregation.SECONDS_BETWEEN:
            return _seconds_between_sql(metric)
        case Aggregation.CAPPED_GAP_SUM:
            return f"SUM(IFNULL(LEAST(gap_microseconds, {gap_cap}), 0)) / 1e6"
        case Aggregation.DISTINCT_LIST | Aggregation.DISTINCT_RECORDS | Aggregation.COUNTS_BY_VALUE:
            message = f"Metric {metric.name} is a list: it has a CTE of its own."
            raise ValueError(message)
        case _:
            assert_never(metric.aggregation)


def _counting_sql(metric: Metric) -> str:
    """The metric's value on the events that count, null on the others."""
    if not metric.where:
        return str(metric.value)
    return f"IF({filters_sql(metric.where)}, {metric.value}, NULL)"


def _picked_sql(metric: Metric, preferred: Mapping[str, str], best: Literal["MIN", "MAX"]) -> str:
    """The first or last known value: of the preferred events, where there are any."""
    counts = [filters_sql(metric.where)] if metric.where else []
    counts += [preferred[filters_sql(metric.prefer)]] if metric.prefer else []
    return pick_sql(str(metric.value), best, by="event_no", among=counts)


def pick_sql(value: str, best: Literal["MIN", "MAX"], *, by: str, among: Sequence[str] = ()) -> str:
    """The value, not null, that stands first or last in the order of `by`, of those rows `among`.

    ARRAY_AGG(… IGNORE NULLS ORDER BY … LIMIT 1) would say the same and gather a list for it.
    """
    # Where no row is known, BigQuery may take any: so those that don't count have no value.
    counted = f"IF({' AND '.join(among)}, {value}, NULL)" if among else value
    known = " AND ".join([*among, f"{value} IS NOT NULL"])
    return f"ANY_VALUE({counted} HAVING {best} IF({known}, {by}, NULL))"


def _seconds_between_sql(metric: Metric) -> str:
    """From the first start to the first stop that is not before it in the order of events."""
    stop = f"{filters_sql(metric.where)} AND event_no >= {_started_no(metric)}"
    times = [f"MIN(IF({each}, event_at, NULL))" for each in (stop, filters_sql(metric.since))]
    return f"{called('TIMESTAMP_DIFF', [*times, 'MICROSECOND'], indent=4)} / 1e6"


def _list_cte(metric: Metric) -> str:
    return f"session_{metric.name}"


def _same_session(other: str) -> str:
    return " AND ".join(f"{other}.{key} = s.{key}" for key in _KEYS)


def _list_sql(metric: Metric) -> str:
    """Two CTEs: the distinct values of each session, and the list that they make."""
    sources = [metric.value] if metric.value else [source for *_, source in metric.record]
    where = "\n    AND ".join(
        [f"{source} IS NOT NULL" for source in sources]
        + ([filters_sql(metric.where)] if metric.where else [])
    )
    values, element, order = _list_parts(metric)
    return f"""{_list_cte(metric)}_values AS (
  SELECT batch, session_no, {values}
  FROM events
  WHERE {where}
  GROUP BY batch, session_no, {", ".join(map(str, sources))}
),
{_list_cte(metric)} AS (
  SELECT
    batch, session_no,
    ARRAY_AGG({element} ORDER BY {order}) AS {metric.name}
  FROM {_list_cte(metric)}_values
  GROUP BY batch, session_no
)"""


def _list_parts(metric: Metric) -> tuple[str, str, str]:
    """The distinct values of a session, an element of the list made of them, and its order."""
    names = [name for name, *_ in metric.record]
    if metric.aggregation is Aggregation.DISTINCT_LIST:
        return f"{metric.value} AS value, MAX(event_no) AS last_no", "value", "last_no"
    if metric.aggregation is Aggregation.COUNTS_BY_VALUE:
        value, count = names
        element = f"STRUCT(value AS {value}, value_count AS {count})"
        return f"{metric.value} AS value, COUNT(*) AS value_count", element, "value"
    values = ", ".join(f"{source} AS {name}" for name, _, source in metric.record)
    element = ", ".join(f"{name} AS {name}" for name in names)
    return values, f"STRUCT({element})", ", ".join(names)
