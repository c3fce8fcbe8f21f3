"""Explore's questions as SQL text, for any column of a metric table. Pure.

Statements hold no values but days and names of columns, which are checked: they can be copied.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from service.console.person_sessions_sql import person_sessions_sql
from sessions.metric_types import Bookkeeping, is_repeated

if TYPE_CHECKING:
    from service.console.person_sessions_sql import Days, Tables
    from sessions.metric_types import Column, MetricTable

type Measure = Literal["count", "sum", "average", "median", "share", "distinct"]
type Step = Literal["day", "week", "month"]

SESSIONS: Final = "sessions"
PEOPLE: Final = "people"
NEW_OR_RETURNING: Final = "new_or_returning"
OTHER: Final = "other"
MOST_SPLITS: Final = 6
_NUMBERS: Final = {"INT64", "FLOAT64"}
_LONG: Final = ("_id", "_url", "_ids")  # columns of nearly as many values as sessions
_COUNTED: Final = {SESSIONS: "COUNT(*)", PEOPLE: "COUNT(DISTINCT value)"}
_MEASURED: Final[dict[Measure, str]] = {
    "count": "COUNTIF(value)",
    "share": "COUNTIF(value) / NULLIF(COUNT(value), 0)",
    "sum": "SUM(value)",
    "average": "AVG(value)",
    "median": "APPROX_QUANTILES(value, 2)[SAFE_OFFSET(1)]",
    "distinct": "COUNT(DISTINCT value)",
}
_TRUNCATED: Final = {"day": "DAY", "week": "WEEK(MONDAY)", "month": "MONTH"}


def measures_of(type_: str) -> tuple[Measure, ...]:
    """What can be asked of a column of this type; the first is the default."""
    if type_ == "BOOL":
        return ("share", "count")
    if type_ in _NUMBERS:
        return ("sum", "average", "median")
    return ("distinct",)


def measured(metric_table: MetricTable) -> dict[str, tuple[Measure, ...]]:
    """The columns that can be drawn over time, with what can be asked of each."""
    return {
        column.name: measures_of(column.type)
        for column in metric_table.columns
        if _is_plain(column) and column.type in {"BOOL", "STRING", *_NUMBERS}
    }


def flags(metric_table: MetricTable) -> tuple[str, ...]:
    """The columns that a funnel may be made of."""
    return tuple(
        column.name
        for column in metric_table.columns
        if _is_plain(column) and column.type == "BOOL"
    )


def splits(metric_table: MetricTable) -> tuple[str, ...]:
    """The columns of few values, which a chart may be split by."""
    return tuple(
        column.name
        for column in metric_table.columns
        if _is_plain(column)
        and (column.type == "BOOL" or (column.type == "STRING" and not _is_long(column.name)))
    )


def _is_plain(column: Column) -> bool:
    return not is_repeated(column) and not isinstance(column, Bookkeeping)


def _is_long(name: str) -> bool:
    return name.endswith(_LONG)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trend:
    """A column over time: `column` is one of `measured`, or SESSIONS or PEOPLE."""

    column: str
    measure: Measure
    step: Step
    split: str | None = None
    """One of `splits`, or NEW_OR_RETURNING; None: one line."""


def trend_sql(metric_table: MetricTable, tables: Tables, days: Days, trend: Trend) -> str:
    """A SELECT of (`period`, `split`, `value`, `sessions`), by period; splits by their sessions.

    The most frequent values of the split stand alone, the others together as OTHER.
    """
    needs_people = trend.column == PEOPLE or trend.split == NEW_OR_RETURNING
    value = "person_id" if trend.column == PEOPLE else trend.column
    columns = _read(trend)
    period = f"DATE_TRUNC(session_date, {_TRUNCATED[trend.step]})"
    if needs_people:
        head = f"{person_sessions_sql(metric_table, tables, days, columns)},\n"
        source, where = "person_sessions", ""
    else:
        head, source, where = "", tables.sessions, f"\n  WHERE {days.sql}"
    selected = "" if trend.column == SESSIONS else f", {value} AS value"
    result = f"{_value_sql(trend)} AS value, COUNT(*) AS sessions"
    if trend.split is None:
        return f"""WITH {head}rows_of_days AS (
  SELECT {period} AS period{selected}
  FROM {source}{where}
)
SELECT period, '' AS split, {result}
FROM rows_of_days
GROUP BY period
ORDER BY period"""
    return f"""WITH {head}rows_of_days AS (
  SELECT
    {period} AS period,
    {_split_sql(trend.split)} AS split{selected}
  FROM {source}{where}
),
split_values AS (
  SELECT split AS known, ROW_NUMBER() OVER (ORDER BY COUNT(*) DESC, split) AS place
  FROM rows_of_days
  GROUP BY split
),
placed_rows AS (
  SELECT r.*, IF(v.place <= {MOST_SPLITS}, r.split, '{OTHER}') AS shown,
    LEAST(v.place, {MOST_SPLITS + 1}) AS place
  FROM rows_of_days AS r
  JOIN split_values AS v ON v.known = r.split
)
SELECT period, shown AS split, {result}
FROM placed_rows
GROUP BY period, shown, place
ORDER BY period, place"""


def _read(trend: Trend) -> tuple[str, ...]:
    """The columns of `sessions` that a trend needs besides those of a person."""
    names = (trend.column, trend.split)
    others = {SESSIONS, PEOPLE, NEW_OR_RETURNING, None}
    return tuple(name for name in names if name is not None and name not in others)


def _split_sql(name: str) -> str:
    if name == NEW_OR_RETURNING:
        return (
            "CASE WHEN person_id IS NULL THEN 'nobody' WHEN is_new THEN 'new' ELSE 'returning' END"
        )
    return f"IFNULL(CAST({name} AS STRING), '(none)')"


def _value_sql(trend: Trend) -> str:
    """What is asked of the rows of a period."""
    if trend.column in _COUNTED:
        return _COUNTED[trend.column]
    return _MEASURED[trend.measure]


def funnel_sql(
    metric_table: MetricTable, tables: Tables, days: Days, steps: tuple[str, ...], *, people: bool
) -> str:
    """A SELECT of one row: `step_0` is all, `step_N` those that have the first N flags.

    Of sessions, or of people, who have a flag where any of their sessions of these days has.
    """
    reached = [
        f"COUNTIF({' AND '.join(steps[:count])}) AS step_{count}"
        for count in range(1, len(steps) + 1)
    ]
    counted = ",\n  ".join(["COUNT(*) AS step_0", *reached])
    if not people:
        return f"""SELECT
  {counted}
