"""Every statement of real runs is GoogleSQL as BigQuery takes it, says Google's own analyzer."""

from __future__ import annotations

import importlib
import inspect
import itertools
import sys
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sessions import projection, sources
from sessions.tables import SESSIONS
from tests.case_files import load_cases
from tests.googlesql import Analyzer, ListeningClient, Sent, type_name
from tests.test_requests_on_data import MIDNIGHT, event
from tests.test_source_shapes import OTHER_SHAPES
from tests.world import World

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from types import FunctionType

    from sandbox.emulator import Endpoints
    from sandbox.tables import TableName
    from warehouse import Clients

ROOT = Path(__file__).parent.parent
_TOOL = 4  # of sys.monitoring: none that a debugger, coverage or a profiler takes
EXCLUSIONS = {
    "exclude_distinct_ids": ("nobody",),
    "exclude_libs": ("none",),
    "exclude_emulators": True,
    "exclude_bots": True,
}


@dataclass(frozen=True, slots=True)
class Heard:
    """What a few runs sent, and which of the functions that write SQL had a part in it."""

    sent: list[Sent]
    called: set[str]


def sql_functions() -> dict[str, FunctionType]:
    """Every function of the product's pure modules that returns SQL text, by its name."""
    paths = itertools.chain.from_iterable(
        ROOT.glob(pattern) for pattern in ("process_*.py", "pipeline/[!_]*.py", "sessions/[!_]*.py")
    )
    names = (".".join(path.relative_to(ROOT).with_suffix("").parts) for path in paths)
    return {
        f"{module.__name__}.{name}": function
        for module in map(importlib.import_module, names)
        for name, function in inspect.getmembers(module, inspect.isfunction)
        if name.endswith("_sql") and function.__module__ == module.__name__
    }


@contextmanager
def listening_to(functions: dict[str, FunctionType]) -> Iterator[set[str]]:
    """The names of those that are called meanwhile, in any thread."""
    names = {function.__code__: name for name, function in functions.items()}
    called: set[str] = set()
    start = sys.monitoring.events.PY_START
    sys.monitoring.use_tool_id(_TOOL, "test_googlesql")
    try:
        sys.monitoring.register_callback(_TOOL, start, lambda code, _: called.add(names[code]))
        for code in names:
            sys.monitoring.set_local_events(_TOOL, code, start)
        yield called
    finally:
        for code in names:
            sys.monitoring.set_local_events(_TOOL, code, 0)
        sys.monitoring.free_tool_id(_TOOL)


@pytest.fixture(scope="module")
def heard(endpoints: Endpoints, clients: Clients) -> Heard:
    """Runs of every kind, on both types of properties and on every other shape of the sources."""
    client = ListeningClient(endpoints)
    listening = replace(clients, bigquery=client)
    with listening_to(sql_functions()) as called:
        with filled(World(clients=listening)) as world:
            run_in_every_way(world)
        with filled(World(clients=listening, properties="json", settings=EXCLUSIONS)) as world:
            world.run(dry_run=True)
        for shapes in shapes_at_once():
            with filled(World(clients=listening)) as world:
                for table, statement in shapes:
                    world.replace(table, statement)
                world.run(dry_run=True)
    listening.bigquery.close()
    return Heard(client.sent, called)


@contextmanager
def filled(world: World) -> Iterator[World]:
    """The world with all cases in it."""
    cases = load_cases(ROOT / "tests" / "cases")
    with world:
        world.arrive("posthog_events", cases.events)
        world.arrive("firebase_users", cases.users)
        world.arrive("firebase_events", cases.documents)
        world.arrive("posthog_sessions", cases.posthog_sessions)
        yield world


def run_in_every_way(world: World) -> None:
    """A limit, dates, a full load, and an incremental one with changed users."""
    world.run(limit=3)
    world.run(start_date=MIDNIGHT.date())
    assert world.run().kind == "full_load"
    late = event("late", MIDNIGHT)
    ids = sorted({row["distinct_id"] for row in world.arrived["posthog_events"]} - {None})
    world.arrive("posthog_events", [late])
    world.arrive("firebase_users", [{"user_id": each} for each in ids])
    report = world.run()
    assert report.kind == "incremental"
    assert report.sessions["concerned"] > 0


def shapes_at_once() -> Iterable[list[tuple[TableName, str]]]:
    """The other shapes, in as few worlds as hold them: one for each table at a time."""
    by_table: dict[TableName, list[tuple[TableName, str]]] = {}
    for table, statement in OTHER_SHAPES.values():
        by_table.setdefault(table, []).append((table, statement))
    for shapes in itertools.zip_longest(*by_table.values()):
        yield [shape for shape in shapes if shape]


@pytest.fixture(scope="module")
def analyzer() -> Analyzer:
    """ZetaSQL, loaded once."""
    return Analyzer()


@pytest.fixture(scope="module")
def refused(heard: Heard, analyzer: Analyzer) -> list[str]:
    """What is wrong with the statements that were sent, each with its text."""
    errors = [(analyzer.follow(sent), sent.sql) for sent in heard.sent]
    return [f"{error}\n{sql}" for error, sql in errors if error]


def test_bigquery_would_take_every_statement(refused: list[str]) -> None:
    """Grammar, names, types, parameters and options of all that runs of every kind send."""
    assert refused == []


