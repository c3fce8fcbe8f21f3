"""What a run reads from BigQuery and writes to it. Nothing here decides what a session is."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from io import BytesIO
from typing import TYPE_CHECKING, Final, cast

from bigquery.jobs import fetch, run_job, run_query, run_statement
from bigquery.parameters import scalar
from bigquery.refusals import StatementError, classified
from bigquery.retries import HTTP_SECONDS, ask, repeated, retry, start, watch
from runs.errors import (
    DestinationError,
    EtlError,
    LeaseLostError,
    SourceError,
    SourceMissingError,
    UnavailableError,
)
from runs.lease import (
    Lease,
    create_lease_sql,
    read_lease_sql,
    release_lease_sql,
    renew_lease_sql,
    take_lease_sql,
)
from runs.tables import RUNS
from sessions.persons import IDENTITIES, PERSONS
from sessions.plan import NULL_PARTITION, State, day_counts_sql, ranges_sql
from sessions.sources import FIRESTORE_TIME, TableShape
from sessions.tables import QUARANTINED_SESSIONS, SESSIONS, STATE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    import pandas as pd
    import pyarrow as pa
    from google.cloud import bigquery

    from bigquery.parameters import Parameter
    from bigquery.tables import Field, TableId, TableSchema
    from bigquery.warehouse import Warehouse
    from runs.report import RunReport
    from sessions.plan import Plan
    from sessions.sources import Source

_PUBLISH_ATTEMPTS: Final = 3
_STREAM_SECONDS: Final = 600.0  # for one stream of a batch: far more than it takes
JOB: Final = "sessions"
STATE_TABLE: Final = f"etl_state_{JOB}"
LEASE_TABLE: Final = f"etl_lease_{JOB}"
DESTINATION_TABLES: Final = {
    "sessions": SESSIONS,
    "quarantined_sessions": QUARANTINED_SESSIONS,
    STATE_TABLE: STATE,
    "etl_runs": RUNS,
    "persons": PERSONS,
    "identities": IDENTITIES,
}


def stage_select(
    warehouse: Warehouse,
    name: str,
    sql: str,
    parameters: Sequence[Parameter] = (),
    *,
    layout: str = "",
    blame: type[EtlError] = DestinationError,
) -> TableId:
    """A staging table made of a SELECT; whatever happens to the run, it expires in a day."""
    table = warehouse.staging(name)
    expires = datetime.now(UTC) + timedelta(days=1)
    statement = f"""CREATE OR REPLACE TABLE {table.sql}
{layout}
OPTIONS (expiration_timestamp = TIMESTAMP '{expires:%Y-%m-%d %H:%M:%S}+00')
AS
{sql}"""
    run_query(warehouse, name, statement, parameters, blame=blame)
    return table


def read_shape(warehouse: Warehouse, table: TableId) -> TableShape:
    """The table's real schema. Raises SourceMissingError where there is none to read."""
    with classified(f"the metadata of table {table}", SourceMissingError):
        found = ask(warehouse, partial(warehouse.clients.bigquery.get_table, str(table)))
    partitioning = found.time_partitioning
    is_daily = partitioning is not None and partitioning.type_ == "DAY"
    return TableShape(
        table=table,
        columns={column.name: _type_of(column) for column in found.schema},
        is_table=found.table_type == "TABLE",
        day_partitioned_by=partitioning.field if is_daily else None,
        row_count=found.num_rows or 0,
    )


def _type_of(column: bigquery.SchemaField) -> str:
    if column.mode == "REPEATED":
        return f"ARRAY<{column.field_type}>"
    if {"_seconds", "_nanoseconds"} <= {each.name for each in column.fields}:
        return FIRESTORE_TIME
    return column.field_type


def read_day_counts(warehouse: Warehouse, events: Source) -> dict[str, int]:
    """Rows of the events by partition, `__NULL__` for those without a time."""
    rows = run_query(warehouse, "day_counts", day_counts_sql(events))
    counts = {row["partition_id"]: row["total_rows"] for row in rows if row["total_rows"]}
    # The emulator lists no partition of null times: they are what the table has besides.
    unlisted = events.shape.row_count - sum(counts.values())
    if events.shape.is_table and NULL_PARTITION not in counts and unlisted > 0:
        counts[NULL_PARTITION] = unlisted
    return counts


def ensure_dataset(warehouse: Warehouse) -> None:
    """Create the destination dataset where it is missing."""
    from google.api_core.exceptions import NotFound
    from google.cloud import bigquery

    client, name = warehouse.clients.bigquery, warehouse.settings.aggregated_dataset_id
    dataset = bigquery.Dataset(bigquery.DatasetReference(warehouse.settings.project_id, name))
    dataset.location = warehouse.settings.location
    with classified(f"the destination dataset {name}", DestinationError):
        try:  # looked for first: making one takes a role that a run need not have
            ask(warehouse, partial(client.get_dataset, dataset.reference))
        except NotFound:
            ask(warehouse, partial(client.create_dataset, dataset, exists_ok=True))


