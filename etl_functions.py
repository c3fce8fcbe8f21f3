"""What a run reads from BigQuery and writes to it. Nothing here decides what a session is."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from io import BytesIO
from typing import TYPE_CHECKING, Final, cast

from bigquery import loading
from bigquery.destination import ensure_tables, find_table, list_rows
from bigquery.jobs import fetch, rows_of, run_query, run_statement
from bigquery.parameters import Parameter, array, scalar
from bigquery.refusals import StatementError, classified
from bigquery.retries import HTTP_SECONDS, call, start, wait_for, with_retries
from runs.errors import (
    DestinationError,
    SourceError,
    SourceMissingError,
    UnavailableError,
)
from sessions.freshness import newest_valid_sql
from sessions.persons import IDENTITIES, persons_schema
from sessions.plan import NULL_PARTITION, STREAMING_BUFFER, State, day_counts_sql
from sessions.projection import exclusion_sql
from sessions.sources import (
    FIRESTORE_TIME,
    WEB_TIME,
    TableShape,
    absent,
    resolve,
    without_past,
)
from sessions.tables import STATE, TIES, quarantined_schema, sessions_schema, split_schema

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from datetime import datetime

    import pandas as pd
    import pyarrow as pa
    from google.cloud import bigquery

    from bigquery.tables import TableId, TableSchema
    from bigquery.warehouse import Warehouse
    from runs.settings import Settings
    from sessions.metric_types import MetricTable
    from sessions.plan import Plan
    from sessions.sources import Source, SourceTable

_STREAM_SECONDS: Final = 600.0  # per stream of a batch; far more than needed
JOB: Final = "sessions"
STATE_TABLE: Final = f"etl_state_{JOB}"


def destination_tables(metric_table: MetricTable) -> dict[str, TableSchema]:
    """The tables that a run makes where they are missing, by name."""
    return {
        "sessions": sessions_schema(metric_table),
        "split_ids": split_schema(metric_table),
        "quarantined_sessions": quarantined_schema(metric_table),
        "ties": TIES,
        STATE_TABLE: STATE,
        "persons": persons_schema(metric_table),
        "identities": IDENTITIES,
    }


def read_shape(warehouse: Warehouse, table: TableId) -> TableShape:
    """The table's real schema. Raises SourceMissingError where there is none to read."""
    with classified(f"the metadata of table {table}", SourceMissingError):
        found = call(warehouse, partial(warehouse.clients.bigquery.get_table, str(table)))
    return _shape_of(table, found)


def find_source(warehouse: Warehouse, wanted: SourceTable) -> Source:
    """How to read the table; an optional table that is missing has no rows."""
    from google.api_core.exceptions import NotFound

    try:
        shape = read_shape(warehouse, wanted.table)
    except SourceMissingError as error:
        if wanted.is_required or not isinstance(error.__cause__, NotFound):
            raise
        return absent(wanted.table, wanted.logical)
    return resolve(shape, wanted.logical)


@contextmanager
def blaming_views(*read: Source) -> Iterator[None]:
    """Within, a statement that BigQuery rejects is the fault of the views that it reads, if any.

    Raises SourceError, which names them and the job. Where it reads tables alone, it is a bug.
    """
    try:
        yield
    except StatementError as error:
        shapes = [each.shape for each in read if not each.shape.is_missing]
        views = [str(shape.table) for shape in shapes if not shape.is_table]
        if not views:
            raise
        message = (
            f"View {', '.join(views)} can't be read: {str(error).rstrip('.')}. Query it by itself,"
            " and mend it."
        )
        raise SourceError(message) from None


def check_not_replaced(warehouse: Warehouse, table: TableId, snapshot_at: datetime) -> None:
    """Raise UnavailableError if the table is younger than the moment that the run reads it at."""
    found = find_table(warehouse, table)
    if found is not None and found.created > snapshot_at:
        message = (
            f"Table {table} was made anew at {found.created:%H:%M:%S} UTC, after the run began to"
            " read: run again once its load is over."
        )
        raise UnavailableError(message)


def _shape_of(table: TableId, found: bigquery.Table) -> TableShape:
    partitioning = found.time_partitioning
    type_, column = (partitioning.type_, partitioning.field) if partitioning else (None, None)
    return TableShape(
        table=table,
        columns={column.name: _type_of(column) for column in found.schema},
        is_table=found.table_type == "TABLE",
        day_partitioned_by=column if type_ == "DAY" else None,
        pruned_by=column if type_ in {"DAY", "HOUR"} else None,
        tagged_columns=tuple(each.name for each in found.schema if each.policy_tags),
        row_count=found.num_rows or 0,
    )


