"""Lists of sessions, one session's row, one person and their ids, as SQL text. Pure.

What people type travels as parameters; days and names of columns stand in the text.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sessions.sql_layout import wrapped

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import date

    from service.console.person_sessions_sql import Days, Tables

LISTED: Final = (
    "session_id",
    "started_at",
    "duration_seconds",
    "engaged_seconds",
    "event_count",
    "user_id",
    "distinct_id",
    "lib",
    "country",
    "entry_screen",
    "entry_url",
)
PAGE: Final = 50


def list_sql(
    tables: Tables, days: Days, *, columns: Sequence[str], flags: Sequence[str], by_id: bool
) -> str:
    """A SELECT of sessions, the latest start first; those after the one of @until and @after.

    Where @until, the start of that one, is null: from the first.

    `flags` must all hold. `by_id`: only those of the user, distinct id or session @id.
    """
    is_later = "started_at < @until OR (started_at = @until AND session_id > @after)"
    conditions = [days.sql, f"(@until IS NULL OR {is_later})", *flags]
    if by_id:
        conditions.append("(user_id = @id OR session_id = @id OR @id IN UNNEST(distinct_ids))")
    where = "\n  AND ".join(conditions)
    return f"""SELECT
  {wrapped(columns, indent=2)}
FROM {tables.sessions}
WHERE {where}
ORDER BY started_at DESC, session_id
LIMIT {PAGE}"""


def session_day_sql(tables: Tables) -> str:
    """A SELECT of the day of the session @session_id: of two columns, since no day prunes it."""
    return f"SELECT session_date\nFROM {tables.sessions}\nWHERE session_id = @session_id"


def session_sql(tables: Tables, day: date) -> str:
    """A SELECT of everything stored of the session @session_id, which is of this day."""
    return f"""SELECT *
FROM {tables.sessions}
WHERE session_date = DATE '{day}'
  AND session_id = @session_id"""


def person_sql(tables: Tables) -> str:
    """A SELECT of everything stored of the person @id, or whose anonymous id it is; users first."""
    return f"""SELECT *
FROM {tables.persons}
WHERE person_id = @id
  OR person_id IN (SELECT user_id FROM {tables.identities} WHERE anonymous_id = @id)
ORDER BY user_id IS NULL
LIMIT 1"""


def _owned_sql(tables: Tables, days: Days) -> str:
    """The condition of the sessions that used an id of the person @id."""
    return f"""{days.sql}
  AND (user_id = @id OR user_id IS NULL AND EXISTS (
    SELECT any_id
    FROM UNNEST(distinct_ids) AS any_id
    WHERE any_id = @id
      OR any_id IN (SELECT anonymous_id FROM {tables.identities} WHERE user_id = @id)
  ))"""


def person_sessions_sql(tables: Tables, days: Days, columns: Sequence[str]) -> str:
    """A SELECT of the sessions that used an id of the person @id, the latest start first."""
    return f"""SELECT
  {wrapped(columns, indent=2)}
FROM {tables.sessions}
WHERE {_owned_sql(tables, days)}
ORDER BY started_at DESC, session_id
LIMIT {PAGE}"""


def ids_sql(tables: Tables, days: Days) -> str:
    """A SELECT of the distinct ids of those sessions, the last one used first.

    `user_match` is how an id matched by itself; null where others stood beside it in each session.
    """
    return f"""SELECT
  used_id AS id, COUNT(*) AS session_count, MAX(started_at) AS last_used_at,
  MAX(IF(ARRAY_LENGTH(distinct_ids) = 1, user_match, NULL)) AS user_match
FROM {tables.sessions}, UNNEST(distinct_ids) AS used_id
WHERE {_owned_sql(tables, days)}
GROUP BY used_id
ORDER BY last_used_at DESC, id
LIMIT {PAGE}"""


def ties_sql(tables: Tables, days: Days, *, is_user: bool) -> str:
    """A SELECT of what ties the anonymous ids of the user @id, or the id @id itself, to which ids.

    With the first day of it, and the session of the first $identify event that did; null where it
    was an alias, a merge, or an event without a session.
    """
    own = f"SELECT anonymous_id FROM {tables.identities} WHERE user_id = @id"
    return f"""WITH own AS (
  {own if is_user else "SELECT @id AS anonymous_id"}
),
pairs AS (
  SELECT tied_id AS id, distinct_id AS other_id, distinct_id, tied_id, day FROM {tables.ties}
  UNION ALL
  SELECT distinct_id, tied_id, distinct_id, tied_id, day FROM {tables.ties}
),
known AS (
  SELECT id, other_id, distinct_id, tied_id, MIN(day) AS first_day
  FROM pairs
  WHERE id IN (SELECT anonymous_id FROM own)
  GROUP BY id, other_id, distinct_id, tied_id
),
signs AS (
  SELECT i.anonymous_id, i.distinct_id, s.session_id, s.started_at
  FROM {tables.sessions} AS s, UNNEST(s.identified) AS i
  WHERE {days.sql}
    AND i.anonymous_id IN (SELECT tied_id FROM known)
  QUALIFY ROW_NUMBER() OVER (
    PARTITION BY i.anonymous_id, i.distinct_id ORDER BY s.started_at, s.session_id
  ) = 1
)
SELECT k.id, k.other_id, k.first_day, g.session_id, g.started_at
FROM known AS k
LEFT JOIN signs AS g ON g.anonymous_id = k.tied_id AND g.distinct_id = k.distinct_id
ORDER BY k.first_day, k.id, k.other_id
LIMIT {PAGE}"""
