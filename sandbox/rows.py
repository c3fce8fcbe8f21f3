"""Rows as dicts, turned into Arrow tables by a BigQuery schema. Pure."""

from __future__ import annotations

import datetime as dt
import json
from typing import TYPE_CHECKING

import pyarrow as pa

from sandbox.errors import SandboxError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from google.cloud.bigquery import SchemaField

_ARROW_TYPES: Mapping[str, pa.DataType] = {
    "STRING": pa.string(),
    "JSON": pa.string(),
    "INT64": pa.int64(),
    "INTEGER": pa.int64(),
    "FLOAT64": pa.float64(),
    "FLOAT": pa.float64(),
    "BOOL": pa.bool_(),
    "BOOLEAN": pa.bool_(),
    "TIMESTAMP": pa.timestamp("us", tz="UTC"),
    "DATETIME": pa.timestamp("us"),
    "DATE": pa.date32(),
}


def arrow_table(
    rows: Iterable[Mapping[str, object]], columns: Sequence[SchemaField], *, table: str
) -> pa.Table:
    """Return the rows in the columns that any of them names; a key that a row lacks is null.

    Times may be ISO text (UTC unless it says otherwise), dicts and lists in a text column become
    JSON text. SandboxError names the table and the column that a row does not fit.
    """
    listed = list(rows)
    by_name = {column.name: column for column in columns}
    named = dict.fromkeys(name for row in listed for name in row)
    unknown = [name for name in named if name not in by_name]
    if unknown:
        msg = f"The table {table} has no column {', '.join(unknown)}: it has {', '.join(by_name)}."
        raise SandboxError(msg)
    arrays = {name: _array(listed, by_name[name], table) for name in named}
    return pa.table(arrays, schema=pa.schema([(n, a.type) for n, a in arrays.items()]))


def _array(
    rows: Sequence[Mapping[str, object]], column: SchemaField, table: str
) -> pa.Array[pa.Scalar[pa.DataType]]:
    arrow_type = _ARROW_TYPES.get(column.field_type)
    if arrow_type is None:
        msg = f"Column {column.name} of {table} is {column.field_type}, which can't be filled."
        raise SandboxError(msg)
    repeated = column.mode == "REPEATED"
    convert = _CONVERTERS.get(column.field_type)
    values = [row.get(column.name) for row in rows]
    try:
        if convert is not None and not repeated:
            values = [None if value is None else convert(value) for value in values]
        return pa.array(values, pa.list_(arrow_type) if repeated else arrow_type)
    except (pa.ArrowException, TypeError, ValueError) as error:
        msg = f"A row of {table} does not fit column {column.name} {column.field_type}: {error}."
        raise SandboxError(msg) from error


def _json_text(value: object) -> object:
    if isinstance(value, (dict, list)):
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return value


def _moment(value: object) -> object:
    if isinstance(value, str):
        value = dt.datetime.fromisoformat(value)
    if isinstance(value, dt.datetime) and value.tzinfo is None:
        return value.replace(tzinfo=dt.UTC)
    return value


def _wall_time(value: object) -> object:
    return dt.datetime.fromisoformat(value) if isinstance(value, str) else value


def _day(value: object) -> object:
    return dt.date.fromisoformat(value) if isinstance(value, str) else value


_CONVERTERS: Mapping[str, Callable[[object], object]] = {
    "STRING": _json_text,
    "JSON": _json_text,
    "TIMESTAMP": _moment,
    "DATETIME": _wall_time,
    "DATE": _day,
}