def test_every_function_that_writes_sql_was_heard(heard: Heard) -> None:
    """A statement that none of these runs sends would be proved by nobody."""
    assert sql_functions().keys() - heard.called == set()


@pytest.mark.usefixtures("refused")
@pytest.mark.parametrize(
    ("staging", "declared"),
    [
        ("projected", dict(projection.PROJECTED_COLUMNS)),
        ("staged", {column.name: column.type for column in SESSIONS.fields}),
    ],
    ids=["projected", "staged"],
)
def test_staging_tables_have_the_declared_columns(
    analyzer: Analyzer, staging: str, declared: dict[str, str]
) -> None:
    """In BigQuery's eyes, too, so that rows go from table to table without a silent coercion."""
    tables = [columns for name, columns in analyzer.tables.items() if name.endswith(f"_{staging}")]
    assert tables
    for columns in tables:
        assert {name: type_name(type_) for name, type_ in columns.items()} == declared


# The type of a column as BigQuery's metadata name it, and as it is declared.
TYPES = {
    "BIGNUMERIC": "BIGNUMERIC",
    "BOOLEAN": "BOOL",
    "DATE": "DATE",
    "DATETIME": "DATETIME",
    "FLOAT": "FLOAT64",
    "INTEGER": "INT64",
    "JSON": "JSON",
    "NUMERIC": "NUMERIC",
    "RECORD": "STRUCT<_seconds INT64, _nanoseconds INT64>",
    "STRING": "STRING",
    "TIME": "TIME",
    "TIMESTAMP": "TIMESTAMP",
}


@pytest.mark.parametrize("type_", TYPES)
def test_a_column_of_any_type_is_read_as_bigquery_takes_it(analyzer: Analyzer, type_: str) -> None:
    """As text and as a time, where it can be read as that at all."""
    declaration = f"CREATE TABLE `p`.`d`.`{type_}` (x {TYPES[type_]})"
    assert analyzer.follow(Sent(sql=declaration)) is None
    readings = {
        "STRING": sources.text_sql("`x`", type_),
        "TIMESTAMP": sources.time_sql("`x`", type_),
    }
    for read_as, sql in readings.items():
        if sql is not None:
            select = f"CREATE VIEW `p`.`d`.`v` AS SELECT {sql} AS y FROM `p`.`d`.`{type_}`"
            assert analyzer.follow(Sent(sql=select)) is None
            assert type_name(analyzer.tables["p.d.v"]["y"]) == read_as


WRONG = {
    "a time and a day": ("SELECT s FROM {t} WHERE ts >= CURRENT_DATE()", "TIMESTAMP, DATE"),
    "a time and a civil time": ("SELECT s FROM {t} WHERE ts = DATETIME(ts)", "TIMESTAMP, DATETIME"),
    "a parameter of another type": ("SELECT s FROM {t} WHERE ts < @n", "TIMESTAMP, INT64"),
    "a parameter not passed": ("SELECT s FROM {t} WHERE n < @m", "parameter 'm' not found"),
    "text for a number": (
        "INSERT INTO {t} (n) SELECT s FROM {t}",
        "STRING which cannot be inserted",
    ),
    "distinct arrays": ("SELECT DISTINCT texts FROM {t}", "cannot be used in SELECT DISTINCT"),
    "JSON compared": ("SELECT s FROM {t} WHERE json = JSON '1'", "Equality is not defined"),
    "a window by a float": ("SELECT RANK() OVER (PARTITION BY f ORDER BY n) FROM {t}", "Partition"),
    "a function of DuckDB's": ("SELECT LIST(s) FROM {t}", "Function not found: LIST"),
    "a type of DuckDB's": ("SELECT CAST(s AS DOUBLE) FROM {t}", "Type not found: DOUBLE"),
    "an unknown column": ("SELECT nobody FROM {t}", "Unrecognized name: nobody"),
    "a past that is no time": ("SELECT s FROM {t} FOR SYSTEM_TIME AS OF @n", "type TIMESTAMP"),
    "no condition": ("DELETE FROM {t}", "DELETE must have a WHERE clause"),
    "an unknown option": ("CREATE TABLE {t} (n INT64) OPTIONS (expires = 1)", "Unknown option"),
    "a later statement": (
        "BEGIN TRANSACTION; SELECT nobody FROM {t}; COMMIT;",
        "Unrecognized name",
    ),
    "unknown metadata": (
        "SELECT n FROM `p`.`d`.INFORMATION_SCHEMA.PARTITIONS",
        "Unrecognized name",
    ),
}


@pytest.mark.parametrize(("statement", "error"), WRONG.values(), ids=WRONG)
def test_the_analyzer_refuses_what_bigquery_refuses(
    analyzer: Analyzer, statement: str, error: str
) -> None:
    """It is set as strictly as BigQuery is: most of this the emulator takes."""
    columns = "s STRING, n INT64, f FLOAT64, ts TIMESTAMP, json JSON, texts ARRAY<STRING>"
    assert analyzer.follow(Sent(sql=f"CREATE TABLE `p`.`d`.`t` ({columns})")) is None
    number = {"n": {"type_kind": "TYPE_INT64"}}
    refused = analyzer.follow(Sent(sql=statement.format(t="`p`.`d`.`t`"), parameters=number))
    assert error in (refused or "nothing is refused")
