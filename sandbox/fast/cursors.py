"""Cursors of DuckDB that let the past know what a statement is about to change."""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

    import duckdb

    from sandbox.fast.past import Past, Table

_PART: Final = r'("(?:[^"]|"")*"|\w+)'
_CHANGE: Final = re.compile(
    r"\s*(?:INSERT (?:OR REPLACE )?INTO|UPDATE|DELETE FROM|TRUNCATE TABLE"
    r"|CREATE (?:OR REPLACE )?TABLE|DROP TABLE|ALTER TABLE(?!.* RENAME TO ))"
    r"(?: IF (?:NOT )?EXISTS)?"
    rf" {_PART}(?:\.{_PART})?(?:\.{_PART})?"
)
_NO_CHANGE: Final = re.compile(
    r"\s*(?:\(|(?:SELECT|WITH|FROM|EXPLAIN|USE|SET|LOAD|ATTACH|DETACH|COPY|CREATE"
    r"|DROP (?:VIEW|FUNCTION|MACRO))\b)"
)
# Nobody reads the past of the emulator's own results and of temporary tables.
_WITHOUT_PAST: Final = {"emulator", "temp"}


class Connection:
    """A connection whose cursors are Cursors."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, past: Past) -> None:
        self._connection = connection
        self._past = past

    def cursor(self) -> Cursor:
        """A new one."""
        return Cursor(self._connection.cursor(), self._past)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever DuckDB's has
        return getattr(self._connection, name)


class Cursor:
    """Does what DuckDB's cursors do."""

    def __init__(self, cursor: duckdb.DuckDBPyConnection, past: Past) -> None:
        self._cursor = cursor
        self._past = past
        self._uncommitted: set[Table] | None = None

    @property
    def is_in_transaction(self) -> bool:
        """Whether one was begun and has not ended."""
        return self._uncommitted is not None

    def execute(self, sql: str, parameters: object = None) -> duckdb.DuckDBPyConnection:
        """Run a statement, which keeps what the tables that it changes were before."""
        word = sql.split(None, 1)[0].upper()
        with self._keeping(word, sql):
            done = self._cursor.execute(sql, parameters)
        if word == "BEGIN":
            self._uncommitted = set()
        elif word in ("COMMIT", "ROLLBACK"):
            self._uncommitted = None
        return done

    @contextlib.contextmanager
    def _keeping(self, word: str, sql: str) -> Iterator[None]:
        tables = set() if word in ("BEGIN", "COMMIT", "ROLLBACK") else changed_tables(sql)
        if tables is None:
            self._past.forget()
            yield
            self._past.forget()
        elif word == "COMMIT" and self._uncommitted:
            with self._past.changing(self._uncommitted):
                yield
        elif self._uncommitted is not None:
            yield
            self._uncommitted |= tables
        elif tables:
            with self._past.changing(tables):
                yield
        else:
            yield

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever DuckDB's has
        return getattr(self._cursor, name)


def changed_tables(sql: str) -> set[Table] | None:
    """The tables with a past that the statement changes; None if that can't be told.

    Names are written in full in what the emulator sends to DuckDB, but for temporary tables and
    its own.
    """
    if match := _CHANGE.match(sql):
        database, schema, name = (_unquoted(part) for part in match.groups(""))
        return {(database, schema, name)} if name and database not in _WITHOUT_PAST else set()
    return set() if _NO_CHANGE.match(sql) else None


def _unquoted(part: str) -> str:
    return part[1:-1].replace('""', '"') if part.startswith('"') else part
