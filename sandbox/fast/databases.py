"""Projects as databases of DuckDB's own, in memory, instead of DuckLakes on disk.

Creating tables, looking them up and small changes are what DuckLake is slow at.
Written for local-bigquery 0.3.2 and duckdb 1.5.5.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import duckdb
from local_bigquery.catalog import tables
from local_bigquery.engine import database
from local_bigquery.engine.database import quote
from local_bigquery.settings import settings
from local_bigquery.sql import native

from sandbox.fast.cursors import Connection
from sandbox.fast.past import Past
from sandbox.functions import attach_functions

if TYPE_CHECKING:
    from collections.abc import Callable

    from sandbox.fast.cursors import Cursor
    from sandbox.fast.lookups import Lookups

_MEMORY = "ATTACH IF NOT EXISTS ':memory:' AS"
# Over a few rows the others cost more than they save: a fifth of a large statement's time.
_OPTIMIZERS = {"common_subexpressions", "filter_pushdown", "unused_columns"}


def use_native_databases(lookups: Lookups) -> Past:
    """Before the first connection. Returns the past of what will be in them."""
    connection = _connection()
    past = Past(connection.cursor, lambda table: lookups.kind(*table) is not None)
    wrapped = Connection(connection, past, lookups)
    database.connection = lambda: wrapped
    database._attach = _attach  # noqa: SLF001
    database.projects = lambda: sorted(database._attached)  # noqa: SLF001
    tables.write = _write(tables.write)
    return past


def _connection() -> duckdb.DuckDBPyConnection:
    """What the emulator's own `_connect` makes."""
    connection = duckdb.connect(config={"TimeZone": "UTC"})
    connection.execute(f"{_MEMORY} emulator")
    connection.execute(database.EMULATOR_SCHEMA)
    native.register(connection)
    attach_functions(connection)
    _attach(connection, settings.default_project_id)
    default = quote(settings.default_project_id, settings.default_dataset_id)
    connection.execute(f"CREATE SCHEMA IF NOT EXISTS {default}")
    _leave_out_optimizers(connection)
    return connection


def _leave_out_optimizers(connection: duckdb.DuckDBPyConnection) -> None:
    names = {name for (name,) in connection.execute("FROM duckdb_optimizers()").fetchall()}
    left_out = ",".join(sorted(names - _OPTIMIZERS))
    connection.execute(f"SET disabled_optimizers = '{left_out}'")


def _attach(connection: duckdb.DuckDBPyConnection, project_id: str) -> None:
    connection.execute(f"{_MEMORY} {quote(project_id)}")
    database._attached.add(project_id)  # noqa: SLF001


def _write(slow: Callable[..., bool]) -> Callable[..., bool]:
    """Results of a session's query are made on another cursor only within its transaction."""

    def write(
        cursor: Cursor,
        *args: Any,  # noqa: ANN401
        isolated: bool = False,
        **kwargs: Any,  # noqa: ANN401
    ) -> bool:
        return slow(cursor, *args, isolated=isolated and cursor.is_in_transaction, **kwargs)

    return write
