"""BigQuery's functions in the emulator, which it makes once and keeps in a file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import duckdb
import pytest
from local_bigquery.sql import native

from sandbox.functions import attach_functions

if TYPE_CHECKING:
    from pathlib import Path


def last_of_an_array(folder: Path | None) -> object:
    """What one of the functions answers in a new database; it calls another one."""
    with duckdb.connect() as connection:
        native.register(connection)
        attach_functions(connection, folder)
        with pytest.raises(duckdb.Error, match="ARRAY_LAST cannot get"):
            connection.execute("SELECT bq.main.array_last([])").fetchall()
        return connection.execute("SELECT bq.main.array_last([1, 2])").fetchall()


def test_functions_are_made_once_in_a_folder(tmp_path: Path) -> None:
    """The next emulator attaches the file of the first one; without a folder there is no file."""
    assert last_of_an_array(None) == [(2,)]
    assert last_of_an_array(tmp_path) == [(2,)]
    (file,) = tmp_path.iterdir()
    made = file.stat()
    assert last_of_an_array(tmp_path) == [(2,)]
    (again,) = tmp_path.iterdir()
    assert (again, again.stat().st_ino, again.stat().st_mtime_ns) == (
        file,
        made.st_ino,
        made.st_mtime_ns,
    )