def _type_of(column: bigquery.SchemaField) -> str:
    if column.mode == "REPEATED":
        return f"ARRAY<{column.field_type}>"
    if {"_seconds", "_nanoseconds"} <= {each.name for each in column.fields}:
        return FIRESTORE_TIME
    if {"seconds", "nanoseconds"} <= {each.name for each in column.fields}:
        return WEB_TIME
    return column.field_type


@dataclass(frozen=True, slots=True, kw_only=True)
class DayCounts:
    """Rows and stamps of the events by partition, `__NULL__` for those without a time.

    `counted_at`: BigQuery's time after counting. The run reads everything as of this moment.
    """

    counts: dict[str, int]
    stamps: dict[str, int]
    counted_at: datetime


def read_day_counts(warehouse: Warehouse, events: Source) -> DayCounts:
    """Count the events by day, from metadata where there are some."""
    with blaming_views(events), classified("day_counts", SourceError):
        job = run_statement(warehouse, "day_counts", day_counts_sql(events))
        rows = rows_of(warehouse, job)
    counts: dict[str, int] = {}
    for row in rows:  # a partition may be in two rows, one for each tier of storage
        if row["total_rows"]:
            counts[row["partition_id"]] = counts.get(row["partition_id"], 0) + row["total_rows"]
    # The emulator lists no partition for null times: they are the remaining rows.
    unlisted = events.shape.row_count - sum(counts.values())
    if events.shape.is_table and NULL_PARTITION not in counts and unlisted > 0:
        counts[NULL_PARTITION] = unlisted
    is_read = {key for key in counts if key not in {NULL_PARTITION, STREAMING_BUFFER}}
    return DayCounts(
        counts=counts,
        stamps={
            row["partition_id"]: row["stamp"]
            for row in rows
            if row["partition_id"] in is_read and row["stamp"] is not None
        },
        # A job's end is truncated to ms: it must not precede the rows it counted.
        counted_at=cast("datetime", job.ended) + timedelta(milliseconds=1),
    )


def ensure_destination(
    warehouse: Warehouse, metric_table: MetricTable, *, as_it_is: bool
) -> dict[str, tuple[bool, bigquery.Table]]:
    """Create the tables that are missing and, unless `as_it_is`, bring columns up to date.

    Returns for each whether it was created now, and the table.
    Raises DestinationError where a column exists under another type.
    """
    schemas = {
        warehouse.table(name): schema for name, schema in destination_tables(metric_table).items()
    }
    with classified("the destination tables", DestinationError):
        made = ensure_tables(warehouse, schemas, as_they_are=as_it_is)
    return {table.name: each for table, each in made.items()}


