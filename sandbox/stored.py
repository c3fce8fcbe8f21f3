"""What the source tables hold, read back for the next day to build on."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

from google.api_core.exceptions import NotFound
from google.cloud import bigquery

from sandbox.errors import SandboxError
from sandbox.generator.next_day import Stored
from sandbox.sources import stored_properties
from sandbox.tables import schema

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pyarrow as pa

    from sandbox.sources import SourceDatasets
    from sandbox.tables import TableName

_FEWEST_SESSIONS = 50
_RECENT_DAYS = 4
_SESSIONS_PER_EVENT = 4
_SESSIONS_PER_ROW = 50


def read_stored(
    client: bigquery.Client, datasets: SourceDatasets, *, sessions: int | None
) -> tuple[Stored, int]:
    """Return what is stored, with samples in proportion to the sessions to come, and their number.

    `sessions` None stands for as many as PostHog counted on the newest day, and 50 at least.
    Raises SandboxError when there are no events.
    """
    newest = _newest_day(client, datasets)
    expected = sessions or _sessions_of(client, datasets, newest)
    few = max(1, expected // _SESSIONS_PER_ROW)
    stored = Stored(
        newest_day=newest,
        users=_users(client, datasets),
        events=_recent_events(client, datasets, newest, max(2, expected // _SESSIONS_PER_EVENT)),
        documents=_sample(client, datasets, "firebase_events", "document_id", few),
        sessions=_sample(client, datasets, "posthog_sessions", "session_id", few),
    )
    return stored, expected


def _newest_day(client: bigquery.Client, datasets: SourceDatasets) -> dt.date:
    """Return the newest day of the rows whose time is not ahead of their ingestion."""
    events = datasets.table_id(client, "posthog_events")
    sql = f"""
        SELECT DATE(MAX(`timestamp`)) AS day
        FROM `{events}`
        WHERE `timestamp` <= TIMESTAMP_ADD(bq_ingested_timestamp, INTERVAL 1 HOUR)
    """
    try:
        (row,) = client.query_and_wait(sql)
    except NotFound:
        row = None
    if row is None or not isinstance(row["day"], dt.date):
        msg = f"There are no events in {events} for a day to follow: load or seed some first."
        raise SandboxError(msg)
    return row["day"]


def _sessions_of(client: bigquery.Client, datasets: SourceDatasets, day: dt.date) -> int:
    sql = f"""
        SELECT COUNT(DISTINCT session_id) AS sessions
        FROM `{datasets.table_id(client, "posthog_sessions")}`
        WHERE DATE(start_timestamp) = @day
    """
    (row,) = client.query_and_wait(sql, job_config=_parameters(("day", "DATE", day)))
    return max(_FEWEST_SESSIONS, int(row["sessions"]))


def _users(client: bigquery.Client, datasets: SourceDatasets) -> list[Mapping[str, object]]:
    """Return the latest row of each user, by id."""
    sql = f"""
        SELECT {_columns("firebase_users")}
        FROM `{datasets.table_id(client, "firebase_users")}`
        WHERE user_id IS NOT NULL
        QUALIFY ROW_NUMBER() OVER (
          PARTITION BY user_id
          ORDER BY etl_loaded_at DESC, createdAt DESC, phoneNumber, email
        ) = 1
        ORDER BY user_id
    """
    return list(_arrow(client, sql).to_pylist())


def _recent_events(
    client: bigquery.Client, datasets: SourceDatasets, newest: dt.date, count: int
) -> pa.Table:
    """Return some events of the last days as stored, JSON as text."""
    is_json = stored_properties(client, datasets) == "json"
    texts = {"properties", "set", "set_once"} if is_json else set()
    columns = ", ".join(
        f"IF(`{f.name}` IS NULL, NULL, TO_JSON_STRING(`{f.name}`)) AS `{f.name}`"
        if f.name in texts
        else f"`{f.name}`"
        for f in schema("posthog_events", "string")
    )
    sql = f"""
        SELECT {columns}
        FROM `{datasets.table_id(client, "posthog_events")}`
        WHERE `timestamp` >= TIMESTAMP(@since) AND `timestamp` < TIMESTAMP(@until)
        ORDER BY MD5(uuid), bq_ingested_timestamp
        LIMIT {count}
    """
    since, until = newest - dt.timedelta(days=_RECENT_DAYS), newest + dt.timedelta(days=1)
    return _arrow(client, sql, ("since", "DATE", since), ("until", "DATE", until))


def _sample(
    client: bigquery.Client, datasets: SourceDatasets, table: TableName, key: str, count: int
) -> pa.Table:
    sql = f"""
        SELECT {_columns(table)}
        FROM `{datasets.table_id(client, table)}`
        WHERE {key} IS NOT NULL
        ORDER BY MD5({key}), {key}
        LIMIT {count}
    """
    return _arrow(client, sql)


def _columns(table: TableName) -> str:
    return ", ".join(f"`{field.name}`" for field in schema(table, "string"))


def _arrow(client: bigquery.Client, sql: str, *parameters: tuple[str, str, dt.date]) -> pa.Table:
    rows = client.query_and_wait(sql, job_config=_parameters(*parameters))
    return rows.to_arrow(create_bqstorage_client=False)


def _parameters(*parameters: tuple[str, str, dt.date]) -> bigquery.QueryJobConfig:
    return bigquery.QueryJobConfig(
        query_parameters=[bigquery.ScalarQueryParameter(*given) for given in parameters]
    )
