"""Lists of sessions, one session's row, one person and their ids, as SQL text. Pure.

What people type travels as parameters; days and names of columns stand in the text.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sessions.layout import wrapped

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import date

    from service.console.visits_sql import Days, Tables

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
    """A SELECT of everything stored of the person @id, users first."""
    return f"""SELECT *
FROM {tables.persons}
WHERE person_id = @id
ORDER BY user_id IS NULL
LIMIT 1"""


def person_sessions_sql(tables: Tables, days: Days, columns: Sequence[str]) -> str:
    """A SELECT of the sessions that used an id of the person @id, the latest start first."""
    return f"""SELECT
  {wrapped(columns, indent=2)}
FROM {tables.sessions}
WHERE {days.sql}
  AND (user_id = @id OR user_id IS NULL AND EXISTS (
    SELECT used_id
    FROM UNNEST(distinct_ids) AS used_id
    WHERE used_id = @id
      OR used_id IN (SELECT anonymous_id FROM {tables.identities} WHERE user_id = @id)
  ))
ORDER BY started_at DESC, session_id
LIMIT {PAGE}"""


def ids_sql(tables: Tables, days: Days) -> str:
    """A SELECT of the ids tied to the user @id: by which distinct id, in which session first."""
    return f"""SELECT
  i.anonymous_id, i.distinct_id, s.session_id, s.started_at
FROM {tables.sessions} AS s, UNNEST(s.identified) AS i
WHERE {days.sql}
  AND i.anonymous_id IN (SELECT anonymous_id FROM {tables.identities} WHERE user_id = @id)
QUALIFY ROW_NUMBER() OVER (
  PARTITION BY i.anonymous_id ORDER BY s.started_at, s.session_id, i.distinct_id
) = 1
ORDER BY s.started_at, i.anonymous_id"""
