"""Every statement is GoogleSQL as BigQuery takes it, and reads no partition in vain."""

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


def full(name: str) -> str:
    """A table as it stands in SQL."""
    return f"`p`.`d`.`{name}`"


def simple(kind: str) -> dict[str, Any]:
    """A type as ZetaSQL has it."""
    return {"type_kind": f"TYPE_{ {'FLOAT64': 'DOUBLE'}.get(kind, kind) }"}


def array(element: dict[str, Any]) -> dict[str, Any]:
    """An array of a type."""
    return {"type_kind": "TYPE_ARRAY", "array_type": {"element_type": element}}


def type_of(field: Field) -> dict[str, Any]:
    """The type of a column."""
    return array(simple(field.type)) if field.is_repeated else simple(field.type)


STRUCT = {
    "type_kind": "TYPE_STRUCT",
    "struct_type": {
        "field": [
            {"field_name": name, "field_type": simple("STRING")} for name in ("trigger", "run_id")
        ]
    },
}
PARAMETERS: dict[str, Any] = {
    "run_id": simple("STRING"),
    "fence": simple("INT64"),
    "seconds": simple("INT64"),
    "triggers": array(STRUCT),
    "kinds": array(simple("STRING")),
    "watermark": simple("DATE"),
    "organization_id": simple("STRING"),
    "yesterday": simple("DATE"),
}


@pytest.fixture(scope="module")
def analyzer() -> Analyzer:
    """ZetaSQL, which knows every table."""
    found = Analyzer()
    for name, schema in TABLES.items():
        columns = {field.name: type_of(field) for field in schema.fields}
        assert found.follow(Sent(table=f"p.d.{name}", columns=columns)) is None
    assert found.follow(Sent(sql=create_lease_sql(full(LEASE), "claude_usage"))) is None
    return found


@pytest.mark.parametrize("name", statements())
def test_bigquery_takes_it(analyzer: Analyzer, name: str) -> None:
    """Says Google's own analyzer, with every table, column and parameter resolved."""
    sql = statements(full)[name]
    used = {parameter: PARAMETERS[parameter] for parameter in re.findall(r"(?<!@)@(\w+)", sql)
            if parameter in PARAMETERS}  # fmt: skip
    assert analyzer.follow(Sent(sql=sql, parameters=used)) is None


def test_no_statement_is_left_out() -> None:
    """Every function that writes SQL has a part in one of them."""
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
    """So that BigQuery reads and locks its partitions alone, of every table."""
    sql = statements()["claude_publish"]
    where = "WHERE activity_date >= DATE '2026-10-14' AND activity_date < DATE '2026-10-21'"
    assert re.findall(r"DELETE FROM \w+\n(.*);", sql) == [where] * 3
