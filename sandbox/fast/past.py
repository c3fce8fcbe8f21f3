"""What tables were, for as long as somebody may ask. Knows DuckDB, and nothing of the emulator.

DuckDB's tables have no past, but a transaction goes on seeing them as they were when it began. So
one is begun before each change, and what it sees is copied if it is asked for. Moments are
microseconds since 1970. Written for duckdb 1.5.5.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter, deque
from contextvars import ContextVar
from dataclasses import dataclass, field
from threading import Condition
from typing import TYPE_CHECKING, Final

import duckdb

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

type Table = tuple[str, str, str]  # database, schema and name

_DATABASE: Final = "past"
_MOST_CHANGES: Final = 1000  # an open transaction takes 25 kB
_LONGEST: Final = 600_000_000  # µs
_SECONDS_TO_WAIT: Final = 60.0


class PastError(Exception):
    """The past that was asked for is not known."""


def quoted(table: Table) -> str:
    """The name as SQL."""
    return ".".join('"' + part.replace('"', '""') + '"' for part in table)


def now() -> int:
    """The moment."""
    return time.time_ns() // 1000


@dataclass(slots=True)
class _Version:
    """What a table was until a change: in an open transaction, a copy, or not there at all."""

    table: Table
    until: int = 0
    copy: Table | None = None
    seen_by: _Transaction | None = None


@dataclass(slots=True)
class _Transaction:
    """A transaction that sees tables as they were before one change."""

    cursor: duckdb.DuckDBPyConnection
    versions: list[_Version] = field(default_factory=list)


@dataclass(slots=True)
class _Reading:
    """The tables that a job reads the past of: they do not change until it has ended."""

    tables: set[Table] = field(default_factory=set)


class Past:
    """The past of all tables of a DuckDB."""

    def __init__(
        self, connect: Callable[[], duckdb.DuckDBPyConnection], exists: Callable[[Table], bool]
    ) -> None:
        """`connect` gives a new cursor, `exists` says whether there may be such a table."""
        self._connect = connect
        self._exists = exists
        self._reading: ContextVar[_Reading | None] = ContextVar("reading", default=None)
        self._condition = Condition()
        self._readers: Counter[Table] = Counter()
        self._changing: set[Table] = set()
        self._versions: deque[_Version] = deque()  # by `until`
        self._forgotten_until = 0
        self._copies = 0
        with contextlib.closing(connect()) as cursor:
            cursor.execute(f"ATTACH IF NOT EXISTS ':memory:' AS {_DATABASE}")

    @contextlib.contextmanager
    def changing(self, tables: Collection[Table]) -> Iterator[None]:
        """Keep what the tables are, while the `with` block changes them, unless it fails."""
        with self._alone(tables):
            versions = self._begin(tables)
            moment = now()
            try:
                yield
            except BaseException:
                _close(versions)
                raise
            self._keep(versions, moment)

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """What `as_of` returns within the `with` block is true until its end."""
        reading = _Reading()
        token = self._reading.set(reading)
        try:
            yield
        finally:
            self._reading.reset(token)
            with self._condition:
                self._readers.subtract(reading.tables)
                self._condition.notify_all()

    def as_of(self, table: Table, moment: int) -> Table:
        """The table that holds what `table` held at that moment; PastError if it isn't known."""
        reading = self._reading.get()
        if reading is None:
            msg = "The past of a table is known within a query alone."
            raise PastError(msg)
        with self._condition:
            if table not in reading.tables:
                self._wait(lambda: table not in self._changing)
                reading.tables.add(table)
                self._readers[table] += 1
            if moment < self._forgotten_until:
                msg = f"What {quoted(table)} was is not kept for so long, or by so many changes."
                raise PastError(msg)
            later = (each for each in self._versions if each.until > moment)
            version = next((each for each in later if each.table == table), None)
            return table if version is None else self._copy(version)

    def forget(self) -> None:
        """Forget what all tables were."""
        with self._condition:
            self._drop(len(self._versions))
            self._forgotten_until = now()

    @contextlib.contextmanager
    def _alone(self, tables: Collection[Table]) -> Iterator[None]:
        """Nobody else changes the tables or reads their past."""
        reading = self._reading.get()
        own = reading.tables if reading else set()
        with self._condition:
            self._wait(
                lambda: all(
                    each not in self._changing and self._readers[each] <= (each in own)
                    for each in tables
                )
            )
            self._changing.update(tables)
        try:
            yield
        finally:
            with self._condition:
                self._changing.difference_update(tables)
                self._condition.notify_all()

    def _wait(self, is_free: Callable[[], bool]) -> None:
        if not self._condition.wait_for(is_free, _SECONDS_TO_WAIT):
            msg = "A table is being read or changed for too long."
            raise PastError(msg)

    def _begin(self, tables: Collection[Table]) -> list[_Version]:
        """Begin a transaction that sees the tables, as long as any of them exists."""
        versions = {table: _Version(table) for table in tables}
        found = [table for table in tables if self._exists(table)]
        if found:
            transaction = _Transaction(self._connect())
            transaction.cursor.execute("BEGIN")
            for table in found:
                with contextlib.suppress(duckdb.CatalogException):
                    transaction.cursor.execute(f"SELECT 1 FROM {quoted(table)} LIMIT 0")
                    versions[table].seen_by = transaction
                    transaction.versions.append(versions[table])
            if not transaction.versions:
                transaction.cursor.close()
        return list(versions.values())

    def _keep(self, versions: list[_Version], moment: int) -> None:
        with self._condition:
            moment = max(moment, self._versions[-1].until if self._versions else 0)
            for version in versions:
                version.until = moment
            self._versions.extend(versions)
            old = sum(each.until < moment - _LONGEST for each in self._versions)
            self._drop(max(old, len(self._versions) - _MOST_CHANGES))

    def _drop(self, count: int) -> None:
        dropped = [self._versions.popleft() for _ in range(count)]
        if dropped:
            self._forgotten_until = dropped[-1].until
            _close(dropped)
            with contextlib.closing(self._connect()) as cursor:
                for copy in filter(None, (each.copy for each in dropped)):
                    cursor.execute(f"DROP TABLE {quoted(copy)}")

    def _copy(self, version: _Version) -> Table:
        """Copy what the transaction sees, which ends it."""
        if transaction := version.seen_by:
            for each in transaction.versions:
                self._copies += 1
                each.copy = (_DATABASE, "main", f"{each.table[-1]}@{self._copies}")
                transaction.cursor.execute(
                    f"CREATE TABLE {quoted(each.copy)} AS FROM {quoted(each.table)}"
                )
                each.seen_by = None
            transaction.cursor.execute("COMMIT")
            transaction.cursor.close()
        if version.copy is None:
            msg = f"{quoted(version.table)} did not exist then."
            raise PastError(msg)
        return version.copy


def _close(versions: list[_Version]) -> None:
    for version in versions:
        if version.seen_by:
            version.seen_by.cursor.close()
