"""Cursors of DuckDB that report to the past and the lookups what a statement changes."""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

from sandbox.fast.shapes import planned

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import duckdb

    from sandbox.fast.lookups import Lookups
    from sandbox.fast.past import Past, Table

ANY_TABLE: Final[Table] = ("*", "*", "*")
ANY_OLD_TABLE: Final[Table] = ("*", "*", "")  # and none is new
# Questions that the lookups have answers to.
KIND: Final = "kind"  # TABLE or VIEW
REQUIRED: Final = "required"  # columns that must not be null: a list of rows
ROWS: Final = "rows"  # how many

_PART: Final = r'("(?:[^"]|"")*"|\w+)'
_CHANGE: Final = re.compile(
    r"\s*(?:INSERT (?:OR REPLACE )?INTO|UPDATE|DELETE FROM|TRUNCATE TABLE"
    r"|CREATE (?:OR REPLACE )?(?:TABLE|VIEW)|DROP (?:TABLE|VIEW)|ALTER TABLE(?!.* RENAME TO ))"
    r"(?: IF (?:NOT )?EXISTS)?"
    rf" {_PART}(?:\.{_PART})?(?:\.{_PART})?"
)
_CREATE: Final = re.compile(
    rf"\s*CREATE (?:OR REPLACE )?(TABLE|VIEW)(?: {_PART}\.{_PART}\.{_PART}( AS ))?"
)
_CHANGE_OF_ROWS: Final = re.compile(r"\s*(?:INSERT|UPDATE|DELETE|TRUNCATE)\b")
_DROP_SCHEMA: Final = re.compile(r"\s*DROP SCHEMA\b")
_NO_CHANGE: Final = re.compile(
    r"\s*(?:\(|(?:SELECT|WITH|FROM|EXPLAIN|USE|SET|LOAD|ATTACH|DETACH|COPY"
    r"|CREATE|DROP (?:FUNCTION|MACRO))\b)"
)
_CREATE_TEMPORARY: Final = re.compile(r"\s*CREATE (?:OR REPLACE )?TEMP")
_SHAPE: Final = re.compile(rf"SELECT \* FROM {_PART}\.{_PART}\.{_PART} LIMIT 0")
_COUNT: Final = re.compile(rf"SELECT count\(\*\) FROM {_PART}\.{_PART}\.{_PART}")
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


@dataclass(frozen=True, slots=True)
class _Result:
    """The result of a query that nobody has to run."""

    rows: list[tuple[object, ...]]

    def fetchall(self) -> list[tuple[object, ...]]:
        """All rows."""
        return self.rows

    def fetchone(self) -> tuple[object, ...]:
        """The first row."""
        return self.rows[0]


