"""Generated files are up to date, and readable for people."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
import yaml

from sessions.data_dictionary import null_rules, tables
from tests import snapshots
from tests.every_statement import listening_to, sql_functions
from tests.shipped import METRIC_TABLE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from bigquery.tables import Field

FILES = snapshots.files()
TABLES = tables(METRIC_TABLE)
OUTDATED = "is not what the code makes: run `make snapshots` and read the difference"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_generated_file_is_up_to_date(path: Path) -> None:
    """A statement or a column's description never changes without a line in the difference."""
    stored = path.read_text("utf-8") if path.exists() else None
    assert stored == FILES[path], f"{path.name} {OUTDATED}"


def test_every_snapshot_is_of_an_existing_statement() -> None:
    """No file is left of a statement that no longer exists."""
    assert {*snapshots.SNAPSHOTS.glob("*.sql")} - FILES.keys() == set(), "run `make snapshots`"


def test_every_function_that_writes_sql_is_in_a_snapshot() -> None:
    """Only readings of columns of unusual types may be left out."""
    functions = sql_functions()
    with listening_to(functions) as called:
        snapshots.statements()
    left_out = functions.keys() - called
    assert {name for name in left_out if not name.startswith("sessions.sources.")} == set()


@pytest.mark.parametrize(
    "name", [name for name, sql in snapshots.statements().items() if re.search(r"^WITH ", sql)]
)
def test_every_line_is_short_or_a_column(name: str) -> None:
    """Up to 120 characters; only one column's whole expression may be longer."""
    lines = snapshots.statements()[name].split("\n")
    assert [line for line in lines if len(line) > 120 and not re.search(r" AS \w+,?$", line)] == []


def test_dbt_sources_list_every_column_and_test_those_that_are_never_null() -> None:
    """They are the tables that people read; `make dbt-parse` has dbt itself read the file."""
    (source,) = yaml.safe_load(FILES[snapshots.DBT_SOURCES])["sources"]
    found = {table["name"]: table for table in source["tables"]}
    assert {*found} == {"sessions", "persons", "daily_activity", "identities"}
    for name, table in found.items():
        columns = {column["name"]: column for column in table["columns"]}
        assert list(columns) == [field.name for field in TABLES[name].fields]
        assert all(column["description"] for column in columns.values())
        never = {key for key, rule in null_rules(METRIC_TABLE, name).items() if rule[:5] == "never"}
        tested = {key for key, each in columns.items() if "not_null" in each.get("data_tests", [])}
        lists = {field.name for field in TABLES[name].fields if field.is_repeated}
        assert tested == never - lists
    assert "unique" in found["sessions"]["columns"][0]["data_tests"]


def fields(found: tuple[Field, ...]) -> Iterator[Field]:
    """All fields, those within RECORDs too."""
    for each in found:
        yield each
        yield from fields(each.fields)


@pytest.mark.parametrize("table", TABLES)
def test_every_column_is_described(table: str) -> None:
    """The descriptions of each column and of the table are whole sentences."""
    schema = TABLES[table]
    described = {each.name: each.description for each in fields(schema.fields)}
    assert [name for name, text in described.items() if not text.endswith(".")] == []
    assert schema.description.endswith(".")
