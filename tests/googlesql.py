"""Google's own GoogleSQL with BigQuery's catalog: an analyzer, an evaluator, a listening client.

It is ZetaSQL as WebAssembly. The analyzer knows the grammar, types and functions and resolves every
name; what BigQuery checks only when a statement runs (quotas, time travel, transactions) it doesn't
know. A staging table's columns are those of its own CREATE TABLE AS SELECT, as analyzed. The
evaluator is Google's reference implementation, over tables in memory.
"""

from __future__ import annotations

import ctypes
import os
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import cache
from typing import TYPE_CHECKING, Any

from google.auth.credentials import AnonymousCredentials
from google.cloud import bigquery
from wasmtime import Config
from zetasql.wasi import get_wasm_path
from zetasql.wasi._pb2.zetasql.local_service.local_service_pb2 import (
    AnalyzeRequest,
    AnalyzeResponse,
    EvaluateQueryRequest,
    EvaluateQueryResponse,
)
from zetasql.wasi._pb2.zetasql.public import type_pb2

from sandbox.locks import FileLock
from tests.paths import COMPILED

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from sandbox.emulator import Endpoints

type Type = Any  # ZetaSQL's TypeProto, or a dict of its fields
type Columns = Mapping[str, Type]
type Value = Any  # ZetaSQL's ValueProto, or a dict of its fields
type Row = dict[str, Any]

