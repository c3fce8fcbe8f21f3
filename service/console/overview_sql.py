"""The overview's questions as SQL text: days, weeks, and where sessions began. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from service.console.person_sessions_sql import person_sessions_sql

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from service.console.person_sessions_sql import Days, Tables
    from sessions.metric_types import MetricTable

SHARES: Final = ("created_event", "joined_event", "completed_quiz", "is_bounce")
"""The flags whose share the overview shows, those of them that the metric table has."""
TOPS: Final = ("entry_screen", "channel_type", "country", "lib")
_MOST_VALUES: Final = 6


def has(metric_table: MetricTable, names: Iterable[str]) -> tuple[str, ...]:
    """Those of the names that are columns of the table."""
    known = {column.name for column in metric_table.columns}
    return tuple(name for name in names if name in known)


def daily_sql(metric_table: MetricTable, tables: Tables, days: Days) -> str:
    """A SELECT of one row per UTC day with sessions: how many, how long, and each share."""
    shares = "".join(
        f",\n  COUNTIF({name}) / NULLIF(COUNT({name}), 0) AS {name}"
        for name in has(metric_table, SHARES)
    )
    return f"""SELECT
  session_date AS day,
  COUNT(*) AS sessions,
  AVG(engaged_seconds) AS engaged_seconds{shares}
FROM {tables.sessions}
WHERE {days.sql}
GROUP BY day
ORDER BY day"""


def people_sql(metric_table: MetricTable, tables: Tables, days: Days) -> str:
    """A SELECT of one row per UTC day: the people that were there, and the new ones among them."""
    return f"""WITH {person_sessions_sql(metric_table, tables, days, ())}
SELECT
  session_date AS day,
  COUNT(DISTINCT person_id) AS people,
  COUNT(DISTINCT IF(is_new, person_id, NULL)) AS new_people
FROM person_sessions
GROUP BY day
ORDER BY day"""


def weeks_sql(metric_table: MetricTable, tables: Tables, days: Days) -> str:
    """A SELECT of one row per 7 days, number 0 those that end with the last day.

    The days must be whole weeks.
    """
    names = has(metric_table, SHARES)
    shares = "".join(f",\n  COUNTIF({name}) / NULLIF(COUNT({name}), 0) AS {name}" for name in names)
    person_sessions = person_sessions_sql(metric_table, tables, days, ("engaged_seconds", *names))
    return f"""WITH {person_sessions}
SELECT
  DIV(DATE_DIFF(DATE '{days.last}', session_date, DAY), 7) AS week_no,
  COUNT(*) AS sessions,
  COUNT(DISTINCT person_id) AS people,
  AVG(engaged_seconds) AS engaged_seconds{shares}
FROM person_sessions
GROUP BY week_no
ORDER BY week_no"""


def tops_sql(tables: Tables, days: Days, columns: Sequence[str]) -> str:
    """A SELECT of the most frequent values of each column, with their sessions; null is none."""
    counted = "\nUNION ALL\n".join(
        f"""(SELECT '{name}' AS name, IFNULL({name}, '') AS value, COUNT(*) AS sessions
FROM {tables.sessions}
WHERE {days.sql}
GROUP BY value
ORDER BY sessions DESC, value
LIMIT {_MOST_VALUES})"""
        for name in columns
    )
    return f"""SELECT name, value, sessions
FROM (
{counted}
)
ORDER BY name, sessions DESC, value"""
