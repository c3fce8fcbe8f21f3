"""The source tables of the sandbox: making them and appending to them, with Google's own client."""

from __future__ import annotations

import io
import json
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow.parquet as pq
from google.api_core.exceptions import NotFound
from google.cloud import bigquery

from sandbox.errors import SandboxError
from sandbox.rows import arrow_table
from sandbox.tables import TABLE_NAMES, schema

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import pyarrow as pa

    from sandbox.tables import PropertiesType, TableName

# One statement with the rows as a parameter is quicker than a staging table up to about this size.
_MAX_PARAMETER_BYTES = 1_000_000


@dataclass(frozen=True, slots=True)
class SourceDatasets:
    """The names of the two source datasets."""

    posthog: str = "posthog_etl"
    firebase: str = "firebase_etl_prod"

    def table_id(self, client: bigquery.Client, table: TableName) -> str:
        """Return the full name of `table` in the client's project."""
        owner, _, name = table.partition("_")
        dataset = self.posthog if owner == "posthog" else self.firebase
        return f"{client.project}.{dataset}.{name}"


def create_tables(
    client: bigquery.Client, datasets: SourceDatasets, *, properties: PropertiesType = "string"
) -> None:
    """Make the datasets and the four tables where missing, events partitioned by day.

    Raises SandboxError when the events table is there already with the other type of `properties`.
    """
    for dataset in (datasets.posthog, datasets.firebase):
        client.create_dataset(dataset, exists_ok=True)
    for name in TABLE_NAMES:
        table = bigquery.Table(datasets.table_id(client, name), schema=schema(name, properties))
        if name == "posthog_events":
            table.time_partitioning = bigquery.TimePartitioning(type_="DAY", field="timestamp")
        made = client.create_table(table, exists_ok=True)
        if name == "posthog_events":
            _check_properties(client.get_table(made), properties)


def stored_properties(client: bigquery.Client, datasets: SourceDatasets) -> PropertiesType | None:
    """Return the type of the events table's `properties`; None where there is no such table."""
    try:
        table = client.get_table(datasets.table_id(client, "posthog_events"))
    except NotFound:
        return None
    return "json" if _type_of(table, "properties") == "JSON" else "string"


def append_rows(
    client: bigquery.Client,
    datasets: SourceDatasets,
    table: TableName,
    rows: Iterable[Mapping[str, object]],
) -> int:
    """Append the rows, all or none, and return their number.

    Keys that a row lacks are null. Dicts and lists become JSON text, times may be ISO text;
    malformed JSON becomes null where the column is JSON, as in PostHog's export.
    """
    target = client.get_table(datasets.table_id(client, table))
    arrow = arrow_table(rows, target.schema, table=str(target.reference))
    _append(client, target, arrow)
    return int(arrow.num_rows)


def append_table(
    client: bigquery.Client, datasets: SourceDatasets, table: TableName, arrow_table: pa.Table
) -> None:
    """Append an Arrow table, all or nothing; columns it lacks are null, JSON travels as text."""
    _append(client, client.get_table(datasets.table_id(client, table)), arrow_table)


def _check_properties(table: bigquery.Table, wanted: PropertiesType) -> None:
    stored = _type_of(table, "properties")
    if stored.lower() != wanted:
        msg = (
            f"{table.reference} has properties as {stored}, not {wanted}: reset the sandbox first."
        )
        raise SandboxError(msg)


def _type_of(table: bigquery.Table, column: str) -> str:
    return next((f.field_type for f in table.schema if f.name == column), "no column")


def _append(client: bigquery.Client, target: bigquery.Table, rows: pa.Table) -> None:
    if rows.num_rows == 0:
        return
    columns = [field for field in target.schema if field.name in rows.column_names]
    if all(field.field_type != "JSON" for field in columns):
        _load(client, rows, str(target.reference), "WRITE_APPEND")
    elif rows.nbytes <= _MAX_PARAMETER_BYTES and all(f.mode != "REPEATED" for f in columns):
        _insert_parameter(client, target, columns, rows)
    else:
        _load_and_parse(client, target, columns, rows)


def _load(client: bigquery.Client, rows: pa.Table, table_id: str, disposition: str) -> None:
    parquet = io.BytesIO()
    pq.write_table(rows, parquet, store_schema=False, compression="zstd")
    size = parquet.tell()
    options = bigquery.ParquetOptions()
    options.enable_list_inference = True
    config = bigquery.LoadJobConfig(
        source_format=bigquery.SourceFormat.PARQUET,
        write_disposition=disposition,
        parquet_options=options,
    )
    client.load_table_from_file(
        parquet, table_id, rewind=True, size=size, job_config=config
    ).result()


def _load_and_parse(
    client: bigquery.Client,
    target: bigquery.Table,
    columns: Sequence[bigquery.SchemaField],
    rows: pa.Table,
) -> None:
    """Load into a staging table, then parse: Parquet can't be loaded into JSON columns."""
    staging = f"{target.project}.{target.dataset_id}.stage_{uuid.uuid4().hex}"
    try:
        _load(client, rows, staging, "WRITE_TRUNCATE")
        values = [_parsed(field, f"`{field.name}`") for field in columns]
        client.query_and_wait(_insert_sql(target, columns, values, f"`{staging}`"))
    finally:
        client.delete_table(staging, not_found_ok=True)


def _insert_parameter(
    client: bigquery.Client,
    target: bigquery.Table,
    columns: Sequence[bigquery.SchemaField],
    rows: pa.Table,
) -> None:
    lines = _json_rows(rows)
    values = [
        _parsed(field, _cast(field, f"JSON_VALUE(line, '$.{field.name}')")) for field in columns
    ]
    parameter = bigquery.ScalarQueryParameter("lines", "STRING", lines)
    client.query_and_wait(
        _insert_sql(target, columns, values, "UNNEST(JSON_QUERY_ARRAY(@lines)) AS line"),
        job_config=bigquery.QueryJobConfig(query_parameters=[parameter]),
    )


def _json_rows(rows: pa.Table) -> str:
    """Return the rows as the text of one JSON array; times as ISO text, nulls left out."""
    known = [{k: v for k, v in row.items() if v is not None} for row in rows.to_pylist()]
    return json.dumps(known, ensure_ascii=False, default=str)


def _cast(field: bigquery.SchemaField, text: str) -> str:
    return text if field.field_type in {"STRING", "JSON"} else f"CAST({text} AS {field.field_type})"


def _parsed(field: bigquery.SchemaField, value: str) -> str:
    if field.field_type != "JSON":
        return value
    return f"SAFE.PARSE_JSON({value}, wide_number_mode => 'round')"


def _insert_sql(
    target: bigquery.Table,
    columns: Sequence[bigquery.SchemaField],
    values: Sequence[str],
    source: str,
) -> str:
    names = ", ".join(f"`{field.name}`" for field in columns)
    return f"INSERT INTO `{target.reference}` ({names})\nSELECT {', '.join(values)}\nFROM {source}"
