"""How the emulator looks tables and columns up, made quick: it lists all there are each time.

That costs half a millisecond a table, several times a request. Written for local-bigquery 0.3.2;
what DuckDB refuses here falls back to the emulator's own way.
"""

from __future__ import annotations

from contextlib import suppress
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, cast

import duckdb
from local_bigquery.catalog import tables
from local_bigquery.engine import database
from local_bigquery.sql.rules import information_schema
from local_bigquery.sql.translate import STATEMENT_RULES

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from local_bigquery.models import Table

type _Found = list[tuple[str, str, int]]
type _Rows = list[tuple[object, ...]]

# The emulator's own results are in a database of that name; projects are DuckLakes.
_RESULTS_DATABASE = "emulator"
_DAY = 86_400_000_000  # µs
_FIRST_TIME = datetime(2000, 1, 1, tzinfo=UTC)
_TIMES = 2**49  # µs, about 18 years
_answers: ContextVar[dict[object, object] | None] = ContextVar("answers", default=None)


def make_lookups_quick() -> None:
    """Replace the lookups for as long as the process lives."""
    database.fetch = _answered_once(_of_one_table(database.fetch))
    tables.columns = _answered_once(tables.columns)
    STATEMENT_RULES[:] = [_remembering(rule) for rule in STATEMENT_RULES]
    information_schema.VIEWS["PARTITIONS"] = _partitions


def look_up_in_lakes() -> None:
    """Look tables up by name where projects are DuckLakes."""
    database.objects = _with_fallback(database.objects)


def _remembering[**P, T](rule: Callable[P, T]) -> Callable[P, T]:
    """A rule that rewrites a statement, and changes nothing that it could look up twice."""

    def ruled(*args: P.args, **kwargs: P.kwargs) -> T:
        token = _answers.set({})
        try:
            return rule(*args, **kwargs)
        finally:
            _answers.reset(token)

    return ruled


def _answered_once[**P, T](function: Callable[P, T]) -> Callable[P, T]:
    """The same answer again to the same question within a rule."""

    def answered(*args: P.args, **kwargs: P.kwargs) -> T:
        answers = _answers.get()
        if answers is None:
            return function(*args, **kwargs)
        question = (function, repr(args), repr(kwargs))
        if question not in answers:
            answers[question] = function(*args, **kwargs)
        return cast("T", answers[question])

    return answered


def _partitions(project_id: str, dataset_id: str | None) -> tuple[list[str], list[list[object]]]:
    """The view PARTITIONS, with the time of the last modification, which the emulator lacks.

    The time is made from the partition's rows: it changes when they do, and is no real moment.
    """
    columns = [
        *information_schema.IDENTITY,
        "partition_id",
        "total_rows INT64",
        "last_modified_time TIMESTAMP",
        "storage_tier",
    ]
    rows = [
        [*_identity(table), partition_id, total_rows, _time(digest), "ACTIVE"]
        for table in information_schema._tables(project_id, dataset_id)  # noqa: SLF001
        for partition_id, total_rows, digest in _by_day(table)
    ]
    return columns, rows


def _time(digest: int | None) -> object:
    moment = None if digest is None else (_FIRST_TIME + timedelta(microseconds=digest)).isoformat()
    return information_schema._timestamp(moment)  # noqa: SLF001


def _identity(table: Table) -> list[str]:
    reference = table.tableReference
    return [reference.projectId, reference.datasetId, reference.tableId]


def _by_day(table: Table) -> Sequence[tuple[str | None, int, int | None]]:
    """Rows and digest by day, which BigQuery knows without a look at the rows."""
    partitioning = table.timePartitioning
    if partitioning and partitioning.type == "DAY" and partitioning.field:
        at = database.quote(partitioning.field)
        day = f"epoch_us({at}) // {_DAY} - (epoch_us({at}) % {_DAY} < 0)::INT"
        with suppress(duckdb.Error):
            found: list[tuple[str, int, int]] = database.fetch(
                f"""SELECT
                  coalesce(strftime(min({at}), '%Y%m%d'), '__NULL__'), count(*),
                  (sum(hash(t)::HUGEINT) % {_TIMES})::BIGINT
                FROM {tables.name(*_identity(table))} AS t GROUP BY {day} ORDER BY 1"""
            )
            return found
    slow = information_schema._partitions(table)  # noqa: SLF001
    return [(partition_id, count, None) for partition_id, count in slow]


def _of_one_table(fetch: Callable[..., _Rows]) -> Callable[..., _Rows]:
    """Questions about the columns of one table ask for that table alone."""

    def fetched(sql: str, params: list[str] | None = None) -> _Rows:
        if "FROM duckdb_columns()" not in sql or not params:
            return fetch(sql, params)
        if params[0] == _RESULTS_DATABASE:  # no column of results is hidden or must not be null
            return []
        table = database.quote(*params[:3]).replace("'", "''")
        columns = f"""(
          SELECT
            $1 AS database_name, $2 AS schema_name, $3 AS table_name,
            name AS column_name, NOT "notnull" AS is_nullable
          FROM pragma_table_info('{table}')
        )"""
        numbered = sql.replace("duckdb_columns()", columns)
        for number in range(1, len(params) + 1):
            numbered = numbered.replace("?", f"${number}", 1)
        try:
            return fetch(numbered, params)
        except duckdb.CatalogException:  # there is no such table
            return []

    return fetched


def _with_fallback(slow: Callable[..., _Found]) -> Callable[..., _Found]:
    def objects(project_id: str, dataset_id: str, table_id: str | None = None) -> _Found:
        try:
            if project_id != _RESULTS_DATABASE:
                return _in_lake(project_id, dataset_id, table_id)
            if table_id is not None:
                return _result(dataset_id, table_id)
        except duckdb.Error:
            pass
        return slow(project_id, dataset_id, table_id)

    return objects


def _in_lake(project_id: str, dataset_id: str, table_id: str | None) -> _Found:
    """Return name, kind and row count from DuckLake's own catalog, by name."""
    lake = database.quote(f"__ducklake_metadata_{project_id}")
    found: _Found = database.fetch(
        f"""
        WITH present AS (
          SELECT schema_id FROM {lake}.ducklake_schema
          WHERE schema_name = $1 AND end_snapshot IS NULL
        )
        SELECT table_name AS name, 'TABLE', COALESCE(record_count, 0)
        FROM {lake}.ducklake_table
        JOIN present USING (schema_id)
        LEFT JOIN {lake}.ducklake_table_stats USING (table_id)
        WHERE end_snapshot IS NULL AND table_name = COALESCE($2, table_name)
        UNION ALL
        SELECT view_name, 'VIEW', 0
        FROM {lake}.ducklake_view
        JOIN present USING (schema_id)
        WHERE end_snapshot IS NULL AND view_name = COALESCE($2, view_name)
        ORDER BY name
        """,
        [dataset_id, table_id],
    )
    return found


def _result(dataset_id: str, table_id: str) -> _Found:
    name = database.quote(_RESULTS_DATABASE, dataset_id, table_id)
    try:
        ((count,),) = database.fetch(f"SELECT COUNT(*) FROM {name}")
    except duckdb.CatalogException:
        return []
    return [(table_id, "TABLE", count)]