class Cursor:
    """Does what DuckDB's cursors do."""

    def __init__(self, cursor: duckdb.DuckDBPyConnection, past: Past, lookups: Lookups) -> None:
        self._cursor = cursor
        self._past = past
        self._lookups = lookups
        self._has_temporary_tables = False
        self._uncommitted: set[Table] | None = None
        self._redefined: set[Table] = set()  # of the uncommitted, those with more than other rows
        self._last: tuple[str, object, duckdb.DuckDBPyRelation] | None = None

    @property
    def is_in_transaction(self) -> bool:
        """Whether one was begun and has not ended."""
        return self._uncommitted is not None

    def execute(self, sql: str, parameters: object = None) -> duckdb.DuckDBPyConnection:
        """Run a statement, having kept what the tables that it changes were before."""
        self._last = None  # an unread result would hold the cursor's transaction open
        word = sql.split(None, 1)[0].upper()
        if word in ("BEGIN", "COMMIT", "ROLLBACK"):
            return self._transact(word, sql)
        if _CREATE_TEMPORARY.match(sql):
            self._has_temporary_tables = True
        changed = changed_tables(sql)
        redefined = set() if _CHANGE_OF_ROWS.match(sql) else changed
        if self._uncommitted is None:
            known = definition(sql)
            with self._changing(changed, redefined, known):
                done = self._cursor.execute(sql, parameters)
                if REQUIRED in known:  # the table is made of a query: its result is a number
                    known[ROWS] = done.fetchall()[0][0]
            return done
        done = self._cursor.execute(sql, parameters)
        self._uncommitted |= changed
        self._redefined |= redefined
        return done

    def sql(self, sql: str, **options: Any) -> duckdb.DuckDBPyRelation:  # noqa: ANN401 - DuckDB's
        """Return a relation; the emulator changes nothing by one."""
        if sql == _TEMPORARY_TABLES and not self._has_temporary_tables:
            return cast("duckdb.DuckDBPyRelation", _Result([]))  # the list of all tables grows
        # Both are never asked on a cursor that is in a transaction.
        if match := _SHAPE.fullmatch(sql):
            return self._lookups.shape(_table(match), lambda: self._cursor.sql(sql))
        if (match := _COUNT.fullmatch(sql)) and self._lookups.kind(*_table(match)) == "TABLE":
            count = self._lookups.row_count(*_table(match))
            return cast("duckdb.DuckDBPyRelation", _Result([(count,)]))
        if options.get("params") is None:
            return self._cursor.sql(sql, **options)
        return self._planned(sql, options["params"])

    def _planned(self, sql: str, params: object) -> duckdb.DuckDBPyRelation:
        """A query; the emulator asks for the types of one twice, before it writes its rows."""
        last, self._last = self._last, None
        if last and last[0] == sql and last[1] is params:
            return last[2]
        relation = planned(sql, lambda: self._cursor.sql(sql, params=params))
        self._last = (sql, params, relation)
        return relation

    def _transact(self, word: str, sql: str) -> duckdb.DuckDBPyConnection:
        committed = self._uncommitted if word == "COMMIT" else None
        with self._changing(committed or set(), self._redefined):
            done = self._cursor.execute(sql)
        self._uncommitted = set() if word == "BEGIN" else None
        self._redefined = set()
        return done

    @contextlib.contextmanager
    def _changing(
        self, tables: set[Table], redefined: set[Table], known: Mapping[str, object] | None = None
    ) -> Iterator[None]:
        """Keep what these tables are, and forget what is known of them but for `known`."""
        if not tables:
            yield
        elif tables & {ANY_TABLE, ANY_OLD_TABLE}:
            self._past.forget()
            yield
            self._past.forget()
            self._lookups.forget_all(has_new=ANY_TABLE in tables)
        else:
            with_past = {each for each in tables if each[0] not in _WITHOUT_PAST}
            with self._past.changing(with_past) if with_past else contextlib.nullcontext():
                yield
                self._lookups.forget(redefined)
                self._lookups.forget_rows(tables - redefined)
                if known:
                    self._lookups.learn(redefined, known)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever DuckDB's has
        return getattr(self._cursor, name)


def changed_tables(sql: str) -> set[Table]:
    """The tables that the statement changes; where that is not known, ANY_TABLE or ANY_OLD_TABLE.

    The emulator writes names in full in what it sends to DuckDB, but for those of temporary tables
    and some of its own, which are left out here.
    """
    if match := _CHANGE.match(sql):
        table = _table(match)
        return {table} if table[-1] else set()
    if _DROP_SCHEMA.match(sql):
        return {ANY_OLD_TABLE}
    return set() if _NO_CHANGE.match(sql) else {ANY_TABLE}


def definition(sql: str) -> dict[str, object]:
    """What is known of a table that the statement makes: answers of the lookups, by question."""
    match = _CREATE.match(sql)
    if match is None:
        return {}
    return {KIND: match[1]} | ({REQUIRED: []} if match[1] == "TABLE" and match[5] else {})


def _table(match: re.Match[str]) -> Table:
    database, schema, name = (_unquoted(part) for part in match.groups("")[:3])
    return database, schema, name


def _unquoted(part: str) -> str:
    return part[1:-1].replace('""', '"') if part.startswith('"') else part
