"""Projects as databases of DuckDB's own, in memory, instead of DuckLakes on disk.

Creating tables, looking them up and small changes are what DuckLake is slow at.
Written for local-bigquery 0.3.2 and duckdb 1.5.5.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, cast

import duckdb
from local_bigquery.engine import database
from local_bigquery.engine.database import quote
from local_bigquery.settings import settings
from local_bigquery.sql import native
from local_bigquery.sql.dialect import FUNCTIONS, MACRO

from sandbox.fast.cursors import Connection
from sandbox.fast.past import Past

if TYPE_CHECKING:
    from collections.abc import Callable

type _Found = list[tuple[str, str, int]]

_MEMORY = "ATTACH IF NOT EXISTS ':memory:' AS"


def use_native_databases() -> Past:
    """Before the first connection. Returns the past of what will be in them."""
    connection = _connection()
    past = Past(connection.cursor)
    database.connection = functools.cache(lambda: Connection(connection, past))
    database._attach = _attach  # noqa: SLF001
    database.projects = lambda: sorted(database._attached)  # noqa: SLF001
    database.objects = _objects(database.objects)
    return past


def _connection() -> duckdb.DuckDBPyConnection:
    """What the emulator's own `_connect` makes."""
    connection = duckdb.connect(config={"TimeZone": "UTC"})
    connection.execute(f"{_MEMORY} emulator")
    connection.execute(database.EMULATOR_SCHEMA)
    connection.execute(f"{_MEMORY} bq")
    native.register(connection)
    for path in FUNCTIONS:
        connection.execute(MACRO.sub(r"CREATE MACRO bq.main.\1", path.read_text()))
    _attach(connection, settings.default_project_id)
    default = quote(settings.default_project_id, settings.default_dataset_id)
    connection.execute(f"CREATE SCHEMA IF NOT EXISTS {default}")
    return connection


def _attach(connection: duckdb.DuckDBPyConnection, project_id: str) -> None:
    connection.execute(f"{_MEMORY} {quote(project_id)}")
    database._attached.add(project_id)  # noqa: SLF001


def _objects(slow: Callable[..., _Found]) -> Callable[..., _Found]:
    def objects(project_id: str, dataset_id: str, table_id: str | None = None) -> _Found:
        """Return name, kind and number of rows; of one table without a look at all others."""
        if table_id is None:
            return slow(project_id, dataset_id, table_id)
        name = quote(project_id, dataset_id, table_id)
        try:
            found = database.fetch(f"SELECT COUNT(*) FROM (SELECT rowid FROM {name})")
        except duckdb.BinderException:  # a view has no rowid
            return [(table_id, "VIEW", 0)]
        except duckdb.CatalogException:
            return []
        return [(table_id, "TABLE", cast("int", found[0][0]))]

    return objects
