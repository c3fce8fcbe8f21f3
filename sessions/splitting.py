"""Ids that live too long to be one session's, and the pieces that they are split into. SQL. Pure.

Old SDKs and hard-coded ids put many people and weeks under one id. So that nobody is lost, a
session is then what one distinct id did under it on one UTC day. A piece needs no other day's rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from sessions.metric_types import MetricTable

PIECE_SQL: Final = (
    "CONCAT(session_id, '/', CAST(DATE(event_at) AS STRING), '/', IFNULL(distinct_id, ''))"
)
"""The id of the piece that a valid row belongs to."""

PIECE_LIKE_SQL: Final = "REGEXP_CONTAINS(session_id, r'/[0-9]{4}-[0-9]{2}-[0-9]{2}/')"
"""Whether an id is spelled like a piece. Anybody can send such a session id.

It is always split, so that no session of it has the id of another id's piece.
"""


def split_sql(metric_table: MetricTable, *, projected: str, touched: str) -> str:
    """A SELECT of the touched ids that must be split: a row of `split_schema` each.

    All valid rows of a touched id must have been projected. Later rows can't make it short again.
    """
    longest = metric_table.longest_session_seconds * 1_000_000  # µs
    return f"""SELECT
  session_id, MIN(event_at) AS first_at, MAX(event_at) AS last_at, COUNT(*) AS row_count
FROM {projected}
WHERE reason IS NULL AND NOT is_split AND session_id IN (SELECT session_id FROM {touched})
GROUP BY session_id
HAVING TIMESTAMP_DIFF(MAX(event_at), MIN(event_at), MICROSECOND) > {longest}
  OR COUNT(*) > {metric_table.most_session_rows}"""


def count_sql(split: str) -> str:
    """A SELECT of `split`: how many there are."""
    return f"SELECT COUNT(*) AS split FROM {split}"


def pieces_sql(*, projected: str, touched: str, split: str, is_full_load: bool) -> str:
    """A script that gives their rows the ids of pieces, and makes the pieces touched.

    The id itself stays touched, so that its stored row is deleted; in a full load there is none.
    """
    is_one = f"session_id IN (SELECT session_id FROM {split})"
    statements = [
        f"""INSERT INTO {touched} (session_id)
SELECT {PIECE_SQL}
FROM {projected}
WHERE reason IS NULL AND {is_one}
EXCEPT DISTINCT
SELECT session_id FROM {touched}""",
        f"""UPDATE {projected}
SET session_id = {PIECE_SQL}, is_split = TRUE
WHERE reason IS NULL AND {is_one}""",
    ]
    if is_full_load:
        statements.insert(0, f"DELETE FROM {touched}\nWHERE {is_one}")
    return ";\n".join(statements) + ";"


def left_out_sql(*, touched: str, split: str) -> str:
    """A script that leaves these ids to a later run, which reads all their days."""
    is_one = f"session_id IN (SELECT session_id FROM {split})"
    return f"DELETE FROM {touched}\nWHERE {is_one};\nDELETE FROM {split}\nWHERE TRUE;"