def ensure_destination(warehouse: Warehouse) -> tuple[bool, datetime]:
    """Create the tables that are missing, and add columns that are new.

    Returns whether `sessions` was missing until now, and when it was created: which table it is.
    Raises DestinationError where a column exists under another type.
    """
    with classified("the destination tables", DestinationError):
        found = {
            name: _ensure_table(warehouse, warehouse.table(name), schema)
            for name, schema in DESTINATION_TABLES.items()
        }
    is_new, sessions = found["sessions"]
    return is_new, cast("datetime", sessions.created)


def ensure_view(warehouse: Warehouse, name: str, sql: str, schema: TableSchema) -> None:
    """Create the view where it is missing, and bring it up to date where it is another."""
    from google.api_core.exceptions import NotFound
    from google.cloud import bigquery

    client, view = warehouse.clients.bigquery, warehouse.table(name)
    wanted = bigquery.Table(str(view))
    wanted.view_query = sql
    wanted.description = schema.description
    columns = [_schema_field(each) for each in schema.fields]
    with classified(f"view {view}", DestinationError):
        try:
            found = ask(warehouse, partial(client.get_table, str(view)))
        except NotFound:
            found = ask(warehouse, partial(client.create_table, wanted, exists_ok=True))
        if found.view_query != sql or _described(found.schema) != _described(columns):
            wanted.schema = columns
            ask(
                warehouse,
                partial(client.update_table, wanted, ["view_query", "schema", "description"]),
            )


def _described(columns: Iterable[bigquery.SchemaField]) -> list[tuple[str, str, str | None]]:
    return [(each.name, _standard(each.field_type), each.description) for each in columns]


def _ensure_table(
    warehouse: Warehouse, table: TableId, schema: TableSchema
) -> tuple[bool, bigquery.Table]:
    from google.api_core.exceptions import NotFound, PreconditionFailed
    from google.cloud import bigquery

    client = warehouse.clients.bigquery
    try:
        found = ask(warehouse, partial(client.get_table, str(table)))
    except NotFound:
        wanted = bigquery.Table(str(table), schema=[_schema_field(each) for each in schema.fields])
        wanted.description = schema.description
        if schema.partitioned_by:
            wanted.time_partitioning = bigquery.TimePartitioning(field=schema.partitioned_by)
        wanted.clustering_fields = list(schema.clustered_by) or None
        return True, ask(warehouse, partial(client.create_table, wanted, exists_ok=True))
    try:
        _add_columns(warehouse, table, found, schema)
    except PreconditionFailed:  # it has changed since, perhaps by this very request
        return _ensure_table(warehouse, table, schema)
    return False, found


def _add_columns(
    warehouse: Warehouse, table: TableId, found: bigquery.Table, schema: TableSchema
) -> None:
    stored = {column.name: column for column in found.schema}
    for wanted in schema.fields:
        column = stored.get(wanted.name)
        if column is not None and _standard(column.field_type) != wanted.type:
            message = (
                f"Column {wanted.name} of table {table} is {column.field_type} and should be "
                f"{wanted.type}: rename or drop the table, and run again."
            )
            raise DestinationError(message)
    missing = [each for each in schema.fields if each.name not in stored]
    if missing:
        found.schema = [*found.schema, *(_schema_field(each) for each in missing)]
        ask(warehouse, partial(warehouse.clients.bigquery.update_table, found, ["schema"]))


def _standard(type_: str) -> str:
    legacy = {"INTEGER": "INT64", "FLOAT": "FLOAT64", "BOOLEAN": "BOOL", "STRUCT": "RECORD"}
    return legacy.get(type_, type_)


def _schema_field(wanted: Field) -> bigquery.SchemaField:
    from google.cloud import bigquery

    return bigquery.SchemaField(
        wanted.name,
        wanted.type,
        mode="REPEATED" if wanted.is_repeated else "NULLABLE",
        description=wanted.description,
        fields=[_schema_field(each) for each in wanted.fields],
    )


def read_state(warehouse: Warehouse) -> State | None:
    """What the last successful run saw; None before the first."""
    sql = f"""SELECT run_id, metrics_version, sessions_created_at, days
FROM {warehouse.table(STATE_TABLE).sql}"""
    rows = run_query(warehouse, "state", sql, blame=DestinationError)
    if not rows:
        return None
    days = {day["partition_id"]: day["row_count"] for day in rows[0].pop("days")}
    return State(days=days, **rows[0])


