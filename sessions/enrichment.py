"""Who a session's user is, what they created, and its channel: as SQL text, for both engines. Pure.

These columns depend only on a finished row (`distinct_ids`, start, end) and three small tables;
derived ones, on the row. One definition serves new rows of either engine and stored
rows whose user, document or channel has changed since.
"""

from __future__ import annotations

from textwrap import indent
from typing import TYPE_CHECKING

from sessions.freshness import newest_loaded_sql
from sessions.ids import (
    is_junk_sql,
    is_phone_sql,
    phone_digits_sql,
    phone_key_sql,
    referred_sql,
    session_id_sql,
    trimmed_sql,
)
from sessions.projection import among_sql
from sessions.sql_layout import wrapped

if TYPE_CHECKING:
    from sessions.metric_types import MetricTable
    from sessions.sources import Source


# Programs without a creation time leave 0, or another time before it.
_FIRST_CREATION_AT = "TIMESTAMP '1971-01-01 00:00:00+00'"


def _timed_rows_sql(columns: str) -> str:
    """The CTE `timed_rows`: `source_rows` with their creation times, or what is wrong with them.

    `is_time_unread`: there is a value, and it can't be read as a time.
    """
    return f"""timed_rows AS (
  SELECT
    {columns}, loaded_at,
    IF(created_at >= {_FIRST_CREATION_AT}, created_at, NULL) AS created_at,
    has_created_at AND created_at IS NULL AS is_time_unread
  FROM source_rows
)"""


def user_keys_sql(metric_table: MetricTable, users: Source) -> str:
    """A SELECT of what a distinct id can match: (`user_match`, `key`, `user_id`, `signed_up_at`).

    Also `is_time_unread`: whether the user's creation time can't be read. At most one user per
    key: among a user's repeated rows the latest load wins, then the latest creation, then the
    greatest hash; among users with one phone or e-mail the latest created (null first), then
    the greatest id. Phones and e-mails are returned only as SHA-256.
    """
    return f"""WITH source_rows AS (
  SELECT
    {trimmed_sql(users.column("user_id"))} AS user_id,
    IFNULL({trimmed_sql(users.column("phone"))}, '') AS phone,
    IFNULL({trimmed_sql(users.column("email"))}, '') AS email,
    {users.time_column("created_at")} AS created_at,
    {users.column("has_created_at", "FALSE")} AS has_created_at,
    {users.time_column("loaded_at")} AS loaded_at
  FROM {users.rows_sql}
),
{_timed_rows_sql("user_id, phone, email")},
copies AS (
  SELECT
    user_id, created_at AS signed_up_at, is_time_unread,
    {phone_digits_sql("phone")} AS phone_digits,
    TO_HEX(SHA256(LOWER(NULLIF(email, '')))) AS email_key,
    ROW_NUMBER() OVER (
      PARTITION BY user_id
      ORDER BY loaded_at DESC, created_at DESC, TO_HEX(MD5(CONCAT(
        user_id, '|', phone, '|', email, '|', IFNULL(CAST(UNIX_MICROS(created_at) AS STRING), '')
      ))) DESC
    ) AS copy_no
  FROM timed_rows
  WHERE user_id IS NOT NULL
),
users AS (
  SELECT
    user_id, signed_up_at, is_time_unread, email_key,
    {phone_key_sql("phone_digits", least=metric_table.phone_digits)} AS phone_key
  FROM copies
  WHERE copy_no = 1
),
user_keys AS (
  SELECT 'uid' AS user_match, user_id AS key, user_id, signed_up_at, is_time_unread
  FROM users
  UNION ALL
  SELECT 'phone', phone_key, user_id, signed_up_at, FALSE FROM users WHERE phone_key IS NOT NULL
  UNION ALL
  SELECT 'email', email_key, user_id, signed_up_at, FALSE FROM users WHERE email_key IS NOT NULL
),
ranked AS (
  SELECT
    user_match, key, user_id, signed_up_at, is_time_unread,
    ROW_NUMBER() OVER (
      PARTITION BY user_match, key ORDER BY signed_up_at DESC, user_id DESC
    ) AS choice_no
  FROM user_keys
)
SELECT user_match, key, user_id, signed_up_at, is_time_unread FROM ranked WHERE choice_no = 1"""


