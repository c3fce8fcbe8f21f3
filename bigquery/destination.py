"""Creates missing datasets, tables and views. Knows none by name."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from bigquery.jobs import run_statement
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
        is_other = found.view_query != sql
        if is_other:  # by a statement, since an update may take no column away
            run_statement(warehouse, "view", replace_view_sql(view.sql, sql))
        if is_other or _described(found.schema) != _described(columns):
            wanted.schema = columns
            call(
                warehouse,
                partial(client.update_table, wanted, ["view_query", "schema", "description"]),
            )


def replace_view_sql(view: str, sql: str) -> str:
    """A statement that gives a view another SELECT, columns more or fewer."""
    return f"CREATE OR REPLACE VIEW {view} AS\n{sql}"


def _described(columns: Iterable[bigquery.SchemaField]) -> list[tuple[str, str, str | None]]:
    return [(each.name, _standard(each.field_type), each.description) for each in columns]


def ensure_table(
    warehouse: Warehouse, table: TableId, schema: TableSchema
) -> tuple[bool, bigquery.Table]:
    """Create the table or bring its columns up to date; returns it, and whether it was created."""
    return _ensured(warehouse, table, schema, find_table(warehouse, table))


def ensure_tables(
    warehouse: Warehouse, schemas: Mapping[TableId, TableSchema], *, as_they_are: bool = False
) -> dict[TableId, tuple[bool, bigquery.Table]]:
    """Create several tables, or bring their columns up to date; they are looked for at once.

    `as_they_are`: leave the columns of a table that exists, if their types are right.
    """
    looks = {table: start(partial(find_table, warehouse, table)) for table in schemas}
    found = {table: wait_for(warehouse, look) for table, look in looks.items()}
    return {
        table: _ensured(warehouse, table, schema, found[table], as_they_are=as_they_are)
        for table, schema in schemas.items()
    }


def _ensured(
    warehouse: Warehouse,
    table: TableId,
    schema: TableSchema,
    found: bigquery.Table | None,
    *,
    as_they_are: bool = False,
) -> tuple[bool, bigquery.Table]:
    from google.api_core.exceptions import PreconditionFailed

    if found is None:
        return True, _create(warehouse, table, schema)
    _check_kind(table, found, "TABLE")
    _check_columns(table, found.schema, schema.fields)
    try:
        if not as_they_are:
            _update_columns(warehouse, found, schema)
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
                f"{should_be}: drop or rename the column, or the table, and run again."
            )
            raise DestinationError(message)
        if field is not None:
            _check_columns(table, column.fields, field.fields, f"{name}.")


def _kind(mode: str, type_: str) -> str:
    return f"{_standard(type_)} {mode}"


def _update_columns(warehouse: Warehouse, found: bigquery.Table, schema: TableSchema) -> None:
    wanted = {each.name: schema_field(each) for each in schema.fields}
    columns = [_with_description(each, wanted.pop(each.name, each)) for each in found.schema]
    columns += wanted.values()
    if columns != found.schema:
        found.schema = columns
        call(warehouse, partial(warehouse.clients.bigquery.update_table, found, ["schema"]))


def _with_description(
    column: bigquery.SchemaField, wanted: bigquery.SchemaField
) -> bigquery.SchemaField:
    """The column as it is, policy tags and fields among it, with the description that is wanted."""
    from google.cloud import bigquery

    if (column.description or "") == (wanted.description or ""):
        return column
    shown = column.to_api_repr() | {"description": wanted.description}
    return bigquery.SchemaField.from_api_repr(shown)


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
