"""Cursors of DuckDB that report to the past and the lookups what a statement changes."""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING, Any, Final, cast

if TYPE_CHECKING:
    from collections.abc import Iterator

    import duckdb

    from sandbox.fast.lookups import Lookups
    from sandbox.fast.past import Past, Table

ANY_TABLE: Final[Table] = ("*", "*", "*")

_PART: Final = r'("(?:[^"]|"")*"|\w+)'
_CHANGE: Final = re.compile(
    r"\s*(?:INSERT (?:OR REPLACE )?INTO|UPDATE|DELETE FROM|TRUNCATE TABLE"
    r"|CREATE (?:OR REPLACE )?(?:TABLE|VIEW)|DROP (?:TABLE|VIEW)|ALTER TABLE(?!.* RENAME TO ))"
    r"(?: IF (?:NOT )?EXISTS)?"
    rf" {_PART}(?:\.{_PART})?(?:\.{_PART})?"
)
_ROWS: Final = re.compile(r"\s*(?:INSERT|UPDATE|DELETE|TRUNCATE)\b")
_NO_CHANGE: Final = re.compile(
    r"\s*(?:\(|(?:SELECT|WITH|FROM|EXPLAIN|USE|SET|LOAD|ATTACH|DETACH|COPY"
    r"|CREATE|DROP (?:FUNCTION|MACRO))\b)"
)
_CREATE_TEMPORARY: Final = re.compile(r"\s*CREATE (?:OR REPLACE )?TEMP")
_TEMPORARY_TABLES: Final = "SELECT table_name FROM duckdb_tables() WHERE temporary"
# Nobody reads the past of the emulator's own results and of temporary tables.
_WITHOUT_PAST: Final = {"emulator", "temp"}


class Connection:
    """A connection whose cursors are Cursors."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, past: Past, lookups: Lookups) -> None:
        self._connection = connection
        self._past = past
        self._lookups = lookups

    def cursor(self) -> Cursor:
        """A new one."""
        return Cursor(self._connection.cursor(), self._past, self._lookups)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever DuckDB's has
        return getattr(self._connection, name)


class _NoRows:
    """The result of a query that finds nothing."""

    def fetchall(self) -> list[tuple[object, ...]]:
        """No rows."""
        return []


class Cursor:
    """Does what DuckDB's cursors do."""

    def __init__(self, cursor: duckdb.DuckDBPyConnection, past: Past, lookups: Lookups) -> None:
        self._cursor = cursor
        self._past = past
        self._lookups = lookups
        self._has_temporary_tables = False
        self._uncommitted: set[Table] | None = None
        self._redefined: set[Table] = set()  # of the uncommitted, those with more than other rows

    @property
    def is_in_transaction(self) -> bool:
        """Whether one was begun and has not ended."""
        return self._uncommitted is not None

    def execute(self, sql: str, parameters: object = None) -> duckdb.DuckDBPyConnection:
        """Run a statement, having kept what the tables that it changes were before."""
        word = sql.split(None, 1)[0].upper()
        if word in ("BEGIN", "COMMIT", "ROLLBACK"):
            return self._transact(word, sql)
        if _CREATE_TEMPORARY.match(sql):
            self._has_temporary_tables = True
        changed = changed_tables(sql)
        redefined = set() if _ROWS.match(sql) else changed
        if self._uncommitted is None:
            with self._changing(changed, redefined):
                return self._cursor.execute(sql, parameters)
        done = self._cursor.execute(sql, parameters)
        self._uncommitted |= changed
        self._redefined |= redefined
        return done

    def sql(self, sql: str, **options: Any) -> duckdb.DuckDBPyRelation:  # noqa: ANN401 - DuckDB's
        """Return a relation; the emulator changes nothing by one."""
        if sql == _TEMPORARY_TABLES and not self._has_temporary_tables:
            return cast("duckdb.DuckDBPyRelation", _NoRows())  # the list of all tables grows
        return self._cursor.sql(sql, **options)

    def _transact(self, word: str, sql: str) -> duckdb.DuckDBPyConnection:
        committed = self._uncommitted if word == "COMMIT" else None
        with self._changing(committed or set(), self._redefined):
            done = self._cursor.execute(sql)
        self._uncommitted = set() if word == "BEGIN" else None
        self._redefined = set()
        return done

    @contextlib.contextmanager
    def _changing(self, tables: set[Table], redefined: set[Table]) -> Iterator[None]:
        if not tables:
            yield
        elif ANY_TABLE in tables:
            self._past.forget()
            yield
            self._past.forget()
            self._lookups.forget()
        else:
            with_past = {each for each in tables if each[0] not in _WITHOUT_PAST}
            with self._past.changing(with_past) if with_past else contextlib.nullcontext():
                yield
            self._lookups.forget(redefined)
            self._lookups.forget_rows(tables - redefined)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever DuckDB's has
        return getattr(self._cursor, name)


def changed_tables(sql: str) -> set[Table]:
    """The tables that the statement changes, or ANY_TABLE where that is not known.

    The emulator writes names in full in what it sends to DuckDB, but for those of temporary tables
    and some of its own, which are left out here.
    """
    if match := _CHANGE.match(sql):
        database, schema, name = (_unquoted(part) for part in match.groups(""))
        return {(database, schema, name)} if name else set()
    return set() if _NO_CHANGE.match(sql) else {ANY_TABLE}


def _unquoted(part: str) -> str:
    return part[1:-1].replace('""', '"') if part.startswith('"') else part
