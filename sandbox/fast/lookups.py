"""What tables there are and what columns they have, looked up again only after they changed.

The emulator asks DuckDB several times a statement. Written for local-bigquery 0.3.2.
"""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, Any, cast

import duckdb
from local_bigquery.catalog import datasets, names, tabledata, tables
from local_bigquery.engine import database, results
from local_bigquery.engine.database import quote
from local_bigquery.errors import not_found
from local_bigquery.sql.rules import partitions

from sandbox.fast.cursors import KIND, REQUIRED, ROWS
from sandbox.fast.shapes import Shape

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from duckdb import DuckDBPyRelation
    from local_bigquery.models import TableFieldSchema
    from sqlglot import exp

    from sandbox.fast.past import Table

type _Found = list[tuple[str, str, int]]
type _Rows = list[tuple[object, ...]]
type _Fields = list[TableFieldSchema]

_MOST_TABLES = 10_000
_TABLES = "tables"  # of a dataset


class Lookups:
    """Answers by table or dataset, and question; they hold until what they are about changes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._answers: dict[tuple[str, ...], dict[str, object]] = {}
        self._changes = 0
        # All tables there are, and some that were; None if others have been made.
        self._made: set[tuple[str, ...]] | None = set()

    def answer[T](self, table: tuple[str, ...], question: str, ask: Callable[[], T]) -> T:
        """The answer that is known, or what `ask` returns."""
        with self._lock:
            changes, answers = self._changes, self._answers.get(table, {})
            if question in answers:
                return cast("T", answers[question])
        answer = ask()
        with self._lock:
            if changes == self._changes:  # or it may be from before a change
                if len(self._answers) > _MOST_TABLES:
                    self._answers.clear()
                self._answers.setdefault(table, {})[question] = answer
        return answer

    def kind(self, *table: str) -> str | None:
        """TABLE or VIEW; None if there is neither, for which DuckDB looks through all tables."""
        if self._made is not None and table not in self._made:
            return None
        return self.answer(table, KIND, lambda: _kind(*table))

    def row_count(self, *table: str) -> int:
        """How many rows a table has; CatalogException if it does not exist."""
        return self.answer(table, ROWS, lambda: _rows(*table))

    def shape(self, table: Table, ask: Callable[[], DuckDBPyRelation]) -> DuckDBPyRelation:
        """What has the names and types of a table's columns; `ask` returns the relation."""
        if self.kind(*table) != "TABLE":  # a view changes with the tables it reads
            return ask()
        return self.answer(table, "shape", lambda: cast("DuckDBPyRelation", Shape.of(ask())))

    def forget(self, changed: Iterable[Table]) -> None:
        """Call it after these tables have been created, altered or dropped."""
        with self._lock:
            self._changes += 1
            for table in changed:
                if self._made is not None:
                    self._made.add(table)
                self._answers.pop(table, None)
                self._answers.get(table[:2], {}).pop(_TABLES, None)

    def forget_all(self, *, has_new: bool) -> None:
        """Call it after any table may have been changed; `has_new` if any may have been made."""
        with self._lock:
            self._changes += 1
            self._answers.clear()
            if has_new:
                self._made = None

    def learn(self, redefined: Iterable[Table], answers: Mapping[str, object]) -> None:
        """Take answers, by question, from somebody who has just redefined these tables."""
        with self._lock:
            for table in redefined:
                self._answers.setdefault(table, {}).update(answers)

    def forget_rows(self, changed: Iterable[Table]) -> None:
        """Call it after rows of these tables have changed."""
        with self._lock:
            self._changes += 1
            for table in changed:
                self._answers.get(table, {}).pop(ROWS, None)


def ask_once(lookups: Lookups) -> None:
    """Let the emulator's own functions ask `lookups` first."""
    database.fetch = _fetch(database.fetch, lookups)
    database.objects = _objects(database.objects, lookups)
    tables.columns = tabledata.columns = _columns(tables.columns, lookups)
    datasets.exists = _exists(datasets.exists, lookups)
    partitions._hidden = _hidden(partitions._hidden, lookups)  # noqa: SLF001
    results.page = _page(results.page)


