"""Tables and views of the destination follow their declarations; no run is needed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from bigquery.destination import (
    ensure_dataset,
    ensure_table,
    ensure_tables,
    ensure_view,
    find_table,
)
from bigquery.tables import Field, TableSchema
from bigquery.warehouse import Warehouse
from runs.errors import DestinationError
from tests.scenario import Scenario

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bigquery.clients import Clients


@pytest.fixture
def warehouse(clients: Clients) -> Iterator[Warehouse]:
    """A destination dataset with nothing in it."""
    with Scenario(clients=clients) as scenario:
        warehouse = Warehouse(clients=clients, settings=scenario.make_settings(), run_id="r")
        ensure_dataset(warehouse)
        yield warehouse


def schema(**columns: str) -> TableSchema:
    """Columns of whole numbers with these descriptions."""
    fields = [Field(name=name, type="INT64", description=text) for name, text in columns.items()]
    return TableSchema(fields=tuple(fields), description="A table.")


def stored_columns(warehouse: Warehouse, name: str) -> dict[str, str | None]:
    """The columns of a table in BigQuery, with their descriptions."""
    table = find_table(warehouse, warehouse.table(name))
    assert table is not None
    return {column.name: column.description for column in table.schema}


def test_a_table_takes_new_columns_and_descriptions(warehouse: Warehouse) -> None:
    """A column that is no longer declared stays; one of another type is refused, with the remedy.

    With `as_they_are`, as in a dry run, a table is not changed.
    """
    table = warehouse.table("counts")
    ensure_table(warehouse, table, schema(old="Old.", one="One."))
    ensure_tables(warehouse, {table: schema(one="The first.", two="Two.")}, as_they_are=True)
    assert stored_columns(warehouse, "counts") == {"old": "Old.", "one": "One."}
    ensure_table(warehouse, table, schema(one="The first.", two="Two."))
    assert stored_columns(warehouse, "counts") == {
        "old": "Old.",
        "one": "The first.",
        "two": "Two.",
    }
    text = TableSchema(fields=(Field(name="two", type="STRING"),), description="A table.")
    with pytest.raises(DestinationError, match=r"Column two .* drop or rename the column"):
        ensure_table(warehouse, table, text)


def test_a_view_loses_a_column_that_its_query_lost(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Query, columns and descriptions are replaced; once they are right, nothing is sent."""
    ensure_view(warehouse, "shown", "SELECT 1 AS one, 2 AS two", schema(one="One.", two="Two."))
    for _ in range(2):
        ensure_view(warehouse, "shown", "SELECT 3 AS three", schema(three="Three."))
        assert stored_columns(warehouse, "shown") == {"three": "Three."}
        monkeypatch.setattr(warehouse.clients.bigquery, "update_table", None)
        monkeypatch.setattr(warehouse.clients.bigquery, "query", None)