# What BigQuery documents and a statement of ours may use; the analyzer refuses whatever needs
# another feature. Google's list for BigQuery is in GoogleCloudPlatform/zetasql-toolkit.
_FEATURES = (
    "ANALYTIC_FUNCTIONS", "BIGNUMERIC_TYPE", "CREATE_TABLE_CLUSTER_BY", "CREATE_TABLE_NOT_NULL",
    "CREATE_TABLE_PARTITION_BY", "JSON_ARRAY_FUNCTIONS", "JSON_TYPE",
    "JSON_VALUE_EXTRACTION_FUNCTIONS", "NAMED_ARGUMENTS", "NUMERIC_TYPE",
    "V_1_1_FOR_SYSTEM_TIME_AS_OF", "V_1_1_HAVING_IN_AGGREGATE", "V_1_1_LIMIT_IN_AGGREGATE",
    "V_1_1_NULL_HANDLING_MODIFIER_IN_AGGREGATE", "V_1_1_NULL_HANDLING_MODIFIER_IN_ANALYTIC",
    "V_1_1_ORDER_BY_IN_AGGREGATE", "V_1_1_SELECT_STAR_EXCEPT_REPLACE", "V_1_1_WITH_ON_SUBQUERY",
    "V_1_2_CIVIL_TIME", "V_1_2_SAFE_FUNCTION_CALL", "V_1_2_WEEK_WITH_WEEKDAY",
    "V_1_3_ADDITIONAL_STRING_FUNCTIONS",
    "V_1_3_CONCAT_MIXED_TYPES", "V_1_3_DATE_ARITHMETICS", "V_1_3_DATE_TIME_CONSTRUCTORS",
    "V_1_3_EXTENDED_DATE_TIME_SIGNATURES", "V_1_3_IS_DISTINCT",
    "V_1_3_NULLS_FIRST_LAST_IN_ORDER_BY", "V_1_3_OMIT_INSERT_COLUMN_LIST", "V_1_3_QUALIFY",
)  # fmt: skip
_STATEMENTS = (
    "ALTER_TABLE", "ASSERT", "BEGIN", "COMMIT", "CREATE_TABLE", "CREATE_TABLE_AS_SELECT",
    "CREATE_VIEW", "DELETE", "DROP", "INSERT", "MERGE", "QUERY", "ROLLBACK", "TRUNCATE", "UPDATE",
)  # fmt: skip
_OPTIONS = {"description": "STRING", "expiration_timestamp": "TIMESTAMP"}
_SYSTEM_VARIABLES = {"row_count": "INT64"}
_PARTITIONS = {
    "table_catalog": "STRING",
    "table_schema": "STRING",
    "table_name": "STRING",
    "partition_id": "STRING",
    "total_rows": "INT64",
    "total_logical_bytes": "INT64",
    "total_billable_bytes": "INT64",
    "last_modified_time": "TIMESTAMP",
    "storage_tier": "STRING",
}
_KINDS = {"BOOLEAN": "BOOL", "FLOAT": "DOUBLE", "FLOAT64": "DOUBLE", "INTEGER": "INT64"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """What went to BigQuery: a statement with its parameters' types, or a new table's columns."""

    sql: str = ""
    parameters: Columns = field(default_factory=dict)
    table: str = ""
    columns: Columns = field(default_factory=dict)


class ListeningClient(bigquery.Client):
    """The real client of an emulator; `sent` is what it has sent, in order."""

    def __init__(self, endpoints: Endpoints) -> None:
        super().__init__(
            project=endpoints.project,
            credentials=AnonymousCredentials(),
            client_options={"api_endpoint": endpoints.rest},
        )
        self._http.headers.update(endpoints.headers)
        self.sent: list[Sent] = []

    def query(self, query: str, *args: Any, **options: Any) -> Any:  # noqa: ANN401 - passed on
        """Send a statement."""
        config = options.get("job_config") or bigquery.QueryJobConfig()
        sent = config.to_api_repr()["query"].get("queryParameters", [])
        types = {parameter["name"]: _sent_type(parameter["parameterType"]) for parameter in sent}
        self.sent.append(Sent(sql=query, parameters=types))
        return super().query(query, *args, **options)

    def create_table(self, table: Any, *args: Any, **options: Any) -> Any:  # noqa: ANN401 - likewise
        """Make a table or view."""
        self.sent.append(_declared(table))
        return super().create_table(table, *args, **options)

    def update_table(self, table: Any, *args: Any, **options: Any) -> Any:  # noqa: ANN401 - likewise
        """Change a table or view."""
        self.sent.append(_declared(table))
        return super().update_table(table, *args, **options)


def _declared(table: bigquery.Table) -> Sent:
    """A view as the statement that makes it, a table with its columns."""
    name = str(table.reference)
    if table.view_query:
        return Sent(sql=f"CREATE OR REPLACE VIEW `{name}` AS\n{table.view_query}")
    return Sent(table=name, columns={each.name: _column_type(each) for each in table.schema})


class _Config(Config):
    """What ZetaSQL is compiled to, which takes half a minute, is kept beside the packages."""

    def __init__(self) -> None:
        super().__init__()
        COMPILED.mkdir(exist_ok=True)
        settings, written = COMPILED / "cache.toml", COMPILED / f"{os.getpid()}.toml"
        written.write_text(f"[cache]\ndirectory = '{COMPILED}'\n", "utf-8")
        written.replace(settings)  # another process may be reading it
        self.cache = str(settings)


class _Memory:
    """A part of ZetaSQL's client: its memory is copied whole and not byte by byte."""

    memory: Any

    def write_bytes(self, ptr: int, data: bytes) -> None:
        """Write into its memory."""
        ctypes.memmove(self._start + ptr, data, len(data))

    def read_bytes(self, ptr: int, size: int) -> bytes:
        """Read from its memory."""
        return ctypes.string_at(self._start + ptr, size)

    @property
    def _start(self) -> int:
        return ctypes.addressof(self.memory.data_ptr().contents)


@cache
def _load() -> Any:  # noqa: ANN401 - it has no types
    """ZetaSQL, compiled by one process while the others wait for it.

    Its client is imported here because that takes a second.
    """
    from zetasql.core import wasm_client

    wasm_client.Config = _Config
    client = type("_Client", (_Memory, wasm_client.WasmClient), {})
    with FileLock(COMPILED.with_suffix(".lock")) as lock:
        lock.acquire()
        return client(get_wasm_path())


class Analyzer:
    """Follows what was sent, in order: statements are analyzed, and `tables` grows with them.

    `made` has each table or view that a statement made, also where a later one took its place.
    """

    def __init__(self) -> None:
        """Load ZetaSQL, once a process."""
        self._wasm = _load()
        self.tables: dict[str, Columns] = {}
        self.made: list[tuple[str, Columns]] = []

    def follow(self, sent: Sent) -> str | None:
        """What is wrong with it, in ZetaSQL's words; None where nothing is."""
        from zetasql.core.exceptions import ServerError  # see `_load`

        if sent.table:
            self.tables[sent.table] = sent.columns
        try:
            for statement in self._statements(sent):
                made = _made(statement)
                self.tables |= made
                self.made += made.items()
        except ServerError as error:
            return str(error.message)
        return None

    def _statements(self, sent: Sent) -> Iterator[Any]:
        text = sent.sql.encode()
        position = 0
        while text[position:].strip():
            request = AnalyzeRequest(
                options=_options(sent.parameters),
                simple_catalog=_catalog(self.tables, sent.sql),
                parse_resume_location={"input": sent.sql, "byte_position": position},
            )
            response = self._wasm.call_grpc_func(
                "ZetaSqlLocalService_Analyze", request, AnalyzeResponse
            )
            yield response.resolved_statement
            position = response.resume_byte_position


class Evaluator:
    """A database of Google's reference implementation: tables with their rows, and SELECTs."""

    def __init__(self) -> None:
        """Load ZetaSQL, once a process."""
        self._wasm = _load()
        self._columns: dict[str, Columns] = {}
        self._contents: dict[str, Any] = {}

    def put(self, table: str, columns: Mapping[str, str], rows: Iterable[Row]) -> None:
        """Make a table of rows: columns by name with their types, text or null in the rows too."""
        self._columns[table] = {name: _type(type_) for name, type_ in columns.items()}
        cells = [[_value(row.get(name), type_) for name, type_ in columns.items()] for row in rows]
        self._contents[table] = {"table_data": {"row": [{"cell": row} for row in cells]}}

    def make(self, table: str, sql: str, **parameters: tuple[str, object]) -> None:
        """Make a table of a SELECT over the others; a parameter is its type and value."""
        found = self._evaluate(sql, parameters)
        self._columns[table] = {each.name: each.type for each in found.prepared.columns}
        self._contents[table] = found.content

    def select(self, sql: str, **parameters: tuple[str, object]) -> list[Row]:
        """The rows of a SELECT, in Python's types."""
        found = self._evaluate(sql, parameters)
        columns = found.prepared.columns
        return [
            {c.name: _python(cell, c.type) for c, cell in zip(columns, row.cell, strict=True)}
            for row in found.content.table_data.row
        ]

    def _evaluate(self, sql: str, parameters: Mapping[str, tuple[str, object]]) -> Any:  # noqa: ANN401 - a protobuf message
        sql = sql.replace("`.`", ".")  # the evaluator's tables have one name alone
        types = {name: _type(type_) for name, (type_, _) in parameters.items()}
        options = _options(types)
        del options["system_variables"]  # a SELECT has none, and they would need values
        named = {name: columns for name, columns in self._columns.items() if name in sql}
        request = EvaluateQueryRequest(
            sql=sql,
            options=options,
            simple_catalog={
                "builtin_function_options": {"language_options": _language()},
                "table": [_table(name, columns) for name, columns in named.items()],
            },
            table_content={name: self._contents[name] for name in named},
            params=[
                {"name": name, "value": _value(value, type_)}
                for name, (type_, value) in parameters.items()
            ],
        )
        return self._wasm.call_grpc_func(
            "ZetaSqlLocalService_EvaluateQuery", request, EvaluateQueryResponse
        )


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FIELDS = {
    "BOOL": "bool_value",
    "FLOAT64": "double_value",
    "INT64": "int64_value",
    "JSON": "json_value",
    "STRING": "string_value",
}


def _value(value: Any, type_: str) -> Value:  # noqa: ANN401 - of any type
    """A value for ZetaSQL; a time may be ISO text, and is UTC where it doesn't say."""
    if value is None:
        return {}
    if type_ == "DATE":
        return {"date_value": (value - _EPOCH.date()).days}
    if type_ == "TIMESTAMP":
        at = datetime.fromisoformat(value) if isinstance(value, str) else value
        at = at if at.tzinfo else at.replace(tzinfo=UTC)
        seconds, rest = divmod(at - _EPOCH, timedelta(seconds=1))
        return {"timestamp_value": {"seconds": seconds, "nanos": rest.microseconds * 1000}}
    return {_FIELDS[type_]: value}


def _python(value: Value, type_: Type) -> object:
    """ZetaSQL's value as BigQuery's client would give it."""
    kind = value.WhichOneof("value")
    if kind == "array_value":
        of = type_.array_type.element_type
        return [_python(each, of) for each in value.array_value.element]
    if kind == "struct_value":
        parts = zip(type_.struct_type.field, value.struct_value.field, strict=True)
        return {of.field_name: _python(each, of.field_type) for of, each in parts}
    if kind == "timestamp_value":
        at = value.timestamp_value
        return _EPOCH + timedelta(seconds=at.seconds, microseconds=at.nanos // 1000)
    if kind == "date_value":
        return date(1970, 1, 1) + timedelta(days=value.date_value)
    return getattr(value, kind) if kind else None


def type_name(type_: Any) -> str:  # noqa: ANN401 - a protobuf message
    """A column's type as `sessions/tables.py` names it; of an array, that of its elements."""
    if type_.type_kind == type_pb2.TYPE_ARRAY:
        type_ = type_.array_type.element_type
    name: str = type_pb2.TypeKind.Name(type_.type_kind).removeprefix("TYPE_")
    return {"DOUBLE": "FLOAT64", "STRUCT": "RECORD"}.get(name, name)


def _column_type(column: bigquery.SchemaField) -> Type:
    type_ = _type(column.field_type)
    if column.field_type in {"RECORD", "STRUCT"}:
        type_ = _struct({each.name: _column_type(each) for each in column.fields})
    return _array(type_) if column.mode == "REPEATED" else type_


def _sent_type(sent: Mapping[str, Any]) -> Type:
    """The type of a query parameter, from its REST representation."""
    if sent["type"] == "ARRAY":
        return _array(_sent_type(sent["arrayType"]))
    if sent["type"] == "STRUCT":
        return _struct({each["name"]: _sent_type(each["type"]) for each in sent["structTypes"]})
    return _type(sent["type"])


def _type(name: str) -> Type:
    return {"type_kind": f"TYPE_{_KINDS.get(name, name)}"}


def _array(element: Type) -> Type:
    return {"type_kind": "TYPE_ARRAY", "array_type": {"element_type": element}}


def _struct(fields: Columns) -> Type:
    named = [{"field_name": name, "field_type": type_} for name, type_ in fields.items()]
    return {"type_kind": "TYPE_STRUCT", "struct_type": {"field": named}}


def _made(statement: Any) -> dict[str, Columns]:  # noqa: ANN401 - a protobuf message
    """The table or view that a statement makes, by name."""
    created = statement.resolved_create_statement_node
    table = created.resolved_create_table_stmt_base_node
    declared = table.resolved_create_table_stmt_node.parent
    selected = table.resolved_create_table_as_select_stmt_node
    viewed = created.resolved_create_view_base_node.resolved_create_view_stmt_node.parent
    found = {
        ".".join(declared.parent.name_path): {
            column.name: column.type for column in declared.column_definition_list
        },
        ".".join(selected.parent.parent.name_path): {
            column.name: column.column.type for column in selected.output_column_list
        },
        ".".join(viewed.parent.name_path): {
            column.name: column.column.type for column in viewed.output_column_list
        },
    }
    return {name: columns for name, columns in found.items() if name}


def _options(parameters: Columns) -> dict[str, Any]:
    return {
        "language_options": _language(),
        "default_timezone": "UTC",
        "error_message_mode": "ERROR_MESSAGE_ONE_LINE",
        "query_parameters": [{"name": n, "type": type_} for n, type_ in parameters.items()],
        "system_variables": [
            {"name_path": [name], "type": _type(type_)} for name, type_ in _SYSTEM_VARIABLES.items()
        ],
        "allowed_hints_and_options": {
            "disallow_unknown_options": True,
            "option": [{"name": name, "type": _type(type_)} for name, type_ in _OPTIONS.items()],
        },
    }


def _language() -> dict[str, Any]:
    return {
        "product_mode": "PRODUCT_EXTERNAL",  # FLOAT64 is no DOUBLE, as in BigQuery
        "enabled_language_features": [f"FEATURE_{name}" for name in _FEATURES],
        "supported_statement_kinds": [f"RESOLVED_{name}_STMT" for name in _STATEMENTS],
        "reserved_keywords": ["QUALIFY"],
    }


def _catalog(tables: Mapping[str, Columns], sql: str) -> dict[str, Any]:
    """The tables by project, dataset and name, and by their whole name as one identifier.

    Only those that the statement may name: those of all runs would take long to pass on.
    """
    partitions = _table("PARTITIONS", {name: _type(type_) for name, type_ in _PARTITIONS.items()})
    information_schema = {"name": "INFORMATION_SCHEMA", "table": [partitions]}
    projects: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for name, columns in tables.items():
        project, dataset, short = name.split(".")
        known = projects.setdefault(project, {}).setdefault(dataset, [])
        if dataset in sql and short in sql:
            known.append(_table(short, columns))
    return {
        "builtin_function_options": {"language_options": _language()},
        "table": [_table(name, columns) for name, columns in tables.items() if name in sql],
        "catalog": [
            {
                "name": project,
                "catalog": [
                    {"name": dataset, "table": known, "catalog": [information_schema]}
                    for dataset, known in datasets.items()
                ],
            }
            for project, datasets in projects.items()
        ],
    }


def _table(name: str, columns: Columns) -> dict[str, Any]:
    named = [{"name": column, "type": type_} for column, type_ in columns.items()]
    return {"name": name, "column": named}


if __name__ == "__main__":  # see tests/conftest.py
    os.nice(19)
    _load()
