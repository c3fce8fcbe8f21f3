"""BigQuery's functions in the emulator, which it makes once and keeps in a file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import duckdb
import pytest
from local_bigquery.settings import settings
from local_bigquery.sql import native

from sandbox.fast.shared import SHARED
from sandbox.functions import attach_functions

if TYPE_CHECKING:
    from pathlib import Path


def last_of_an_array() -> object:
    """What one of the functions answers in a new database; it calls another one."""
    with duckdb.connect() as connection:
        native.register(connection)
        attach_functions(connection)
        with pytest.raises(duckdb.Error, match="ARRAY_LAST cannot get"):
            connection.execute("SELECT bq.main.array_last([])").fetchall()
        return connection.execute("SELECT bq.main.array_last([1, 2])").fetchall()


def test_functions_are_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next emulator attaches the file of the first one, which lies with the tables."""
    monkeypatch.delenv(SHARED)
    monkeypatch.setattr(settings, "data_dir", tmp_path / "data")
    assert last_of_an_array() == [(2,)]
    (file,) = settings.data_dir.iterdir()
    made = file.stat()
    assert last_of_an_array() == [(2,)]
    assert list(settings.data_dir.iterdir()) == [file]
    assert (file.stat().st_ino, file.stat().st_mtime_ns) == (made.st_ino, made.st_mtime_ns)
