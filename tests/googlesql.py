"""Google's own analyzer of GoogleSQL, told what BigQuery knows, and a client that it can follow.

The analyzer is ZetaSQL as WebAssembly: it knows the grammar, types and functions and resolves every
name. What BigQuery checks only when a statement runs (quotas, time travel, transactions) it doesn't
know. A staging table's columns are those of its own CREATE TABLE AS SELECT, as analyzed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from google.auth.credentials import AnonymousCredentials
from google.cloud import bigquery
from zetasql.core.exceptions import ServerError
from zetasql.core.wasm_client import WasmClient
from zetasql.wasi import get_wasm_path
from zetasql.wasi._pb2.zetasql.local_service.local_service_pb2 import (
    AnalyzeRequest,
    AnalyzeResponse,
)
from zetasql.wasi._pb2.zetasql.public import type_pb2

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sandbox.emulator import Endpoints

type Type = Any  # ZetaSQL's TypeProto, or a dict of its fields
type Columns = Mapping[str, Type]

# What BigQuery documents and a statement of ours may use; the analyzer refuses whatever needs
# another feature. Google's list for BigQuery is in GoogleCloudPlatform/zetasql-toolkit.
_FEATURES = (
    "ANALYTIC_FUNCTIONS", "BIGNUMERIC_TYPE", "CREATE_TABLE_CLUSTER_BY", "CREATE_TABLE_NOT_NULL",
    "CREATE_TABLE_PARTITION_BY", "JSON_ARRAY_FUNCTIONS", "JSON_TYPE",
    "JSON_VALUE_EXTRACTION_FUNCTIONS", "NAMED_ARGUMENTS", "NUMERIC_TYPE",
    "V_1_1_FOR_SYSTEM_TIME_AS_OF", "V_1_1_HAVING_IN_AGGREGATE", "V_1_1_LIMIT_IN_AGGREGATE",
    "V_1_1_NULL_HANDLING_MODIFIER_IN_AGGREGATE", "V_1_1_NULL_HANDLING_MODIFIER_IN_ANALYTIC",
    "V_1_1_ORDER_BY_IN_AGGREGATE", "V_1_1_SELECT_STAR_EXCEPT_REPLACE", "V_1_1_WITH_ON_SUBQUERY",
    "V_1_2_CIVIL_TIME", "V_1_2_SAFE_FUNCTION_CALL", "V_1_3_ADDITIONAL_STRING_FUNCTIONS",
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
        self.sent: list[Sent] = []

    def query(self, query: str, *args: Any, **options: Any) -> Any:  # noqa: ANN401 - passed on
        """Send a statement."""
        config = options.get("job_config") or bigquery.QueryJobConfig()
        sent = config.to_api_repr()["query"].get("queryParameters", [])
        types = {parameter["name"]: _sent_type(parameter["parameterType"]) for parameter in sent}
        self.sent.append(Sent(sql=query, parameters=types))
        return super().query(query, *args, **options)

    def create_table(self, table: Any, *args: Any, **options: Any) -> Any:  # noqa: ANN401 - likewise
        """Make a table."""
        columns = {column.name: _column_type(column) for column in table.schema}
        self.sent.append(Sent(table=str(table.reference), columns=columns))
        return super().create_table(table, *args, **options)


class Analyzer:
    """Follows what was sent, in order: statements are analyzed, and `tables` grows with them."""

    def __init__(self) -> None:
        """Load ZetaSQL, which compiles for a quarter of a minute."""
        self._wasm = WasmClient(get_wasm_path())
        self.tables: dict[str, Columns] = {}

    def follow(self, sent: Sent) -> str | None:
        """What is wrong with it, in ZetaSQL's words; None where nothing is."""
        if sent.table:
            self.tables[sent.table] = sent.columns
        try:
            for statement in self._statements(sent):
                self.tables |= _made(statement)
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