def documents_sql(metric_table: MetricTable, documents: Source) -> str:
    """A SELECT of the Firebase events that count: one row per document.

    (`document_id`, `user_id`, `created_at`, `is_checkin`, `is_ignored`, `is_time_unread`); ignored
    ones, and rows without id, creator or creation time, have `document_id` null, so that they are
    counted and never joined.
    """
    creation = metric_table.creation
    return f"""WITH source_rows AS (
  SELECT
    {trimmed_sql(documents.column("document_id"))} AS document_id,
    {documents.column("creator")} AS creator,
    {documents.column("created_at")} AS created_at,
    {documents.column("has_created_at", "FALSE")} AS has_created_at,
    {documents.column("type")} AS type,
    {documents.time_column("loaded_at")} AS loaded_at
  FROM {documents.rows_sql}
),
{_timed_rows_sql("document_id, creator, type")},
copies AS (
  SELECT
    document_id, created_at, is_time_unread,
    {_is_of_sql(creation.checkins)} AS is_checkin,
    {_is_of_sql(creation.ignored)} AS is_ignored,
    {referred_sql("creator")} AS user_id,
    ROW_NUMBER() OVER (
      PARTITION BY document_id
      ORDER BY loaded_at DESC, created_at DESC, TO_HEX(MD5(CONCAT(
        IFNULL(document_id, ''), '|', IFNULL(creator, ''), '|',
        IFNULL(CAST(UNIX_MICROS(created_at) AS STRING), ''), '|', IFNULL(type, '')
      ))) DESC
    ) AS copy_no
  FROM timed_rows
)
SELECT
  IF(user_id IS NULL OR created_at IS NULL OR is_ignored, NULL, document_id) AS document_id,
  user_id, created_at, is_checkin, is_ignored, is_time_unread
FROM copies
WHERE copy_no = 1 OR document_id IS NULL"""


def _is_of_sql(types: tuple[str, ...]) -> str:
    """Whether a document is of one of the types."""
    return f"IFNULL({among_sql('type', types)}, FALSE)" if types else "FALSE"


def channels_sql(metric_table: MetricTable, posthog_sessions: Source) -> str:
    """A SELECT of one (`session_id`, `channel_type`) per PostHog session, by latest end."""
    return f"""WITH source_rows AS (
  SELECT
    {trimmed_sql(posthog_sessions.column("session_id"))} AS session_id,
    {posthog_sessions.column("channel_type")} AS channel_type,
    {posthog_sessions.column("end_at")} AS end_at
  FROM {posthog_sessions.rows_sql}
),
session_rows AS (
  SELECT
    {session_id_sql(metric_table.junk_ids, "session_id")} AS session_id,
    channel_type, end_at
  FROM source_rows
),
ranked AS (
  SELECT
    session_id, channel_type,
    ROW_NUMBER() OVER (
      PARTITION BY session_id ORDER BY end_at DESC, channel_type DESC
    ) AS choice_no
  FROM session_rows
  WHERE session_id IS NOT NULL
)
SELECT session_id, channel_type FROM ranked WHERE choice_no = 1"""


def id_users_sql(metric_table: MetricTable, user_keys: str) -> str:
    """CTEs from `session_ids` to `id_users`: one row per distinct id, with its user or null."""
    return f"""ids AS (
  SELECT DISTINCT distinct_id FROM session_ids
),
id_digits AS (
  SELECT
    distinct_id,
    IF({is_phone_sql("distinct_id")}, {phone_digits_sql("distinct_id")}, NULL) AS phone_digits
  FROM ids
),
id_keys AS (
  SELECT
    distinct_id,
    {phone_key_sql("phone_digits", least=metric_table.phone_digits)} AS phone_key,
    TO_HEX(SHA256(LOWER(distinct_id))) AS email_key
  FROM id_digits
),
id_users AS (
  SELECT
    i.distinct_id,
    COALESCE(u.user_id, p.user_id, e.user_id) AS user_id,
    COALESCE(u.user_match, p.user_match, e.user_match) AS user_match,
    CASE
      WHEN u.user_id IS NOT NULL THEN u.signed_up_at
      WHEN p.user_id IS NOT NULL THEN p.signed_up_at
      ELSE e.signed_up_at
    END AS signed_up_at
  FROM id_keys AS i
  LEFT JOIN {user_keys} AS u ON u.user_match = 'uid' AND u.key = i.distinct_id
  LEFT JOIN {user_keys} AS p ON p.user_match = 'phone' AND p.key = i.phone_key
  LEFT JOIN {user_keys} AS e ON e.user_match = 'email' AND e.key = i.email_key
)"""


