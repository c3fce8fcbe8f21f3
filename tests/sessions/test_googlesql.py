"""Every statement of runs: Google's analyzer accepts it, and both emulators answer it alike."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from service.console.person_sessions_sql import Tables
from sessions import projection, sources
from sessions.persons import daily_activity_schema
from sessions.tables import aggregated_schema, sessions_schema
from tests import console_statements, snapshots
from tests.docs.test_queries import QUESTIONS
from tests.emulators import answers_since, clients_of, readers_tables, unlike
from tests.every_statement import (
    EXCLUSIONS,
    listening_to,
    play,
    random_history,
    read_every_shape,
    read_other_shapes,
    sql_functions,
)
from tests.googlesql import Analyzer, ListeningClient, Sent, type_name
from tests.scenario import (
    Scenario,
)
from tests.shipped import METRIC_TABLE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bigquery.clients import Clients
    from bigquery.tables import TableSchema
    from sandbox.emulator import Endpoints
    from tests.every_statement import History


@dataclass(frozen=True, slots=True)
class Recording:
    """The statements that runs of every kind sent, their jobs' answers, and the published tables.

    `called_by_runs` and `called` are the functions that wrote SQL: for these runs, and for all.
    """

    sent: list[Sent]
    answers: dict[str, list[str]]
    published: dict[str, list[str]]
    called_by_runs: set[str]
    called: set[str]
    destination: str


@pytest.fixture(scope="module")
def history() -> History:
    """The source rows of these runs."""
    return random_history()


@pytest.fixture(scope="module")
def recording(endpoints: Endpoints, clients: Clients, history: History) -> Iterator[Recording]:
    """Runs of every kind, and the first steps of runs that read sources of other shapes."""
    client, start = ListeningClient(endpoints), datetime.now(UTC)
    listening = replace(clients, bigquery=client)
    with scenario_of(listening) as scenario, listening_to(sql_functions()) as called:
        report = play(scenario, history)
        assert report.sessions["outdated"] >= 2
        assert report.persons["identities"] >= 1
        published = readers_tables(clients.bigquery, scenario.destination)
        read_other_shapes(scenario)
        answers, called_by_runs = answers_since(client, start), called.copy()
        read_every_shape(scenario)
    yield Recording(client.sent, answers, published, called_by_runs, called, scenario.destination)
    client.close()  # type: ignore[no-untyped-call]


def scenario_of(clients: Clients) -> Scenario:
    """A scenario with the same datasets on every emulator, since answers name them."""
    return Scenario(clients=clients, properties="json", settings=EXCLUSIONS, number=0)


def test_the_fast_emulator_answers_as_the_plain_one(
    recording: Recording, history: History, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Every job's answer and every table are the same, and all statements are among them."""
    with (
        clients_of("plain", tmp_path_factory) as clients,
        scenario_of(clients) as scenario,
        listening_to(sql_functions()) as called,
    ):
        start = datetime.now(UTC)
        play(scenario, history)
        published = readers_tables(clients.bigquery, scenario.destination)
        read_other_shapes(scenario)
        answers = answers_since(clients.bigquery, start)
    assert called == recording.called_by_runs
    assert unlike(recording.answers, answers) == []
    assert unlike(recording.published, published) == []
    with listening_to(sql_functions()) as in_snapshots:
        snapshots.statements()
    assert sorted(in_snapshots - called) == []


def types_of(schema: TableSchema) -> dict[str, str]:
    """The columns of a table, with their types."""
    return {each.name: each.type for each in schema.fields}


@pytest.fixture(scope="module")
def analyzer() -> Analyzer:
    """ZetaSQL, loaded once."""
    return Analyzer()


_RUN_ID = re.compile(r"\d{8}T\d{6}_[0-9a-f]{8}")
_DAYS = re.compile(r"(?:(?:DATE|TIMESTAMP) '[-+:0-9 ]+',?\s*)+")


