"""Generated files are up to date, and so laid out that a person can read them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from sessions.data_dictionary import tables
from tests import snapshots
from tests.shipped import METRIC_TABLE
from tests.test_googlesql import listening_to, sql_functions

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


def test_no_snapshot_is_of_a_statement_that_is_no_more() -> None:
    """Every file is one that would be written."""
    assert {*snapshots.SNAPSHOTS.glob("*.sql")} - FILES.keys() == set(), "run `make snapshots`"


def test_every_function_that_writes_sql_is_in_a_snapshot() -> None:
    """No statement is left out; of the readings of columns, only those of the usual types."""
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


def fields(found: tuple[Field, ...]) -> Iterator[Field]:
    """All of them, those of RECORDs too."""
    for each in found:
        yield each
        yield from fields(each.fields)


@pytest.mark.parametrize("table", TABLES)
def test_every_column_is_described(table: str) -> None:
    """By a sentence that ends, as does the table."""
    schema = TABLES[table]
    described = {each.name: each.description for each in fields(schema.fields)}
    assert [name for name, text in described.items() if not text.endswith(".")] == []
    assert schema.description.endswith(".")
