"""BigQuery's functions, as macros of DuckDB: kept in a file, since making them takes 0.4 s.

Written for local-bigquery 0.3.2 and duckdb 1.5.5.
"""

from __future__ import annotations

import functools
import hashlib
import os
import tempfile
from pathlib import Path

import duckdb
from local_bigquery.engine import database
from local_bigquery.settings import settings
from local_bigquery.sql import native
from local_bigquery.sql.dialect import FUNCTIONS, MACRO

from sandbox.fast.shared import SHARED


def attach_functions(connection: duckdb.DuckDBPyConnection) -> None:
    """Attach them from a file in the directory that emulators share, or else with the tables.

    The file is made if it is missing. Its name is that of its content.
    """
    texts = [path.read_text("utf-8") for path in FUNCTIONS]
    digest = hashlib.sha256("\n".join([duckdb.__version__, *texts]).encode()).hexdigest()
    folder = Path(os.environ.get(SHARED) or settings.data_dir)
    file = folder / f"functions_{digest[:16]}.duckdb"
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as drafts:  # left behind after a kill
            draft = Path(drafts, "functions")
            _make(draft, texts)
            draft.replace(file)
    connection.execute(f"ATTACH '{file}' AS bq (READ_ONLY)")


def _make(file: Path, texts: list[str]) -> None:
    with duckdb.connect() as maker:
        native.register(maker)
        maker.execute(f"ATTACH '{file}' AS bq")
        for text in texts:
            maker.execute(MACRO.sub(r"CREATE MACRO bq.main.\1", text))
        maker.execute("CHECKPOINT bq; DETACH bq")


def use_kept_functions() -> None:
    """Let the emulator attach them where it would make them; before the first connection."""
    connect = database._connect  # noqa: SLF001
    database.FUNCTIONS = []

    @functools.cache
    def connected() -> duckdb.DuckDBPyConnection:
        connection: duckdb.DuckDBPyConnection = connect()
        connection.execute("DETACH bq")
        attach_functions(connection)
        return connection

    database._connect = connected  # noqa: SLF001
