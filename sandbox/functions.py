"""BigQuery's functions, as macros of DuckDB: kept in a file, since making them takes 0.4 s.

Written for local-bigquery 0.3.2 and duckdb 1.5.5.
"""

from __future__ import annotations

import functools
import hashlib
import os
from typing import TYPE_CHECKING

import duckdb
from local_bigquery.engine import database
from local_bigquery.sql import native
from local_bigquery.sql.dialect import FUNCTIONS, MACRO

if TYPE_CHECKING:
    from pathlib import Path


def attach_functions(connection: duckdb.DuckDBPyConnection, folder: Path | None) -> None:
    """Attach them from a file of the folder, which is made if it is missing; or make them anew."""
    texts = [path.read_text("utf-8") for path in FUNCTIONS]
    if folder is None:
        connection.execute("ATTACH IF NOT EXISTS ':memory:' AS bq")
        _make(connection, texts)
        return
    code = "\n".join([duckdb.__version__, *texts])
    file = folder / f"functions_{hashlib.sha256(code.encode()).hexdigest()[:16]}.duckdb"
    if not file.exists():
        draft = file.with_suffix(f".{os.getpid()}")
        with duckdb.connect() as maker:
            native.register(maker)
            maker.execute(f"ATTACH '{draft}' AS bq")
            _make(maker, texts)
            maker.execute("CHECKPOINT bq; DETACH bq")
        draft.replace(file)
    connection.execute(f"ATTACH '{file}' AS bq (READ_ONLY)")


def _make(connection: duckdb.DuckDBPyConnection, texts: list[str]) -> None:
    for text in texts:
        connection.execute(MACRO.sub(r"CREATE MACRO bq.main.\1", text))


def use_kept_functions(folder: Path) -> None:
    """Let the emulator's first connection attach them from a file of the folder."""
    connect = database._connect  # noqa: SLF001
    database.FUNCTIONS = []

    @functools.cache
    def connected() -> duckdb.DuckDBPyConnection:
        connection: duckdb.DuckDBPyConnection = connect()
        connection.execute("DETACH bq")
        attach_functions(connection, folder)
        return connection

    database._connect = connected  # noqa: SLF001
