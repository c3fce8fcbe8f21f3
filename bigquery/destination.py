"""Creates missing datasets, tables and views. Knows none by name."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from bigquery.refusals import classified
from bigquery.retries import HTTP_SECONDS, call, retry, start, wait_for
from runs.errors import DestinationError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from google.cloud import bigquery

    from bigquery.tables import Field, TableId, TableSchema
    from bigquery.warehouse import Warehouse


def find_table(warehouse: Warehouse, table: TableId) -> bigquery.Table | None:
    """The table as BigQuery has it; None if it does not exist."""
    from google.api_core.exceptions import NotFound

    with classified(f"table {table}", DestinationError):
        try:
            return call(warehouse, partial(warehouse.clients.bigquery.get_table, str(table)))
        except NotFound:
            return None


def list_rows(warehouse: Warehouse, table: TableId) -> list[dict[str, Any]] | None:
    """The rows of a small table, by a request that bills nothing; None where there is no table."""
    found = find_table(warehouse, table)
    if found is None:
        return None
    client = warehouse.clients.bigquery

    def rows() -> list[dict[str, Any]]:
        listed = client.list_rows(found, retry=retry(), timeout=HTTP_SECONDS)
        return [dict(row.items()) for row in listed]

    with classified(f"table {table}", DestinationError):
        return wait_for(warehouse, start(rows))


def ensure_dataset(warehouse: Warehouse, dataset_id: str | None = None) -> None:
    """Create the destination dataset, or a job's own, if it is missing."""
    from google.api_core.exceptions import NotFound
    from google.cloud import bigquery

    client, name = (
        warehouse.clients.bigquery,
        dataset_id or warehouse.settings.aggregated_dataset_id,
    )
    dataset = bigquery.Dataset(bigquery.DatasetReference(warehouse.settings.project_id, name))
    dataset.location = warehouse.settings.location
    with classified(f"the destination dataset {name}", DestinationError):
        try:  # looked for first: a run may lack the role to create one
            call(warehouse, partial(client.get_dataset, dataset.reference))
        except NotFound:
            call(warehouse, partial(client.create_dataset, dataset, exists_ok=True))


def ensure_view(warehouse: Warehouse, name: str, sql: str, schema: TableSchema) -> None:
    """Create the view if it is missing, and update it if its statement differs."""
    from google.api_core.exceptions import NotFound
    from google.cloud import bigquery

    client, view = warehouse.clients.bigquery, warehouse.table(name)
    wanted = bigquery.Table(str(view))
    wanted.view_query = sql
    wanted.description = schema.description
    columns = [schema_field(each) for each in schema.fields]
    with classified(f"view {view}", DestinationError):
        try:
            found = call(warehouse, partial(client.get_table, str(view)))
        except NotFound:
            found = call(warehouse, partial(client.create_table, wanted, exists_ok=True))
        _check_kind(view, found, "VIEW")
        if found.view_query != sql or _described(found.schema) != _described(columns):
            wanted.schema = columns
            call(
                warehouse,
                partial(client.update_table, wanted, ["view_query", "schema", "description"]),
            )


def _described(columns: Iterable[bigquery.SchemaField]) -> list[tuple[str, str, str | None]]:
    return [(each.name, _standard(each.field_type), each.description) for each in columns]


def ensure_table(
    warehouse: Warehouse, table: TableId, schema: TableSchema
) -> tuple[bool, bigquery.Table]:
    """Create the table or add its new columns; returns it, and whether it was created."""
    return _ensured(warehouse, table, schema, find_table(warehouse, table))


def ensure_tables(
    warehouse: Warehouse, schemas: Mapping[TableId, TableSchema]
) -> dict[TableId, tuple[bool, bigquery.Table]]:
    """The same for several tables, which are looked for at once."""
    looks = {table: start(partial(find_table, warehouse, table)) for table in schemas}
    found = {table: wait_for(warehouse, look) for table, look in looks.items()}
    return {
        table: _ensured(warehouse, table, schema, found[table]) for table, schema in schemas.items()
    }


def _ensured(
    warehouse: Warehouse, table: TableId, schema: TableSchema, found: bigquery.Table | None
) -> tuple[bool, bigquery.Table]:
    from google.api_core.exceptions import PreconditionFailed

    if found is None:
        return True, _create(warehouse, table, schema)
    try:
        _add_columns(warehouse, table, found, schema)
    except PreconditionFailed:  # it has changed since, perhaps by this very request
        return ensure_table(warehouse, table, schema)
    return False, found


def _create(warehouse: Warehouse, table: TableId, schema: TableSchema) -> bigquery.Table:
    from google.cloud import bigquery

    wanted = bigquery.Table(str(table), schema=[schema_field(each) for each in schema.fields])
    wanted.description = schema.description
    if schema.partitioned_by:
        wanted.time_partitioning = bigquery.TimePartitioning(field=schema.partitioned_by)
    wanted.clustering_fields = list(schema.clustered_by) or None
    client = warehouse.clients.bigquery
    return call(warehouse, partial(client.create_table, wanted, exists_ok=True))


def _add_columns(
    warehouse: Warehouse, table: TableId, found: bigquery.Table, schema: TableSchema
) -> None:
    _check_kind(table, found, "TABLE")
    _check_columns(table, found.schema, schema.fields)
    stored = {column.name for column in found.schema}
    missing = [each for each in schema.fields if each.name not in stored]
    if missing:
        found.schema = [*found.schema, *(schema_field(each) for each in missing)]
        call(warehouse, partial(warehouse.clients.bigquery.update_table, found, ["schema"]))


def _check_kind(table: TableId, found: bigquery.Table, kind: str) -> None:
    if found.table_type != kind:
        message = (
            f"{table} is a {found.table_type} and should be a {kind}: rename or drop it, and run"
            " again."
        )
        raise DestinationError(message)


def _check_columns(
    table: TableId,
    stored: Iterable[bigquery.SchemaField],
    wanted: Iterable[Field],
    within: str = "",
) -> None:
    """Raise DestinationError for a column, or a field of one, that rows can't be written to."""
    fields = {field.name: field for field in wanted}
    for column in stored:
        field, name = fields.get(column.name), f"{within}{column.name}"
        is_now = _kind(column.mode, column.field_type)
        if field is not None:
            should_be = _kind("REPEATED" if field.is_repeated else "NULLABLE", field.type)
        else:  # somebody's own, which no row of ours has
            should_be = is_now.replace("REQUIRED", "NULLABLE")
        if is_now != should_be:
            message = (
                f"Column {name} of table {table} is {is_now} and should be "
                f"{should_be}: rename or drop the table, and run again."
            )
            raise DestinationError(message)
        if field is not None:
            _check_columns(table, column.fields, field.fields, f"{name}.")


def _kind(mode: str, type_: str) -> str:
    return f"{_standard(type_)} {mode}"


def _standard(type_: str) -> str:
    legacy = {"INTEGER": "INT64", "FLOAT": "FLOAT64", "BOOLEAN": "BOOL", "STRUCT": "RECORD"}
    return legacy.get(type_, type_)


def schema_field(wanted: Field) -> bigquery.SchemaField:
    """A column, as the client describes it."""
    from google.cloud import bigquery

    return bigquery.SchemaField(
        wanted.name,
        wanted.type,
        mode="REPEATED" if wanted.is_repeated else "NULLABLE",
        description=wanted.description,
        fields=[schema_field(each) for each in wanted.fields],
    )
