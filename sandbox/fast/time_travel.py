"""FOR SYSTEM_TIME AS OF on databases of DuckDB's own. Written for local-bigquery 0.3.2."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
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
    from collections.abc import Callable, Mapping

    from sandbox.fast.cursors import Cursor
    from sandbox.fast.past import Table

_cursor: ContextVar[Cursor | None] = ContextVar("cursor", default=None)  # of the job


@dataclass(frozen=True, slots=True, kw_only=True)
class AsOf:
    """A table as of a time: `moment` is SQL for it, with these parameters."""

    table: Table
    moment: str
    parameters: frozenset[str]

    def resolve(self, past: Past, values: Mapping[str, object]) -> Table:
        """Return the table that holds what this one held then, for as long as the job runs."""
        cursor = _cursor.get()
        kinds = {kind for _, kind, _ in database.objects(*self.table)}
        if cursor is None or cursor.is_in_transaction or kinds != {"TABLE"}:
            msg = "FOR SYSTEM_TIME AS OF is for tables, and outside transactions, here."
            raise _invalid(msg)
        bound = {name: values[name] for name in self.parameters}
        found: list[tuple[int | None]] = cursor.sql(self.moment, params=bound).fetchall()
        if found[0][0] is None:
            msg = "FOR SYSTEM_TIME AS OF expression must not be NULL"
            raise _invalid(msg)
        try:
            return past.as_of(self.table, found[0][0])
        except PastError as error:
            raise _invalid(str(error)) from error


# Those of the statement that is being translated, which somebody else resolves.
put_off: ContextVar[list[AsOf] | None] = ContextVar("put_off", default=None)


def stand_in(number: int) -> str:
    """The name in a translated statement of a table as of a time that was put off."""
    return f"zzt{number:02}zz"


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
        """Put in the place of a table as of a time one that holds what it held then."""
        if not isinstance(node, exp.Table) or not node.args.get("version"):
            return node
        as_of = _as_of(node, context)
        others = put_off.get()
        if others is None:
            path = as_of.resolve(past, context.values)
        else:
            path = ("", "", stand_in(len(others)))
            others.append(as_of)
        if not node.alias:
            node.set("alias", exp.TableAlias(this=exp.to_identifier(node.name, quoted=True)))
        for key, part in zip(("catalog", "db", "this"), path, strict=True):
            node.set(key, exp.to_identifier(part, quoted=True) if part else None)
        return node

    return time_travel


def _as_of(node: exp.Table, context: Any) -> AsOf:  # noqa: ANN401
    """Take the time out of the statement."""
    root = node.root()
    if isinstance(root, exp.Create) and root.args["kind"] != "TABLE":
        msg = "FOR SYSTEM_TIME AS OF can't be stored for later here."
        raise _invalid(msg)
    time = node.args["version"].expression
    node.set("version", None)
    moment = exp.select(exp.func("epoch_us", exp.cast(time, "TIMESTAMPTZ"))).sql(DuckDBDialect)
    used = {each.name for each in time.find_all(exp.Placeholder)} & context.values.keys()
    elsewhere = {each.name for each in root.find_all(exp.Placeholder, exp.Parameter)}
    context.used.difference_update(used - elsewhere)
    table = (node.catalog, node.db, node.name)
    return AsOf(table=table, moment=moment, parameters=frozenset(used))


def _invalid(message: str) -> BigQueryError:
    return BigQueryError("invalidQuery", message)
