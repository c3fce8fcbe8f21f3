"""Every statement of the API jobs is valid GoogleSQL, and reads no partition without need."""

from __future__ import annotations

import inspect
import re
from typing import TYPE_CHECKING, Any

import pytest

from apis import publication
from runs.lease_sql import create_lease_sql
from tests.apis.statements import LEASE, TABLES, statements
from tests.googlesql import Analyzer, Sent

if TYPE_CHECKING:
    from apis.tables import Field


def full_name(name: str) -> str:
    """The name of a table as SQL writes it."""
    return f"`p`.`d`.`{name}`"


def scalar_type(kind: str) -> dict[str, Any]:
    """A scalar type as ZetaSQL describes it."""
    return {"type_kind": f"TYPE_{ {'FLOAT64': 'DOUBLE'}.get(kind, kind) }"}


def array_type(element_type: dict[str, Any]) -> dict[str, Any]:
    """The type of an array, by the type of its elements."""
    return {"type_kind": "TYPE_ARRAY", "array_type": {"element_type": element_type}}


def type_of(field: Field) -> dict[str, Any]:
    """The type of a column as ZetaSQL describes it."""
    return array_type(scalar_type(field.type)) if field.is_repeated else scalar_type(field.type)


STRUCT = {
    "type_kind": "TYPE_STRUCT",
    "struct_type": {
        "field": [
            {"field_name": name, "field_type": scalar_type("STRING")}
            for name in ("trigger", "run_id")
        ]
    },
}
PARAMETERS: dict[str, Any] = {
    "run_id": scalar_type("STRING"),
    "fence": scalar_type("INT64"),
    "seconds": scalar_type("INT64"),
    "triggers": array_type(STRUCT),
    "kinds": array_type(scalar_type("STRING")),
    "watermark": scalar_type("DATE"),
    "organization_id": scalar_type("STRING"),
    "yesterday": scalar_type("DATE"),
}


@pytest.fixture(scope="module")
def analyzer() -> Analyzer:
    """ZetaSQL's analyzer, which knows every table."""
    found = Analyzer()
    for name, schema in TABLES.items():
        columns = {field.name: type_of(field) for field in schema.fields}
        assert found.follow(Sent(table=f"p.d.{name}", columns=columns)) is None
    assert found.follow(Sent(sql=create_lease_sql(full_name(LEASE), "claude_usage"))) is None
    return found


@pytest.mark.parametrize("name", statements())
def test_bigquery_accepts_the_statement(analyzer: Analyzer, name: str) -> None:
    """Google's own analyzer resolves every table, column and parameter."""
    sql = statements(full_name)[name]
    used = {parameter: PARAMETERS[parameter] for parameter in re.findall(r"(?<!@)@(\w+)", sql)
            if parameter in PARAMETERS}  # fmt: skip
    assert analyzer.follow(Sent(sql=sql, parameters=used)) is None


def test_no_statement_is_left_out() -> None:
    """Every function that writes SQL is called for one of the statements."""
    functions = {
        name
        for name, found in inspect.getmembers(publication, inspect.isfunction)
        if name.endswith("_sql") and found.__module__ == publication.__name__
    }
    source = inspect.getsource(statements)
    assert {
        name
        for name in functions
        if f"publication.{name}(" not in source and name not in {"_audit_sql", "window_sql"}
    } == set()


def test_a_window_has_literal_bounds() -> None:
    """So BigQuery reads and locks only the window's partitions of each table."""
    sql = statements()["claude_publish"]
    where = "WHERE activity_date >= DATE '2026-10-14' AND activity_date < DATE '2026-10-21'"
    assert re.findall(r"DELETE FROM \w+\n(.*);", sql) == [where] * 3
