"""Statements that differ in names of datasets, runs and days alone are translated once.

A translation follows from the text, the types of its parameters, and what the emulator asks its
catalog meanwhile. So a text is translated with stand-ins for those names (`texts.py`), while the
catalog is asked about the real ones, and is remembered with the catalog's answers. It holds for
another text that has the same stand-ins and gets the same answers. For local-bigquery 0.3.2.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections import OrderedDict
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

import duckdb
from local_bigquery.catalog import metadata, row_access, tables
from local_bigquery.engine import database
from local_bigquery.errors import BigQueryError
from local_bigquery.grpc import read
from local_bigquery.jobs import query
from local_bigquery.models import Table as TableResource
from local_bigquery.sql import script
from local_bigquery.sql.rules import ddl, partitions
from local_bigquery.sql.translate import parse
from sqlglot import exp

from sandbox.fast.past import quoted
from sandbox.fast.shapes import expect, expect_nothing
from sandbox.fast.shared import SHARED, SharedValues
from sandbox.fast.texts import NoStandInsError, Text, Trees, check_places, has_more, real
from sandbox.fast.time_travel import AsOf, put_off, stand_in

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from local_bigquery.resource import Resource

    from sandbox.fast.lookups import Lookups
    from sandbox.fast.past import Past
    from sandbox.fast.shapes import Shape

type _Translated = tuple[str, dict[str, object]]
type _Question = tuple[str, tuple[str, ...]]

_MOST: Final = 3000
_MOST_ANSWERS: Final = 5
# What depends on more than the catalog's answers, or comes but once.
_NEVER: Final = re.compile(
    r"INFORMATION_SCHEMA|__TABLES__|@@|\*`|\b(?:SESSION_USER|CURRENT_USER|EXTERNAL_QUERY"
    rf"|{tables.RESULTS})\b",
    re.IGNORECASE,
)


_STATEMENTS: Final = (exp.Query, exp.Insert, exp.Update, exp.Delete)


@dataclass(frozen=True, slots=True)
class _Draft:
    """A translation that is being made: what its stand-ins stand for, and what it has asked."""

    names: Mapping[str, str]
    answers: dict[_Question, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Translation:
    """What came of it, with stand-ins."""

    sql: str
    used: frozenset[str]
    referenced: frozenset[tuple[str, ...]]
    as_of: tuple[AsOf, ...]
    answers: Mapping[_Question, object]
    shape: list[Shape] = field(default_factory=list)
    """The columns of its result, once they are known in this process."""


_draft: ContextVar[_Draft | None] = ContextVar("draft", default=None)


def remember_translations(past: Past, lookups: Lookups) -> None:
    """Let the emulator translate statements by what is remembered."""
    questions = _Questions(lookups)
    questions.record()
    shared = SharedValues(os.environ.get(SHARED))
    trees = Trees(parse, script.parse_script, shared)
    translations = _Translations(query.translate, past, questions, trees, shared)
    script.parse_script = trees.split
    script.Interpreter.sql = _sql(trees)
    read.parse = query.parse = trees.parse
    query.translate = read.translate = translations.translate
    query.from_duckdb = _of_the_whole(query.from_duckdb, trees)
    query._declared_schema = _of_the_whole(query._declared_schema, trees)  # noqa: SLF001


class _Questions:
    """What a translation may ask the catalog, and as much of the answers as it depends on."""

    def __init__(self, lookups: Lookups) -> None:
        self._lookups = lookups
        self._objects, self._columns, self._load = database.objects, tables.columns, metadata.load
        self._secured, self._hidden = row_access.secured, partitions._hidden  # noqa: SLF001
        self._digests: dict[str, Callable[..., object]] = {
            "objects": self._kinds,
            "columns": self._fields,
            "load": self._stored,
            "hidden": self._hides,
            "secured": self._secured,
        }

    def record(self) -> None:
        """Ask about the real names, and keep the answers, while a translation is made."""
        database.objects = self._recorded("objects", self._objects)
        tables.columns = self._recorded("columns", self._columns)
        metadata.load = self._recorded_load
        row_access.secured = self._recorded("secured", self._secured)
        partitions._hidden = self._recorded_hidden  # noqa: SLF001

    def hold(self, answers: Mapping[_Question, object], names: Mapping[str, str]) -> bool:
        """Whether the answers are the same about other names."""
        return all(
            self._digests[question](*(real(part, names) for part in parts)) == answer
            for (question, parts), answer in answers.items()
        )

    def _recorded[T](self, question: str, function: Callable[..., T]) -> Callable[..., T]:
        def asked(*parts: str) -> T:
            draft = _draft.get()
            if draft is None:
                return function(*parts)
            named = [real(part, draft.names) for part in parts]
            token = _draft.set(None)
            try:
                answer = draft.answers[question, parts] = self._digests[question](*named)
                if question == "secured" and answer:
                    raise NoStandInsError  # then it depends on the caller
                return function(*named)
            finally:
                _draft.reset(token)

        return asked

    def _recorded_load(self, model: type[Resource], *parts: str) -> Resource | None:
        if _draft.get() and model is not TableResource:
            raise NoStandInsError
        load: Callable[..., Resource | None] = lambda *table: self._load(model, *table)  # noqa: E731
        return self._recorded("load", load)(*parts)

    def _recorded_hidden(self, table: exp.Table) -> object:
        if not table.db:  # of a WITH
            return False
        return self._recorded("hidden", self._hides)(table.catalog, table.db, table.name)

    def _kinds(self, *table: str) -> list[str]:
        if len(table) != len(("project", "dataset", "table")):
            raise NoStandInsError
        kind = self._lookups.kind(*table)
        return [kind] if kind else []

    def _fields(self, *table: str) -> object:
        def ask() -> list[str]:
            return [each.model_dump_json() for each in self._columns(*table)]

        try:
            if self._lookups.kind(*tables.physical(*table)) == "TABLE":
                return self._lookups.answer(tables.physical(*table), "fields", ask)
            return ask()
        except (BigQueryError, duckdb.Error) as error:
            return type(error)

    def _stored(self, *table: str) -> object:
        stored = self._load(TableResource, *table)
        return stored and (
            tables.expired(stored),
            stored.type,
            stored.requirePartitionFilter,
            stored.timePartitioning and stored.timePartitioning.model_dump_json(),
        )

    def _hides(self, *table: str) -> object:
        project, dataset, name = table
        return self._hidden(exp.table_(name, db=dataset, catalog=project, quoted=True))


class _Translations:
    def __init__(
        self,
        slow: Callable[..., _Translated],
        past: Past,
        questions: _Questions,
        trees: Trees,
        shared: SharedValues,
    ) -> None:
        self._trees = trees
        self._slow = slow
        self._past = past
        self._questions = questions
        self._shared = shared
        self._kept: OrderedDict[object, list[_Translation]] = OrderedDict()

    def translate(self, tree: exp.Expression, context: Any) -> _Translated:  # noqa: ANN401
        """Return the statement for DuckDB, and the values of its parameters."""
        expect_nothing()
        try:
            text = _text(tree, context)
            key = (
                text.text,
                context.project_id,
                context.dataset_id,
                *sorted(context.values),
                *sorted(context.parameters.items()),
            )
            found = self._find(key, text.names) or self._make(key, text, context)
        except (NoStandInsError, BigQueryError, duckdb.Error):
            return self._slow(self._trees.whole(tree), context)
        return self._apply(found, text.names, context)

    def _find(self, key: object, names: Mapping[str, str]) -> _Translation | None:
        return self._of(self._kept.get(key, []), names) or self._find_shared(key, names)

    def _find_shared(self, key: object, names: Mapping[str, str]) -> _Translation | None:
        found = self._of(self._shared.get(key), names)
        if found:
            self._keep(key, found)
        return found

    def _of(self, kept: list[_Translation], names: Mapping[str, str]) -> _Translation | None:
        return next((each for each in kept if self._questions.hold(each.answers, names)), None)

    def _keep(self, key: object, made: _Translation) -> None:
        self._kept[key] = [made, *self._kept.get(key, [])][:_MOST_ANSWERS]
        if len(self._kept) > _MOST:
            self._kept.popitem(last=False)

    def _make(self, key: object, text: Text, context: Any) -> _Translation:  # noqa: ANN401
        own = dataclasses.replace(context, used=set(), referenced=set(), temporary=set())
        draft, as_of = _Draft(text.names), list[AsOf]()
        tokens = _draft.set(draft), put_off.set(as_of)
        try:
            tree = self._trees.kept(text.text)
            check_places(tree)
            sql, bound = self._slow(ddl.normalise(tree), own)
        finally:
            _draft.reset(tokens[0])
            put_off.reset(tokens[1])
        if own.temporary or own.position or has_more(sql):
            raise NoStandInsError
        made = _Translation(
            sql=sql,
            used=frozenset(bound),
            referenced=frozenset(own.referenced),
            as_of=tuple(as_of),
            answers=draft.answers,
        )
        self._keep(key, made)
        self._shared.put(key, [made, *self._shared.get(key)][:_MOST_ANSWERS])
        return made

    def _apply(
        self,
        found: _Translation,
        names: Mapping[str, str],
        context: Any,  # noqa: ANN401
    ) -> _Translated:
        sql = real(found.sql, names)
        for number, each in enumerate(found.as_of):
            project, dataset, name = (real(part, names) for part in each.table)
            moment = real(each.moment, names)
            as_of = dataclasses.replace(each, table=(project, dataset, name), moment=moment)
            found_table = as_of.resolve(self._past, context.values)
            sql = sql.replace(f'"{stand_in(number)}"', quoted(found_table))
        if not found.as_of:  # the past may have had other columns
            expect(sql, found.shape)
        context.used.clear()
        context.used.update(found.used)
        context.referenced.update(
            tuple(real(part, names) for part in path) for path in found.referenced
        )
        return sql, {name: context.values[name] for name in found.used}


def _sql(trees: Trees) -> Callable[[script.Interpreter, script.Statement], None]:
    """Return what `Interpreter.sql` is, with other trees."""

    def sql(interpreter: script.Interpreter, statement: script.Statement) -> None:
        for tree in trees.parse(statement.text):
            tree.meta["table_function"] = statement.kind == "TABLE_FUNCTION"
            statistics = interpreter.run_sql(tree)
            if statistics and statistics.numDmlAffectedRows is not None:
                interpreter.context.system["row_count"] = int(statistics.numDmlAffectedRows)

    return sql


def _of_the_whole[T](function: Callable[..., T], trees: Trees) -> Callable[..., T]:
    """The function, which looks into the queries of the trees that it is given."""

    def looking(*args: object) -> T:
        return function(
            *(trees.whole(each) if isinstance(each, exp.Expression) else each for each in args)
        )

    return looking


def _text(tree: exp.Expression, context: Any) -> Text:  # noqa: ANN401
    """The text of a statement that is as it was parsed and depends on no script around it."""
    text = tree.meta.get("text")
    is_table = isinstance(tree, exp.Create) and tree.args["kind"] == "TABLE"
    in_script = context.variables or context.functions or context.temporary or context.position
    if (
        not isinstance(text, Text)
        or text.tree is not tree
        or in_script
        or not (isinstance(tree, _STATEMENTS) or (is_table and tree.expression))
        or tree.find(exp.TemporaryProperty)
        or _is_never_remembered(text.text)
    ):
        raise NoStandInsError
    return text


@lru_cache(maxsize=1000)
def _is_never_remembered(text: str) -> bool:
    return bool(_NEVER.search(text))
