"""The sessions that are verified, and the raw rows that they come from, as SQL text. Pure.

Rows are chosen loosely here and sorted out by `oracle/`, so that no rule of the projection is used
twice: ids are compared by their ASCII letters and digits alone, phones by their last digits.
"""

from __future__ import annotations

import datetime as dt
import re
import reprlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self

from runs.errors import RequestError
from sessions.plan import ranges_sql
from sessions.sources import without_past
from sessions.sql_layout import wrapped

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from sessions.metric_types import MetricTable
    from sessions.sources import Source

MOST_SESSIONS: Final = 200
PHONE_TAIL: Final = 6
_MIDNIGHT: Final = dt.timedelta(hours=1)
_ESCAPES: Final = r"\\u[0-9a-fA-F]{4}|\\."
# A quoted text or a bare value after a name of the session id.
_VALUE: Final = r"""(\"(?:[^\"\\]|\\.)*\"|[^\",}\s]*)"""


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyRequest:
    """Which stored sessions to verify: one by its id, or so many of some days by a seed."""

    seed: str
    size: int = 1
    start_date: dt.date | None = None
    end_date: dt.date | None = None
    session_id: str | None = None

    def __post_init__(self) -> None:
        """Raise a RequestError for values that choose nothing."""
        if not 1 <= self.size <= MOST_SESSIONS:
            message = f"A verification takes 1 to {MOST_SESSIONS} sessions: say how many."
            raise RequestError(message)
        if self.session_id is not None and (self.start_date or self.end_date):
            message = "A session is verified by its id or by days: leave out one of them."
            raise RequestError(message)
        if self.start_date and self.end_date and self.end_date < self.start_date:
            message = f"The last day {self.end_date} is before the first day {self.start_date}."
            raise RequestError(message)

    @classmethod
    def from_query(cls, query: Mapping[str, Sequence[str]], now: dt.datetime) -> Self:
        """Read the parameters of a GET: sessions, and a seed or, for a new one, none."""
        for name, values in query.items():
            if name not in {"sessions", "seed"} or len(values) != 1:
                message = (
                    f"There is no parameter {reprlib.repr(name)} there, or it stands twice: "
                    "use sessions and seed, once at most."
                )
                raise RequestError(message)
        size = query["sessions"][0] if "sessions" in query else "20"
        return cls(
            seed=query["seed"][0] if "seed" in query else new_seed(now),
            size=int(size) if re.fullmatch("[0-9]{1,3}", size) else 0,
        )


def new_seed(now: dt.datetime) -> str:
    """The default seed: the time, to the second."""
    return f"{now.astimezone(dt.UTC):%Y%m%d%H%M%S}"


def loose(text: str) -> str:
    """What is compared of an id: ASCII letters, in lower case, and digits."""
    return re.sub("[^a-zA-Z0-9]", "", text).lower()


def phone_tail(text: str) -> str:
    """The last digits of a phone number, '' where there are too few."""
    digits = re.sub("[^0-9]", "", text)
    return digits[-PHONE_TAIL:] if len(digits) >= PHONE_TAIL else ""


def _loose_sql(text: str) -> str:
    return f"LOWER(REGEXP_REPLACE({text}, r'[^a-zA-Z0-9]', ''))"


def sample_sql(metric_table: MetricTable, sessions: str, *, size: int) -> str:
    """A SELECT of so many stored sessions between @first_day and @last_day, by @seed.

    Of each day, library, kind of user and kind of id in turn, so that rare ones are among them.
    """
    return f"""WITH ranked AS (
  SELECT
    session_id, session_date, TO_HEX(MD5(CONCAT(@seed, session_id))) AS draw,
    ROW_NUMBER() OVER (
      PARTITION BY session_date, lib, user_id IS NULL, is_split
      ORDER BY TO_HEX(MD5(CONCAT(@seed, session_id)))
    ) AS choice_no
  FROM {sessions}
  WHERE session_date BETWEEN @first_day AND @last_day
),
chosen AS (
  SELECT session_id FROM ranked ORDER BY choice_no, draw LIMIT {size}
)
SELECT
  {_columns_sql(metric_table)}
FROM {sessions}
WHERE session_date BETWEEN @first_day AND @last_day
  AND session_id IN (SELECT session_id FROM chosen)
ORDER BY session_id"""


def session_sql(metric_table: MetricTable, sessions: str) -> str:
    """A SELECT of the stored session @session_id."""
    return f"""SELECT
  {_columns_sql(metric_table)}
FROM {sessions}
WHERE session_id = @session_id"""


def kept_out_sql(quarantined: str, sessions: str) -> str:
    """A SELECT of one row: why @session_id is kept out, and the pieces that it is split into."""
    return f"""SELECT
  (SELECT MAX(row_count) FROM {quarantined} WHERE session_id = @session_id) AS kept_out,
  COUNT(*) AS pieces, MIN(session_id) AS piece
FROM {sessions}
WHERE STARTS_WITH(session_id, CONCAT(@session_id, '/'))"""


def _rows_sql(source: Source) -> str:
    """The rows of a small table as they are now."""
    return without_past(source).rows_sql


def _columns_sql(metric_table: MetricTable) -> str:
    return wrapped((column.name for column in metric_table.columns), indent=2)


