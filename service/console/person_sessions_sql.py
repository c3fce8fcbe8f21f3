"""The sessions of a range of days, each with the person whose it is, as SQL text. Pure.

Days are literals, so that BigQuery prunes partitions and a statement can be copied as it stands.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from process_persons import tied_sessions_sql
from sessions.sql_layout import wrapped

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import date

    from sessions.metric_types import MetricTable

PERSON_COLUMNS = ("session_id", "session_date", "user_id", "distinct_ids")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tables:
    """The published tables, as they stand in SQL."""

    sessions: str
    persons: str
    identities: str
    ties: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Days:
    """A range of UTC days, both inclusive."""

    first: date
    last: date

    @property
    def count(self) -> int:
        """How many days they are."""
        return (self.last - self.first).days + 1

    @property
    def sql(self) -> str:
        """The condition on the partition column."""
        return f"session_date BETWEEN DATE '{self.first}' AND DATE '{self.last}'"


def person_sessions_sql(
    metric_table: MetricTable, tables: Tables, days: Days, columns: Iterable[str]
) -> str:
    """CTEs that end in `person_sessions`: these columns of each session, `person_id` and `is_new`.

    A person is who `persons` says. `person_id` is null for sessions that are nobody's, `is_new`
    whether the session is of the day on which its person was first seen.
    """
    names = dict.fromkeys((*PERSON_COLUMNS, *columns))
    carried = wrapped((f"s.{name}" for name in names if name != "distinct_ids"), indent=4)
    tied = tied_sessions_sql(metric_table, sessions="chosen", identities=tables.identities)
    return f"""chosen AS (
  SELECT
    {wrapped(names, indent=4)}
  FROM {tables.sessions}
  WHERE {days.sql}
),
{tied},
owned AS (
  SELECT
    {carried},
    COALESCE(s.user_id, t.user_id) AS owner_id,
    COALESCE(s.user_id, t.user_id, t.distinct_id) AS person_id
  FROM chosen AS s
  LEFT JOIN tied_sessions AS t ON t.session_id = s.session_id
),
person_sessions AS (
  SELECT o.*, DATE(p.first_seen_at) = o.session_date AS is_new
  FROM owned AS o
  LEFT JOIN {tables.persons} AS p
    ON p.person_id = o.person_id AND IFNULL(p.user_id, '') = IFNULL(o.owner_id, '')
)"""