def enrich_sql(
    metric_table: MetricTable, *, rows: str, user_keys: str, documents: str, channels: str
) -> str:
    """CTEs that end in `enriched`: one row per session of `rows`, with the enriched columns.

    `rows` is a SELECT of session_id, distinct_ids, started_at, ended_at.
    """
    tolerance = metric_table.creation_tolerance_seconds * 1_000_000  # µs
    return f"""session_rows AS (
  {rows}
),
session_ids AS (
  SELECT s.session_id, distinct_id, use_no
  FROM session_rows AS s, UNNEST(s.distinct_ids) AS distinct_id WITH OFFSET AS use_no
  WHERE NOT {is_junk_sql(metric_table.junk_ids, "distinct_id")}
),
{id_users_sql(metric_table, user_keys)},
session_users AS (
  SELECT
    s.session_id, m.user_id, m.user_match, m.signed_up_at,
    ROW_NUMBER() OVER (PARTITION BY s.session_id ORDER BY s.use_no DESC) AS choice_no
  FROM session_ids AS s
  JOIN id_users AS m ON m.distinct_id = s.distinct_id
  WHERE m.user_id IS NOT NULL
),
session_documents AS (
  SELECT
    s.session_id,
    COUNT(DISTINCT IF(d.is_checkin, NULL, d.document_id)) AS events_created,
    COUNT(DISTINCT IF(d.is_checkin, d.document_id, NULL)) AS checkins_created
  FROM session_rows AS s
  JOIN session_users AS u ON u.session_id = s.session_id AND u.choice_no = 1
  JOIN {documents} AS d
    ON d.user_id = u.user_id
    AND TIMESTAMP_DIFF(s.started_at, d.created_at, MICROSECOND) <= {tolerance}
    AND TIMESTAMP_DIFF(d.created_at, s.ended_at, MICROSECOND) <= {tolerance}
  WHERE d.document_id IS NOT NULL
  GROUP BY s.session_id
),
enriched AS (
  SELECT
    s.session_id, u.user_id, u.user_match, u.signed_up_at AS user_signed_up_at, c.channel_type,
    IFNULL(d.events_created, 0) AS events_created,
    IFNULL(d.checkins_created, 0) AS checkins_created
  FROM session_rows AS s
  LEFT JOIN session_users AS u ON u.session_id = s.session_id AND u.choice_no = 1
  LEFT JOIN session_documents AS d ON d.session_id = s.session_id
  LEFT JOIN {channels} AS c ON c.session_id = s.session_id
)"""


def outdated_sql(
    metric_table: MetricTable,
    *,
    sessions: str,
    touched: str | None,
    user_keys: str,
    documents: str,
    channels: str,
) -> str:
    """A SELECT of stored sessions, except touched ones, whose enriched columns changed.

    (`session_id`, `session_date`, the enriched columns as they are now.) `touched`: None where
    no session is.
    """
    others = f"\n  WHERE session_id NOT IN (SELECT session_id FROM {touched})" if touched else ""
    rows = f"""SELECT session_id, distinct_ids, started_at, ended_at
  FROM {sessions}{others}"""
    enriched = [column.name for column in metric_table.enriched]
    names = ["s.session_id", "s.session_date", *(f"e.{name}" for name in enriched)]
    changed = "\n  OR ".join(f"s.{name} IS DISTINCT FROM e.{name}" for name in enriched)
    ctes = enrich_sql(
        metric_table, rows=rows, user_keys=user_keys, documents=documents, channels=channels
    )
    return f"""WITH {ctes}
SELECT
  {wrapped(names, indent=2)}
FROM {sessions} AS s
JOIN enriched AS e ON e.session_id = s.session_id
WHERE {changed}"""


def outdated_count_sql(
    metric_table: MetricTable, *, sessions: str, user_keys: str, documents: str, channels: str
) -> str:
    """A SELECT of one row for a run without a changed day: how many sessions are `outdated`.

    Also the audit's counts of Firebase, and `newest_at`. @now.
    """
    newest = newest_loaded_sql(sessions=sessions, projected=None, touched=None)
    outdated = outdated_sql(
        metric_table,
        sessions=sessions,
        touched=None,
        user_keys=user_keys,
        documents=documents,
        channels=channels,
    )
    return f"""WITH outdated AS (
{outdated}
)
SELECT
  (SELECT COUNT(*) FROM outdated) AS outdated,
  {firebase_figures_sql(user_keys=user_keys, documents=documents)},
  (
{indent(newest, "    ")}
  ) AS newest_at"""