FROM {tables.sessions}
WHERE {days.sql}"""
    ever = ",\n    ".join(f"COUNTIF({name}) > 0 AS {name}" for name in dict.fromkeys(steps))
    return f"""WITH {person_sessions_sql(metric_table, tables, days, steps)},
people AS (
  SELECT
    person_id,
    {ever}
  FROM person_sessions
  WHERE person_id IS NOT NULL
  GROUP BY person_id
)
SELECT
  {counted}
FROM people"""


def retention_sql(metric_table: MetricTable, tables: Tables, days: Days) -> str:
    """A SELECT of (`cohort`, `week_no`, `people`): who came back how many weeks after the first.

    A cohort is the people first seen in a week, named by its Monday; only those first seen within
    the days.
    """
    return f"""WITH {person_sessions_sql(metric_table, tables, days, ())},
cohorts AS (
  SELECT person_id, MIN(session_date) AS first_date
  FROM person_sessions
  WHERE person_id IS NOT NULL
  GROUP BY person_id
  HAVING COUNTIF(is_new) > 0
)
SELECT
  DATE_TRUNC(c.first_date, WEEK(MONDAY)) AS cohort,
  DATE_DIFF(v.session_date, c.first_date, WEEK(MONDAY)) AS week_no,
  COUNT(DISTINCT v.person_id) AS people
FROM cohorts AS c
JOIN person_sessions AS v ON v.person_id = c.person_id
GROUP BY cohort, week_no
ORDER BY cohort, week_no"""
