"""FOR SYSTEM_TIME AS OF on databases of DuckDB's own. Written for local-bigquery 0.3.2."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Concatenate

from local_bigquery.engine import database
from local_bigquery.errors import BigQueryError
from local_bigquery.jobs import query
from local_bigquery.sql import translate
from local_bigquery.sql.dialect import DuckDBDialect
from local_bigquery.sql.rules import tables
from sqlglot import exp

from sandbox.fast.past import Past, PastError

if TYPE_CHECKING:
    from collections.abc import Callable

    from sandbox.fast.cursors import Cursor

_cursor: ContextVar[Cursor | None] = ContextVar("cursor", default=None)  # of the job


def keep_the_past(past: Past) -> None:
    """Let queries read what tables were."""
    query.execute = _reading(query.execute, past)
    place = translate.NODE_RULES.index(tables.time_travel)
    translate.NODE_RULES[place] = _time_travel(past)


def _reading[**P, T](
    execute: Callable[Concatenate[Cursor, P], T], past: Past
) -> Callable[Concatenate[Cursor, P], T]:
    def executed(cursor: Cursor, /, *args: P.args, **kwargs: P.kwargs) -> T:
        token = _cursor.set(cursor)
        try:
            with past.reading():
                return execute(cursor, *args, **kwargs)
        finally:
            _cursor.reset(token)

    return executed


def _time_travel(past: Past) -> Callable[[exp.Expression, Any], exp.Expression]:
    def time_travel(node: exp.Expression, context: Any) -> exp.Expression:  # noqa: ANN401
        """A table as of a time is replaced by one that holds what it held then."""
        if not isinstance(node, exp.Table) or not (version := node.args.get("version")):
            return node
        cursor = _checked_cursor(node)
        node.set("version", None)
        moment = _moment(version.expression, node, context, cursor)
        try:
            found = past.as_of((node.catalog, node.db, node.name), moment)
        except PastError as error:
            reason = "invalidQuery"
            raise BigQueryError(reason, str(error)) from error
        for key, part in zip(("catalog", "db", "this"), found, strict=True):
            node.set(key, exp.to_identifier(part, quoted=True))
        return node

    return time_travel


def _checked_cursor(table: exp.Table) -> Cursor:
    """Refuse what would be wrong: it is right in a statement that runs now, in no transaction."""
    cursor, root = _cursor.get(), table.root()
    is_stored = isinstance(root, exp.Create) and root.args["kind"] != "TABLE"
    is_table = any(
        kind == "TABLE" for _, kind, _ in database.objects(table.catalog, table.db, table.name)
    )
    if cursor is None or cursor.is_in_transaction or is_stored or not is_table:
        reason = "invalidQuery"
        message = "FOR SYSTEM_TIME AS OF is for tables in a query, outside transactions, here."
        raise BigQueryError(reason, message)
    return cursor


def _moment(
    time: exp.Expression,
    table: exp.Table,
    context: Any,  # noqa: ANN401
    cursor: Cursor,
) -> int:
    """Evaluate the time, in microseconds since 1970."""
    sql = exp.select(exp.func("epoch_us", exp.cast(time, "TIMESTAMPTZ"))).sql(DuckDBDialect)
    own = {each.name for each in time.find_all(exp.Placeholder)}
    bound = {name: value for name, value in context.values.items() if name in own}
    elsewhere = {each.name for each in table.root().find_all(exp.Placeholder, exp.Parameter)}
    context.used.difference_update(own - elsewhere)
    found: list[tuple[int | None]] = cursor.sql(sql, params=bound).fetchall()
    moment = found[0][0]
    if moment is None:
        reason = "invalidQuery"
        raise BigQueryError(reason, "FOR SYSTEM_TIME AS OF expression must not be NULL")
    return moment