def one_of_each_kind(sent: list[Sent]) -> list[Sent]:
    """One statement of each kind, whatever its run, its days and its times.

    Statements that reshape a source all stay; a SELECT that is part of another one does not.
    """
    kinds: dict[object, Sent] = {}
    for each in sent:
        renamed = replace(
            each, sql=_RUN_ID.sub("a_run", each.sql), table=_RUN_ID.sub("a_run", each.table)
        )
        is_shape = each.sql.startswith(("CREATE TABLE `", "CREATE VIEW `"))
        kinds.setdefault((_DAYS.sub("days", repr(renamed)), is_shape and len(kinds)), renamed)
    tails = {each.sql.partition("\nAS\n")[2] for each in kinds.values()}
    return [each for each in kinds.values() if each.table or each.sql not in tails]


@pytest.fixture(scope="module")
def refusals(recording: Recording, analyzer: Analyzer) -> list[str]:
    """The analyzer's errors about the statements that were sent, each with its text."""
    errors = [(analyzer.follow(each), each.sql) for each in one_of_each_kind(recording.sent)]
    return [f"{error}\n{sql}" for error, sql in errors if error]


def test_bigquery_would_accept_every_statement(refusals: list[str]) -> None:
    """Grammar, names, types, parameters and options of all that runs of every kind send."""
    assert refusals == []


def test_every_function_that_writes_sql_was_called(recording: Recording) -> None:
    """A statement that none of these runs sends would not be tested."""
    assert sql_functions().keys() - recording.called == set()


@pytest.mark.usefixtures("refusals")
@pytest.mark.parametrize(
    ("table", "declared"),
    [
        ("_projected", projection.projected_columns(METRIC_TABLE)),
        ("_aggregated", types_of(aggregated_schema(METRIC_TABLE))),
        ("_staged", types_of(sessions_schema(METRIC_TABLE))),
        (".daily_activity", types_of(daily_activity_schema(METRIC_TABLE))),
    ],
    ids=["projected", "aggregated", "staged", "daily_activity"],
)
def test_tables_made_by_a_select_have_the_declared_columns(
    analyzer: Analyzer, table: str, declared: dict[str, str]
) -> None:
    """Otherwise rows that go from table to table would be coerced silently."""
    found = [columns for name, columns in analyzer.made if name.endswith(table)]
    assert found
    for columns in found:
        assert {name: type_name(type_) for name, type_ in columns.items()} == declared


@pytest.mark.usefixtures("refusals")
@pytest.mark.parametrize("question", QUESTIONS)
def test_bigquery_would_accept_the_question(
    recording: Recording, analyzer: Analyzer, question: str
) -> None:
    """Each statement of docs/queries.md, on the tables and the view that a run makes."""
    tables = f"local.{recording.destination}."
    sql = QUESTIONS[question].replace("posthog_aggregated.", tables)
    assert analyzer.follow(Sent(sql=sql)) is None


@pytest.mark.usefixtures("refusals")
def test_bigquery_would_accept_the_consoles_statements(
    recording: Recording, analyzer: Analyzer
) -> None:
    """Each question of the pages, and a trend of every column, on the tables of a run."""
    name = f"`local`.`{recording.destination}`"
    names = ("sessions", "persons", "identities", "ties")
    tables = Tables(**{each: f"{name}.`{each}`" for each in names})
    asked = console_statements.statements(tables) | console_statements.every_trend(tables)
    types = console_statements.PARAMETERS
    problems = {
        name: analyzer.follow(
            Sent(sql=sql, parameters={key: types[key] for key in types if f"@{key}" in sql})
        )
        for name, sql in asked.items()
    }
    assert {name: problem for name, problem in problems.items() if problem} == {}


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
def test_bigquery_would_accept_how_a_column_of_any_type_is_read(
    analyzer: Analyzer, type_: str
) -> None:
    """As text and as a time, where the type allows it."""
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
    """It is as strict as BigQuery, whereas the emulator accepts most of this."""
    columns = "s STRING, n INT64, f FLOAT64, ts TIMESTAMP, json JSON, texts ARRAY<STRING>"
    assert analyzer.follow(Sent(sql=f"CREATE TABLE `p`.`d`.`t` ({columns})")) is None
    number = {"n": {"type_kind": "TYPE_INT64"}}
    refused = analyzer.follow(Sent(sql=statement.format(t="`p`.`d`.`t`"), parameters=number))
    assert error in (refused or "nothing is refused")