def take_lease(warehouse: Warehouse) -> Lease:
    """Try to take the job's lease, once; the lease as it is then, ours or another run's."""
    lease = warehouse.table(LEASE_TABLE).sql
    with suppress(StatementError):  # another first run makes it at this moment
        run_query(warehouse, "lease", create_lease_sql(lease, JOB), blame=DestinationError)
    seconds = scalar("seconds", "INT64", warehouse.settings.lease_seconds)
    parameters = [scalar("run_id", "STRING", warehouse.run_id), seconds]
    # A conflict with another run that takes it: the row says which of the two came first.
    with suppress(StatementError):
        run_query(warehouse, "lease", take_lease_sql(lease), parameters, blame=DestinationError)
    return read_lease(warehouse)


def read_lease(warehouse: Warehouse) -> Lease:
    """The lease as it is."""
    sql = read_lease_sql(warehouse.table(LEASE_TABLE).sql)
    row = run_query(warehouse, "lease", sql, blame=DestinationError)[0]
    triggers = {each["trigger"]: each["run_id"] for each in row.pop("triggers")}
    return Lease(triggers=triggers, **row)


@contextmanager
def _contended(what: str) -> Iterator[None]:
    """Where another run changes the same row, BigQuery rejects one of the two statements."""
    try:
        yield
    except StatementError as error:
        message = f"The row of {what} was changed at the same moment: run again."
        raise UnavailableError(message) from error


def renew_lease(warehouse: Warehouse, fence: int) -> bool:
    """Hold the lease for its full time again; False where it is no longer ours."""
    sql = renew_lease_sql(warehouse.table(LEASE_TABLE).sql)
    parameters = [
        *lease_parameters(warehouse, fence),
        scalar("seconds", "INT64", warehouse.settings.lease_seconds),
    ]
    with _contended("the lease"), classified("the lease", DestinationError):
        renewed = run_statement(warehouse, "lease", sql, parameters)
    return renewed.num_dml_affected_rows == 1


def release_lease(warehouse: Warehouse, fence: int) -> None:
    """Give the lease back, if it is ours."""
    sql = release_lease_sql(warehouse.table(LEASE_TABLE).sql)
    parameters = lease_parameters(warehouse, fence)
    with _contended("the lease"):
        run_query(warehouse, "lease", sql, parameters, blame=DestinationError)


def lease_parameters(warehouse: Warehouse, fence: int) -> list[Parameter]:
    """@run_id and @fence, which tell whose lease it is."""
    return [scalar("run_id", "STRING", warehouse.run_id), scalar("fence", "INT64", fence)]


def publish(warehouse: Warehouse, sql: str, parameters: Sequence[Parameter], *, fence: int) -> None:
    """Run the publishing transaction, again where a concurrent change cancelled it.

    Raises LeaseLostError where the lease is no longer ours: then it did not commit.
    """
    _transact(warehouse, "publish", sql, parameters, fence=fence)


def rebuild(warehouse: Warehouse, sql: str, parameters: Sequence[Parameter], *, fence: int) -> None:
    """Run the transaction that rebuilds the derived tables, likewise."""
    _transact(warehouse, "persons", sql, parameters, fence=fence)


def _transact(
    warehouse: Warehouse, step: str, sql: str, parameters: Sequence[Parameter], *, fence: int
) -> None:
    for attempt in range(1, _PUBLISH_ATTEMPTS + 1):
        try:
            run_query(warehouse, step, sql, parameters, blame=DestinationError)
        except StatementError:
            lease = read_lease(warehouse)
            if step == "publish" and lease.published_run_id == warehouse.run_id:
                return
            if (lease.run_id, lease.fence) != (warehouse.run_id, fence):
                message = f"Another run took the lease over at the step {step}: run again."
                raise LeaseLostError(message) from None
            if attempt == _PUBLISH_ATTEMPTS:
                raise
        else:
            return


def create_staging_table(warehouse: Warehouse, name: str, schema: TableSchema) -> TableId:
    """An empty staging table that load jobs append to."""
    from google.cloud import bigquery

    table = warehouse.staging(name)
    wanted = bigquery.Table(str(table), schema=[_schema_field(each) for each in schema.fields])
    wanted.expires = datetime.now(UTC) + timedelta(days=1)
    with classified(f"staging table {table}", DestinationError):
        ask(warehouse, partial(warehouse.clients.bigquery.create_table, wanted, exists_ok=True))
    return table


@dataclass(frozen=True, slots=True, kw_only=True)
class Download:
    """A batch as an Arrow-backed frame, its rows in any order, and what a reader should know."""

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
    """Start downloading one batch of a staging table; call to wait for it.

    `empty`: columns that are null throughout, by type, which are added and not downloaded.
    """
    outcome = start(lambda: _download(warehouse, table, batch=batch, columns=columns, empty=empty))
    return lambda: watch(warehouse, outcome)


