"""Sessions to persons, identities and daily activity, as SQL text from a metric table. Pure.

All three are functions of `sessions`, `ties` and Firebase alone, rebuilt whole.
"""

from __future__ import annotations

from textwrap import indent
from typing import TYPE_CHECKING, assert_never

from sessions.bigquery_engine import pick_sql
from sessions.enrichment import id_users_sql
from sessions.ids import is_junk_sql
from sessions.metric_types import RollUp
from sessions.persons import (
    RETENTION_DAYS,
    daily,
    daily_activity_schema,
    persons_schema,
    rolled_up,
)
from sessions.sql_layout import wrapped

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sessions.metric_types import MetricTable
    from sessions.persons import RolledUp


def identities_sql(metric_table: MetricTable, *, ties: str, user_keys: str) -> str:
    """A SELECT of (`anonymous_id`, `user_id`, `_run_id`): ids that are one user's alone.

    An id is anonymous if it matches no user itself. It belongs to each user that an id tied to it
    matches. @run_id.
    """
    return f"""WITH known_ties AS (
  SELECT DISTINCT distinct_id, tied_id
  FROM {ties}
  WHERE NOT {is_junk_sql(metric_table.junk_ids, "distinct_id")}
    AND NOT {is_junk_sql(metric_table.junk_ids, "tied_id")}
),
pairs AS (
  SELECT tied_id AS anonymous_id, distinct_id FROM known_ties
  UNION DISTINCT
  SELECT distinct_id, tied_id FROM known_ties
),
session_ids AS (
  SELECT anonymous_id AS distinct_id FROM pairs
  UNION DISTINCT
  SELECT distinct_id FROM pairs
),
{id_users_sql(metric_table, user_keys)}
SELECT p.anonymous_id, MIN(u.user_id) AS user_id, @run_id AS _run_id
FROM pairs AS p
JOIN id_users AS a ON a.distinct_id = p.anonymous_id
JOIN id_users AS u ON u.distinct_id = p.distinct_id
WHERE a.user_id IS NULL AND u.user_id IS NOT NULL
GROUP BY p.anonymous_id
HAVING COUNT(DISTINCT u.user_id) = 1"""


def persons_sql(
    metric_table: MetricTable,
    *,
    sessions: str,
    identities: str,
    user_keys: str,
    documents: str,
    churn_days: int,
) -> str:
    """A SELECT of finished `persons` rows; @now, @today (the UTC day of the run's start), @run_id.

    Sessions with neither a user nor a usable distinct id belong to no person.
    """
    columns = rolled_up(metric_table)
    values = ",\n    ".join(f"{_roll_up_sql(each)} AS {each.name}" for each in columns)
    returned = ",\n    ".join(
        f"COUNTIF(day_no = {number}) > 0 AS has_day_{number}" for number in RETENTION_DAYS
    )
    return f"""WITH {_session_persons_sql(metric_table, sessions, identities)},
person_sessions AS (
  SELECT
    user_id, person_id, session_date, started_at, ended_at,
    {wrapped(_names(columns), indent=4)},
    ROW_NUMBER() OVER (PARTITION BY user_id, person_id ORDER BY started_at, session_id)
      AS session_no,
    DATE_DIFF(session_date, MIN(session_date) OVER (PARTITION BY user_id, person_id), DAY)
      AS day_no
  FROM session_persons
),
persons AS (
  SELECT
    user_id, person_id,
    MIN(started_at) AS first_seen_at,
    MAX(ended_at) AS last_seen_at,
    COUNT(*) AS session_count,
    COUNT(DISTINCT session_date) AS active_days,
    DATE_DIFF(@today, MIN(session_date), DAY) AS age_days,
    GREATEST(0, DATE_DIFF(@today, DATE(MAX(ended_at)), DAY)) AS days_since_last_seen,
    {returned},
    {values}
  FROM person_sessions
  GROUP BY user_id, person_id
),
user_days AS (
  SELECT
    user_id, DATE(created_at) AS day,
    COUNTIF(NOT is_checkin) AS events_created, COUNTIF(is_checkin) AS checkins_created
  FROM {documents}
  WHERE document_id IS NOT NULL
  GROUP BY user_id, day
),
user_creations AS (
  SELECT
    user_id, SUM(events_created) AS events_created, SUM(checkins_created) AS checkins_created,
    ARRAY_AGG(STRUCT(
      day AS day, events_created AS events_created, checkins_created AS checkins_created
    ) ORDER BY day) AS creation_days
  FROM user_days
  GROUP BY user_id
)
SELECT
  {_person_columns(metric_table, churn_days)}
FROM persons AS p
LEFT JOIN user_creations AS c ON c.user_id = p.user_id
LEFT JOIN {user_keys} AS u ON u.user_match = 'uid' AND u.key = p.user_id"""