def _fetch(slow: Callable[..., _Rows], lookups: Lookups) -> Callable[..., _Rows]:
    def fetch(sql: str, params: list[str] | None = None) -> _Rows:
        if params and sql.endswith("AND NOT is_nullable"):
            return lookups.answer(tuple(params), REQUIRED, lambda: slow(sql, params))
        return slow(sql, params)

    return fetch


def _objects(slow: Callable[..., _Found], lookups: Lookups) -> Callable[..., _Found]:
    def objects(project_id: str, dataset_id: str, table_id: str | None = None) -> _Found:
        if table_id is None:  # nobody looks at how many rows those have
            dataset = (project_id, dataset_id)
            return list(lookups.answer(dataset, _TABLES, lambda: slow(*dataset)))
        table = (project_id, dataset_id, table_id)
        kind = lookups.kind(*table)
        if kind != "TABLE":
            return [(table_id, kind, 0)] if kind else []
        with contextlib.suppress(duckdb.CatalogException):  # dropped since
            return [(table_id, kind, lookups.row_count(*table))]
        return []

    return objects


def _kind(*table: str) -> str | None:
    try:
        database.execute(f"SELECT rowid FROM {quote(*table)} LIMIT 0")
    except duckdb.BinderException:  # a view has no rowid
        return "VIEW"
    except duckdb.CatalogException:
        return None
    return "TABLE"


def _rows(*table: str) -> int:
    found: Any = database.fetch(f"SELECT COUNT(*) FROM (SELECT rowid FROM {quote(*table)})")
    return int(found[0][0])


def _columns(slow: Callable[..., _Fields], lookups: Lookups) -> Callable[..., _Fields]:
    def columns(project_id: str, dataset_id: str, table_id: str) -> _Fields:
        table = tables.physical(project_id, dataset_id, table_id)
        kind = lookups.kind(*table)
        if kind is None:
            error = not_found("Table", names.label(project_id, dataset_id, table_id))
            raise error
        if kind == "VIEW":  # it changes with the tables it reads
            return slow(project_id, dataset_id, table_id)
        ask = lambda: slow(project_id, dataset_id, table_id)  # noqa: E731
        return list(lookups.answer(table, "columns", ask))

    return columns


def _hidden(slow: Callable[[exp.Table], bool], lookups: Lookups) -> Callable[[exp.Table], bool]:
    def hidden(table: exp.Table) -> bool:
        if not (table.catalog and table.db and table.name):
            return slow(table)
        path = (table.catalog, table.db, table.name)
        return lookups.answer(path, "hidden", lambda: _has_ingestion_time(*path))

    return hidden


def _has_ingestion_time(*table: str) -> bool:
    with database.cursor() as cursor:
        try:
            relation = cursor.sql(f"SELECT * FROM {quote(*table)} LIMIT 0")
        except duckdb.CatalogException:
            return False
        return tables.INGESTION_TIME in relation.columns


def _page(slow: Callable[..., results.Page]) -> Callable[..., results.Page]:
    def page(
        cursor: duckdb.DuckDBPyConnection,
        source: str,
        max_results: int | None = None,
        start: int = 0,
        *args: Any,  # noqa: ANN401
    ) -> results.Page:
        if max_results != 0:
            return slow(cursor, source, max_results, start, *args)
        found: Any = cursor.sql(f"SELECT count(*) FROM {source}").fetchone()
        return results.Page([], found[0], str(start) if start < found[0] else None)

    return page


def _exists(slow: Callable[..., bool], lookups: Lookups) -> Callable[..., bool]:
    def exists(project_id: str, dataset_id: str) -> bool:
        def ask() -> bool:
            if not slow(project_id, dataset_id):
                raise LookupError  # not remembered: nothing reports a new dataset
            return True

        try:
            return lookups.answer((project_id, dataset_id), "exists", ask)
        except LookupError:
            return False

    return exists
