"""Where rows of an API go: tables that are made when missing, and staging tables. Knows no API."""

from __future__ import annotations

from typing import TYPE_CHECKING

from apis.arrow import parquet_file
from bigquery.destination import ensure_dataset, ensure_table
from bigquery.loading import start_load
from bigquery.refusals import classified
from bigquery.staging import create_staging_table
from runs.errors import DestinationError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from apis.tables import TableSchema
    from runs.context import Run


def ensure_tables(
    run: Run, dataset: str, schemas: Mapping[str, TableSchema]
) -> dict[str, tuple[str, ...]]:
    """Make the dataset, its tables and their columns where missing; the columns of each table."""
    warehouse = run.warehouse
    ensure_dataset(warehouse, dataset)
    columns: dict[str, tuple[str, ...]] = {}
    for name, schema in schemas.items():
        table = warehouse.table(name, dataset=dataset)
        with classified(f"table {table}", DestinationError):
            _, found = ensure_table(warehouse, table, schema)
        known = {column.name for column in found.schema}
        columns[name] = (*known, *(each.name for each in schema.fields if each.name not in known))
    return columns


def stage_rows(
    run: Run, name: str, rows: Iterable[Mapping[str, Any]], schema: TableSchema, *, part: int = 0
) -> None:
    """Append rows to a staging table of the run, which the first part makes."""
    if name not in run.staged:
        run.staged[name] = create_staging_table(run.warehouse, name, schema)
    file = parquet_file(rows, schema)
    load = start_load(run.warehouse, run.staged[name], file, part=f"{name}_{part}", schema=schema)
    run.add_seconds("load", load())