def daily_activity_sql(
    metric_table: MetricTable, *, sessions: str, identities: str, persons: str
) -> str:
    """A SELECT of one row per person and UTC day: what the view `daily_activity` shows."""
    keys = ("activity_date", "person_id", "user_id")
    columns = ",\n  ".join(
        field.name if field.name in keys else f"SUM({field.name}) AS {field.name}"
        for field in daily_activity_schema(metric_table).fields
    )
    summed = daily(metric_table)
    zeros = ["0" if each.column.type == "INT64" else "NULL" for each in summed]
    return f"""WITH {_session_persons_sql(metric_table, sessions, identities)},
activities AS (
  SELECT
    session_date AS activity_date, person_id, user_id, 1 AS session_count,
    {wrapped(_names(summed), indent=4)},
    0 AS events_created, 0 AS checkins_created
  FROM session_persons
  UNION ALL
  SELECT
    c.day, p.person_id, p.user_id, 0,
    {wrapped(zeros, indent=4)},
    c.events_created, c.checkins_created
  FROM {persons} AS p, UNNEST(p.creation_days) AS c
)
SELECT
  {columns}
FROM activities
GROUP BY {", ".join(keys)}"""


def derived_counts_sql(
    *, sessions: str, identities: str, persons: str, watched_days: str | None = None
) -> str:
    """A SELECT of one row: `persons`, `identities`, and the sessions without a person.

    Besides `sessions_of_persons` and, among them, `sessions_of_users`.

    `watched_days`, a SELECT of days and figures, adds them as an array.
    """
    days = (
        f"\n  ARRAY(\n{indent(watched_days, '    ')}\n  ) AS watched_days," if watched_days else ""
    )
    return f"""SELECT{days}
  (SELECT COUNT(*) FROM {persons}) AS persons,
  (SELECT COUNT(*) FROM {identities}) AS identities,
  COUNT(*) - (SELECT IFNULL(SUM(session_count), 0) FROM {persons}) AS sessions_without_person,
  (SELECT IFNULL(SUM(session_count), 0) FROM {persons}) AS sessions_of_persons,
  (SELECT IFNULL(SUM(IF(user_id IS NULL, 0, session_count)), 0) FROM {persons}) AS sessions_of_users
FROM {sessions}"""


def tied_sessions_sql(metric_table: MetricTable, *, sessions: str, identities: str) -> str:
    """A CTE `tied_sessions`: the person of each session without a user, by distinct id.

    The user of the last used distinct id that `identities` ties to a user, and the last used
    distinct id that is not junk.
    """
    return f"""tied_sessions AS (
  SELECT
    s.session_id,
    {pick_sql("i.user_id", "MAX", by="use_no")} AS user_id,
    {pick_sql("used_id", "MAX", by="use_no")} AS distinct_id
  FROM {sessions} AS s, UNNEST(s.distinct_ids) AS used_id WITH OFFSET AS use_no
  LEFT JOIN {identities} AS i ON i.anonymous_id = used_id
  WHERE s.user_id IS NULL
    AND NOT {is_junk_sql(metric_table.junk_ids, "used_id")}
  GROUP BY s.session_id
)"""


def _session_persons_sql(metric_table: MetricTable, sessions: str, identities: str) -> str:
    """CTEs that end in `session_persons`: each session with its person.

    The session's own user, else that of `tied_sessions`, else only its distinct id.
    """
    columns = wrapped((f"s.{name}" for name in _names(rolled_up(metric_table))), indent=4)
    return f"""{tied_sessions_sql(metric_table, sessions=sessions, identities=identities)},
session_persons AS (
  SELECT
    COALESCE(s.user_id, t.user_id) AS user_id,
    COALESCE(s.user_id, t.user_id, t.distinct_id) AS person_id,
    s.session_id, s.session_date, s.started_at, s.ended_at,
    {columns}
  FROM {sessions} AS s
  LEFT JOIN tied_sessions AS t ON t.session_id = s.session_id
  WHERE COALESCE(s.user_id, t.user_id, t.distinct_id) IS NOT NULL
)"""


def _names(columns: Iterable[RolledUp]) -> list[str]:
    return list(dict.fromkeys(each.column.name for each in columns))


def _roll_up_sql(each: RolledUp) -> str:
    """One column of all of a person's sessions as an aggregate expression."""
    name = each.column.name
    match each.rule:
        case RollUp.SUM:
            return f"SUM({name})"
        case RollUp.EVER:
            return f"COUNTIF({name}) > 0"
        case RollUp.MAX:
            return f"MAX({name})"
        case RollUp.FIRST:
            return pick_sql(name, "MIN", by="session_no")
        case RollUp.LAST:
            return pick_sql(name, "MAX", by="session_no")
        case RollUp.NONE | RollUp.FIRST_AND_LAST:
            message = f"{each.name} has the rule {each.rule}, which is not of one column."
            raise ValueError(message)
        case _:
            assert_never(each.rule)


def _person_columns(metric_table: MetricTable, churn_days: int) -> str:
    """The columns of `persons`, in their order."""
    written = {
        "user_signed_up_at": "u.signed_up_at",
        "is_churned": f"p.days_since_last_seen >= {churn_days}",
        "events_created": "IFNULL(c.events_created, 0)",
        "checkins_created": "IFNULL(c.checkins_created, 0)",
        "created_event": "IFNULL(c.events_created, 0) > 0",
        "creation_days": "IFNULL(c.creation_days, [])",
        "_loaded_at": "@now",
        "_run_id": "@run_id",
    }
    for number in RETENTION_DAYS:
        returned = f"p.has_day_{number}"
        written[f"returned_day_{number}"] = (
            f"IF({returned} OR p.age_days > {number}, {returned}, NULL)"
        )
    names = [field.name for field in persons_schema(metric_table).fields]
    return ",\n  ".join(
        f"{written[name]} AS {name}" if name in written else f"p.{name}" for name in names
    )