def _download(
    warehouse: Warehouse,
    table: TableId,
    *,
    batch: int,
    columns: Sequence[str],
    empty: Mapping[str, str],
) -> Download:
    """By the Storage Read API; where that is not allowed by REST."""
    import pandas as pd
    import pyarrow as pa
    from google.api_core.exceptions import PermissionDenied

    warning, started = None, time.monotonic()
    with classified(f"the download of batch {batch}", SourceError):
        try:
            rows = repeated(
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
    """Start appending rows to a staging table by a Parquet load job; call to wait.

    Returns the seconds that it took.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq
    from google.cloud import bigquery

    client = warehouse.clients.bigquery
    options = bigquery.ParquetOptions()
    options.enable_list_inference = True
    config = bigquery.LoadJobConfig(
        schema=[_schema_field(each) for each in schema.fields],
        source_format="PARQUET",
        write_disposition="WRITE_APPEND",
        labels={"app": "posthog-etl", "step": "load"},
    )
    config.parquet_options = options
    file = BytesIO()
    sessions = pa.Table.from_pandas(rows, preserve_index=False)
    pq.write_table(sessions, file, compression="zstd")  # chosen in docs/performance.md
    size = file.tell()

    def submit(job_id: str) -> bigquery.LoadJob:
        return client.load_table_from_file(
            file,
            str(table),
            rewind=True,
            size=size,
            job_id=job_id,
            location=warehouse.settings.location,
            job_config=config,
            timeout=HTTP_SECONDS,
            num_retries=0,
        )

    def load() -> float:
        started = time.monotonic()
        run_job(warehouse, f"load_{part}", retry()(submit))
        return time.monotonic() - started

    outcome = start(load)

    def finish() -> float:
        with classified(f"the load of batch {part}", DestinationError):
            return watch(warehouse, outcome)

    return finish


def drop_staging(warehouse: Warehouse, tables: Iterable[TableId]) -> None:
    """Drop staging tables that are done with; what can't be dropped now expires in a day."""

    def drop(table: TableId) -> None:
        with suppress(EtlError), classified(f"staging table {table}", DestinationError):
            delete = warehouse.clients.bigquery.delete_table
            ask(warehouse, partial(delete, str(table), not_found_ok=True))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(drop, tables))


def has_rows_of_another_version(warehouse: Warehouse, metrics_version: str) -> bool:
    """Whether `sessions` holds any row that another version of the metrics built."""
    sql = f"""SELECT COUNT(*) AS row_count
FROM {warehouse.table("sessions").sql}
WHERE _metrics_version != @metrics_version"""
    version = scalar("metrics_version", "STRING", metrics_version)
    rows = run_query(warehouse, "versions", sql, [version], blame=DestinationError)
    return bool(rows[0]["row_count"])


def read_times(
    warehouse: Warehouse, events: Source, plan: Plan, now: datetime
) -> tuple[datetime | None, datetime]:
    """The newest event that is not in the future, None where there is none; and BigQuery's time."""
    days = [day for day in plan.known_days if day <= now.date()][-3:]  # the last may be ahead
    event_at = events.column("event_at")
    sql = f"""SELECT MAX({event_at}) AS newest_at, CURRENT_TIMESTAMP() AS asked_at
FROM {events.shape.table.sql}
WHERE {ranges_sql(events, days)} AND {event_at} <= @now"""
    row = run_query(warehouse, "times", sql, [scalar("now", "TIMESTAMP", now)])[0]
    return row["newest_at"], row["asked_at"]


def start_ledger(warehouse: Warehouse, report: RunReport) -> None:
    """Write the run's row, as running."""
    values = _ledger_values(report)
    sql = f"""INSERT INTO {warehouse.table("etl_runs").sql} ({", ".join(values)})
VALUES ({", ".join(f"@{name}" for name in values)})"""
    run_query(warehouse, "ledger", sql, list(values.values()), blame=DestinationError)


def finish_ledger(warehouse: Warehouse, report: RunReport) -> None:
    """Bring the run's row up to date: what came of it."""
    values = _ledger_values(report)
    changes = ", ".join(f"{name} = @{name}" for name in values if name != "run_id")
    sql = f"UPDATE {warehouse.table('etl_runs').sql}\nSET {changes}\nWHERE run_id = @run_id"
    with _contended("the ledger"):
        run_query(warehouse, "ledger", sql, list(values.values()), blame=DestinationError)


def _ledger_values(report: RunReport) -> dict[str, Parameter]:
    texts = {
        "run_id": report.run_id,
        "job": report.job,
        "status": report.status,
        "kind": report.kind,
        "engine": report.engine,
        "error": report.error,
        "report": json.dumps(report.to_json()),
    }
    times = {"started_at": report.started_at, "finished_at": report.finished_at}
    return {
        **{name: scalar(name, "STRING", value) for name, value in texts.items()},
        **{name: scalar(name, "TIMESTAMP", value) for name, value in times.items()},
    }