def read_state(warehouse: Warehouse) -> State | None:
    """What the last successful run saw; None before the first."""
    rows = list_rows(warehouse, warehouse.table(STATE_TABLE))
    if not rows:
        return None
    row = rows[0]
    return State(
        days={day["partition_id"]: day["row_count"] for day in row["days"]},
        stamps={
            day["partition_id"]: day["stamp"] for day in row["days"] if day.get("stamp") is not None
        },
        users=row.get("users"),
        documents=row.get("documents"),
        columns={each["name"]: each["version"] for each in row.get("columns") or ()},
        **{name: row[name] for name in ("run_id", "metrics_version", "sessions_created_at")},
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Download:
    """A batch as an Arrow-backed frame with rows in any order, and a warning if any."""

    rows: pd.DataFrame
    seconds: float
    warning: str | None = None


def start_download(
    warehouse: Warehouse,
    table: TableId,
    *,
    batch: int,
    columns: Sequence[str],
    empty: Mapping[str, str],
) -> Callable[[], Download]:
    """Start downloading a batch of a staging table; call the result to wait.

    `empty`: all-null columns with their types; they are added, not downloaded.
    """
    outcome = start(lambda: _download(warehouse, table, batch=batch, columns=columns, empty=empty))
    return lambda: wait_for(warehouse, outcome)


def _download(
    warehouse: Warehouse,
    table: TableId,
    *,
    batch: int,
    columns: Sequence[str],
    empty: Mapping[str, str],
) -> Download:
    """Use the Storage Read API or, if it is not allowed, REST."""
    import pandas as pd
    import pyarrow as pa
    from google.api_core.exceptions import PermissionDenied

    warning, started = None, time.monotonic()
    with classified(f"the download of batch {batch}", SourceError):
        try:
            rows = with_retries(
                warehouse,
                f"the download of batch {batch}",
                lambda: _read_storage(warehouse, table, f"batch = {batch}", columns),
            )
        except PermissionDenied:
            warning = (
                "The Storage Read API is not allowed (role readSessionUser is missing): "
                "batches were read by REST, which is slower."
            )
            rows = _read_rest(warehouse, table, f"batch = {batch}", columns)
    types = {"STRING": pa.string(), "FLOAT64": pa.float64()}
    nulls = {name: pa.nulls(len(rows), type_) for name, type_ in types.items()}  # once for all
    for name, type_ in empty.items():
        rows = rows.append_column(name, nulls[type_])
    frame = rows.to_pandas(types_mapper=pd.ArrowDtype, split_blocks=True)
    return Download(rows=frame, seconds=time.monotonic() - started, warning=warning)


def _read_storage(
    warehouse: Warehouse, table: TableId, where: str, columns: Sequence[str]
) -> pa.Table:
    import pyarrow as pa
    from google.cloud.bigquery_storage import DataFormat, ReadSession

    storage = warehouse.clients.storage
    session = storage.create_read_session(
        parent=f"projects/{table.project}",
        read_session=ReadSession(
            table=f"projects/{table.project}/datasets/{table.dataset}/tables/{table.name}",
            data_format=DataFormat.ARROW,
            read_options=ReadSession.TableReadOptions(
                selected_fields=list(columns), row_restriction=where
            ),
        ),
        timeout=HTTP_SECONDS,
    )
    schema = pa.ipc.read_schema(pa.py_buffer(session.arrow_schema.serialized_schema))

    def read(stream: str) -> list[pa.RecordBatch]:
        return [
            pa.ipc.read_record_batch(
                pa.py_buffer(message.arrow_record_batch.serialized_record_batch), schema
            )
            for message in storage.read_rows(stream, timeout=_STREAM_SECONDS)
        ]

    streams = [start(partial(read, stream.name)) for stream in session.streams]
    pages = [page for stream in streams for page in stream.result()]
    return pa.Table.from_batches(pages, schema=schema).select(list(columns))


def _read_rest(
    warehouse: Warehouse, table: TableId, where: str, columns: Sequence[str]
) -> pa.Table:
    sql = f"SELECT {', '.join(columns)} FROM {table.sql} WHERE {where}"
    rows = fetch(run_statement(warehouse, "download", sql))
    return rows.to_arrow(create_bqstorage_client=False)


def start_load(
    warehouse: Warehouse, table: TableId, rows: pd.DataFrame, *, part: int, schema: TableSchema
) -> Callable[[], float]:
    """Start a Parquet load job into a staging table; call the result to wait.

    Returns the seconds that it took.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = BytesIO()
    sessions = pa.Table.from_pandas(rows, preserve_index=False)
    pq.write_table(sessions, file, compression="zstd")  # chosen in docs/performance.md
    return loading.start_load(warehouse, table, file, part=f"batch_{part}", schema=schema)


def has_rows_of_another_version(warehouse: Warehouse, metrics_version: str) -> bool:
    """Whether `sessions` holds any row that another version of the metrics built."""
    sql = f"""SELECT COUNT(*) AS row_count
FROM {warehouse.table("sessions").sql}
WHERE _metrics_version != @metrics_version"""
    version = scalar("metrics_version", "STRING", metrics_version)
    rows = run_query(warehouse, "versions", sql, [version], refused_as=DestinationError)
    return bool(rows[0]["row_count"])


def read_newest_event_at(
    warehouse: Warehouse, metric_table: MetricTable, events: Source, plan: Plan, now: datetime
) -> datetime | None:
    """The newest valid event of the source; None where there is none up to now."""
    days = [day for day in plan.counted_days if day <= now.date()]
    conditions, parameters = exclusions(warehouse.settings)
    number, events = 1, without_past(events)
    while days:  # newest first; the latest days may hold only rows that were set aside
        sql = newest_valid_sql(metric_table, events, days[-number:], conditions)
        given = [scalar("now", "TIMESTAMP", now), *parameters]
        with blaming_views(events):
            row = run_query(warehouse, "newest", sql, given)[0]
        if row["newest_at"] is not None:
            return cast("datetime", row["newest_at"])
        days, number = days[:-number], number * 2
    return None


def exclusions(settings: Settings) -> tuple[list[str], list[Parameter]]:
    """The conditions by which settings exclude rows, and their parameters."""
    conditions = exclusion_sql(
        distinct_ids=bool(settings.exclude_distinct_ids),
        libs=bool(settings.exclude_libs),
        emulators=settings.exclude_emulators,
        bots=settings.exclude_bots,
    )
    return conditions, [
        array("excluded_distinct_ids", "STRING", settings.exclude_distinct_ids),
        array("excluded_libs", "STRING", settings.exclude_libs),
    ]
