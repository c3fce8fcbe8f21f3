"""Staging tables: made by one run for its own use, and expired within a day."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from bigquery.destination import schema_field
from bigquery.jobs import rows_of, run_query, run_statement
from bigquery.refusals import classified
from bigquery.retries import LOG, call
from runs.errors import DestinationError, EtlError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from bigquery.parameters import Parameter
    from bigquery.tables import TableId, TableSchema
    from bigquery.warehouse import Warehouse


def stage_select(
    warehouse: Warehouse,
    name: str,
    sql: str,
    parameters: Sequence[Parameter] = (),
    *,
    layout: str = "",
    refused_as: type[EtlError] = DestinationError,
) -> TableId:
    """A staging table made from a SELECT; it expires in a day, whatever happens to the run."""
    table = warehouse.staging(name)
    run_query(warehouse, name, _create_sql(table, sql, layout), parameters, refused_as=refused_as)
    return table


def stage_script(
    warehouse: Warehouse, step: str, tables: Mapping[str, tuple[str, str]], then: str | None
) -> list[dict[str, Any]]:
    """Make staging tables of a SELECT and a layout each, in order; returns the rows of `then`.

    All in one job, which is faster than one after another.
    """
    statements = [_create_sql(warehouse.staging(name), *each) for name, each in tables.items()]
    with classified(step, DestinationError):
        job = run_statement(
            warehouse, step, ";\n".join([*statements, *([then] if then else [])]) + ";"
        )
        return rows_of(warehouse, job) if then else []


def _create_sql(table: TableId, sql: str, layout: str) -> str:
    expires = datetime.now(UTC) + timedelta(days=1)
    return f"""CREATE OR REPLACE TABLE {table.sql}
{layout}
OPTIONS (expiration_timestamp = TIMESTAMP '{expires:%Y-%m-%d %H:%M:%S}+00')
AS
{sql}"""


def create_staging_table(warehouse: Warehouse, name: str, schema: TableSchema) -> TableId:
    """An empty staging table that load jobs append to."""
    from google.cloud import bigquery

    table = warehouse.staging(name)
    wanted = bigquery.Table(str(table), schema=[schema_field(each) for each in schema.fields])
    wanted.clustering_fields = list(schema.clustered_by) or None
    wanted.expires = datetime.now(UTC) + timedelta(days=1)
    with classified(f"staging table {table}", DestinationError):
        call(warehouse, partial(warehouse.clients.bigquery.create_table, wanted, exists_ok=True))
    return table


def drop_staging(warehouse: Warehouse, tables: Iterable[TableId]) -> None:
    """Drop staging tables; one that can't be dropped expires in a day.

    Errors here are not raised: the run has already succeeded or failed.
    """

    def drop(table: TableId) -> None:
        delete = warehouse.clients.bigquery.delete_table
        call(warehouse, partial(delete, str(table), not_found_ok=True))

    failed: list[BaseException] = []
    try:
        with ThreadPoolExecutor(4) as pool:
            drops = [pool.submit(drop, table) for table in tables]
        failed = [error for each in drops if (error := each.exception())]
    except RuntimeError as error:  # the process ends: no thread is started any more
        failed = [error]
    if failed:
        LOG.warning("staging tables are left to expire: %s", type(failed[0]).__name__)