def firebase_figures_sql(*, user_keys: str, documents: str) -> str:
    """Columns of a SELECT: what is counted of Firebase, by the names of the report."""
    return f"""(SELECT COUNT(DISTINCT user_id) FROM {user_keys}) AS users,
  (SELECT COUNTIF(document_id IS NOT NULL OR is_ignored) FROM {documents}) AS documents,
  (SELECT COUNTIF(is_ignored) FROM {documents}) AS ignored_documents,
  (SELECT COUNTIF(is_time_unread) FROM {user_keys}) AS user_times_unread,
  (
    SELECT COUNTIF(is_time_unread AND NOT is_ignored) FROM {documents}
  ) AS document_times_unread,
  (
    SELECT COUNTIF(document_id IS NULL AND NOT is_ignored) FROM {documents}
  ) AS incomplete_documents,
  (
    SELECT COUNT(DISTINCT d.user_id)
    FROM {documents} AS d
    LEFT JOIN {user_keys} AS u ON u.user_match = 'uid' AND u.key = d.user_id
    WHERE d.document_id IS NOT NULL AND u.key IS NULL
  ) AS creators_unknown"""


def none_outdated_sql(metric_table: MetricTable, *, sessions: str) -> str:
    """The same columns without rows, for runs that rebuild all their sessions."""
    enriched = (column.name for column in metric_table.enriched)
    names = wrapped(["session_id", "session_date", *enriched], indent=2)
    return f"SELECT\n  {names}\nFROM {sessions}\nWHERE FALSE"


def new_rows_sql(
    metric_table: MetricTable,
    *,
    aggregated: str,
    planned: str,
    user_keys: str,
    documents: str,
    channels: str,
) -> str:
    """A SELECT of finished `sessions` rows from an engine's aggregated ones."""
    rows = f"""SELECT p.session_id, a.distinct_ids, a.started_at, a.ended_at
  FROM {aggregated} AS a
  JOIN {planned} AS p ON p.batch = a.batch AND p.session_no = a.session_no"""
    ctes = enrich_sql(
        metric_table, rows=rows, user_keys=user_keys, documents=documents, channels=channels
    )
    return f"""WITH {ctes},
complete AS (
  SELECT
    {_complete_columns(metric_table, "a", keys="p")}
  FROM {aggregated} AS a
  JOIN {planned} AS p ON p.batch = a.batch AND p.session_no = a.session_no
  JOIN enriched AS e ON e.session_id = p.session_id
)
{_finish_sql(metric_table)}"""


def outdated_rows_sql(
    metric_table: MetricTable, *, sessions: str, outdated: str, dates: str
) -> str:
    """A SELECT of finished rows: those stored on `dates` (a condition), with their new values."""
    return f"""WITH complete AS (
  SELECT
    {_complete_columns(metric_table, "s", keys="s")}
  FROM {sessions} AS s
  JOIN {outdated} AS e ON e.session_id = s.session_id
  WHERE {dates}
)
{_finish_sql(metric_table)}"""


def _complete_columns(metric_table: MetricTable, row: str, *, keys: str) -> str:
    names = [f"{row}.{metric.name}" for metric in metric_table.metrics]
    enriched = [f"e.{column.name}" for column in metric_table.enriched]
    written = [f"{keys}.{name}" for name in ("session_id", "is_split", "_days")]
    return wrapped([*written, *names, *enriched], indent=4)


def _finish_sql(metric_table: MetricTable) -> str:
    """The table's columns in order, the derived ones computed; @now, @run_id, @metrics_version."""
    derived = {column.name: column.sql for column in metric_table.derived}
    run = {"_loaded_at": "@now", "_run_id": "@run_id", "_metrics_version": "@metrics_version"}
    written = {**derived, **run}
    lines = [
        f"{written[column.name]} AS {column.name}" if column.name in written else column.name
        for column in metric_table.columns
    ]
    return "SELECT\n  {}\nFROM complete".format(",\n  ".join(lines))
