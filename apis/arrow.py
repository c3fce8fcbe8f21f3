"""Rows as an Arrow table, as a load job reads them from Parquet. Knows no rows in particular."""

from __future__ import annotations

from itertools import batched
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from apis.tables import TableSchema

_CHUNK: Final = 10_000  # rows that are Python objects at a time

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


def arrow_table(rows: Iterable[Mapping[str, Any]], schema: TableSchema) -> pa.Table:
    """The rows, of which each has every column; they are taken in chunks, not all at once."""
    columns = arrow_schema(schema)
    chunks = [
        pa.Table.from_pydict(
            {name: [row[name] for row in chunk] for name in columns.names}, columns
        )
        for chunk in batched(rows, _CHUNK, strict=False)
    ]
    return pa.concat_tables(chunks) if chunks else columns.empty_table()