def days_to_read(rows: Iterable[Mapping[str, object]]) -> list[dt.date]:
    """The days of the sessions' rows, and of an hour before and after each session.

    So a row that was lost together with its day is found, too.
    """
    days: set[dt.date] = set()
    for row in rows:
        started_at, ended_at, known = row["started_at"], row["ended_at"], row["_days"]
        if isinstance(started_at, dt.datetime) and isinstance(ended_at, dt.datetime):
            days |= {(started_at - _MIDNIGHT).date(), (ended_at + _MIDNIGHT).date()}
        if isinstance(known, list):
            days |= {each["day"] for each in known}
    return sorted(days)


def events_sql(
    metric_table: MetricTable, source: Source, days: Iterable[dt.date], *, of_pieces: bool = False
) -> str:
    """A SELECT of the raw rows of these days with a session id like one of @keys.

    `of_pieces`: only those with a distinct id like one of @distinct_keys, '' for none, since a
    split id may have millions of rows, and a piece of it few.
    """
    condition = f"\nAND IFNULL({_loose_sql('distinct_id')}, '') IN UNNEST(@distinct_keys)"
    raw = source.column("properties")
    is_json = source.shape.columns[source.physical["properties"]] == "JSON"
    text = f"IF({raw} IS NULL, NULL, TO_JSON_STRING({raw}))" if is_json else raw
    names = "|".join(re.escape(name) for name in metric_table.session_id_names)
    pattern = rf"\"(?:{names})\"\s*:\s*{_VALUE}"
    return f"""SELECT uuid, event, distinct_id, timestamp, bq_ingested_timestamp, properties
FROM (
  SELECT
    {source.column("uuid")} AS uuid,
    {source.column("event")} AS event,
    {source.column("distinct_id")} AS distinct_id,
    {source.column("event_at")} AS timestamp,
    {source.time_column("ingested_at")} AS bq_ingested_timestamp,
    {text} AS properties
  FROM {source.shape.table.sql}
  WHERE {ranges_sql(source, days)}
)
WHERE EXISTS (
  SELECT 1
  FROM UNNEST(REGEXP_EXTRACT_ALL(properties, r'{pattern}')) AS found
  WHERE LOWER(REGEXP_REPLACE(found, r'{_ESCAPES}|[^a-zA-Z0-9]', '')) IN UNNEST(@keys)
){condition if of_pieces else ""}"""


def users_sql(source: Source) -> str:
    """A SELECT of all rows of the users that an id like one of @keys or @tails may mean."""
    phone = source.column("phone")
    number = f"CAST(SAFE_CAST(SAFE_CAST({phone} AS FLOAT64) AS INT64) AS STRING)"
    digits = f"REGEXP_REPLACE({phone}, r'[^0-9]', '')"
    user_id = _loose_sql(source.column("user_id"))
    return f"""WITH user_rows AS (
  SELECT
    {source.column("user_id")} AS user_id,
    {phone} AS phoneNumber,
    {source.column("email")} AS email,
    {source.time_column("created_at")} AS createdAt,
    {source.time_column("loaded_at")} AS etl_loaded_at,
    {user_id} AS id_key,
    {_loose_sql(source.column("email"))} AS email_key,
    SUBSTR({digits}, GREATEST(1, LENGTH({digits}) - {PHONE_TAIL - 1})) AS tail,
    SUBSTR({number}, GREATEST(1, LENGTH({number}) - {PHONE_TAIL - 1})) AS number_tail
  FROM {_rows_sql(source)}
)
SELECT user_id, phoneNumber, email, createdAt, etl_loaded_at
FROM user_rows
WHERE id_key IN (
  SELECT id_key
  FROM user_rows
  WHERE id_key IN UNNEST(@keys) OR email_key IN UNNEST(@keys)
    OR tail IN UNNEST(@tails) OR number_tail IN UNNEST(@tails)
)"""


def documents_sql(source: Source) -> str:
    """A SELECT of all rows of the documents created from one of @firsts to its of @lasts."""
    return f"""WITH document_rows AS (
  SELECT
    {source.column("document_id")} AS document_id,
    {source.column("creator")} AS user_id,
    {source.column("created_at")} AS createdAt,
    {source.column("type")} AS type,
    {source.time_column("loaded_at")} AS etl_loaded_at
  FROM {_rows_sql(source)}
),
spans AS (
  SELECT first_at, last_at
  FROM UNNEST(@firsts) AS first_at WITH OFFSET AS a
  JOIN UNNEST(@lasts) AS last_at WITH OFFSET AS b ON a = b
),
created AS (
  SELECT DISTINCT d.document_id AS document_id
  FROM document_rows AS d
  JOIN spans AS s ON d.createdAt BETWEEN s.first_at AND s.last_at
)
SELECT document_id, user_id, createdAt, type, etl_loaded_at
FROM document_rows
WHERE document_id IN (SELECT document_id FROM created)"""


def posthog_sessions_sql(source: Source) -> str:
    """A SELECT of PostHog's rows of the sessions with an id like one of @keys."""
    return f"""SELECT
  {source.column("session_id")} AS session_id,
  {source.column("channel_type")} AS channel_type,
  {source.time_column("end_at")} AS end_timestamp
FROM {_rows_sql(source)}
WHERE {_loose_sql(source.column("session_id"))} IN UNNEST(@keys)"""
