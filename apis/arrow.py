"""Rows as a Parquet file in memory, as a load job takes it. Knows no rows in particular."""

from __future__ import annotations

from io import BytesIO
from itertools import batched
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from apis.tables import TableSchema

_CHUNK: Final = 2_000  # rows that are Python objects at a time

_TYPES: Final = {
    "STRING": pa.string(),
    "INT64": pa.int64(),
    "FLOAT64": pa.float64(),
    "DATE": pa.date32(),
    "TIMESTAMP": pa.timestamp("us", tz="UTC"),
    "NUMERIC": pa.decimal128(38, 9),
}


def arrow_schema(schema: TableSchema) -> pa.Schema:
    """The columns of a table, in Arrow's types."""
    return pa.schema(
        [
            (each.name, pa.list_(_TYPES[each.type]) if each.is_repeated else _TYPES[each.type])
            for each in schema.fields
        ]
    )


def parquet_file(rows: Iterable[Mapping[str, Any]], schema: TableSchema) -> BytesIO:
    """A file of all rows, each with every column, positioned at its start.

    Rows are consumed one by one and kept compressed, so a generator of pages can be far larger
    than the memory used here.
    """
    columns, file = arrow_schema(schema), BytesIO()
    with pq.ParquetWriter(file, columns, compression="zstd") as writer:
        for chunk in batched(rows, _CHUNK, strict=False):
            values = {name: [row[name] for row in chunk] for name in columns.names}
            writer.write_table(pa.Table.from_pydict(values, columns))
    file.seek(0)
    return file
