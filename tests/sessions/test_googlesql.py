"""Every statement of real runs is GoogleSQL as BigQuery takes it, says Google's own analyzer."""

from __future__ import annotations

import importlib
import inspect
import itertools
import json
import re
import sys
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

import main
from bigquery.destination import ensure_dataset
from bigquery.warehouse import Warehouse
from jobs.registry import JOBS
from jobs.sessions import EXPLAIN, JOB, VERIFY
from jobs.sessions_checks import check_sessions
from runs.context import begin
from runs.errors import AbsentError
from runs.lease_row import triggers_parameter
from runs.ledger_row import find_failure
from runs.ledger_sql import RunsRequest
from runs.request import RunRequest
from service import inspection, readiness
from service.console.visits_sql import Tables
from sessions import projection, sources
from sessions.persons import daily_activity_schema
from sessions.samples import VerifyRequest
from sessions.tables import aggregated_schema, sessions_schema
from tests import console_statements
from tests.clock import starting_at
from tests.docs.test_queries import QUESTIONS
from tests.googlesql import Analyzer, ListeningClient, Sent, type_name
from tests.paths import ROOT
from tests.scenario import (
    Row,
    Scenario,
)
from tests.sessions.test_firebase_shapes import CHANGELOGS
from tests.sessions.test_requests_on_data import MIDNIGHT, event
from tests.sessions.test_source_shapes import EVENTS as EVENTS_SHAPES
from tests.sessions.test_source_shapes import OTHERS
from tests.shipped import METRIC_TABLE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FunctionType

    from bigquery.clients import Clients
    from bigquery.tables import TableSchema
    from sandbox.emulator import Endpoints
    from sessions.report import SessionsReport

_TOOL = 4  # of sys.monitoring: none that a debugger, coverage or a profiler takes
EXCLUSIONS = {
    "exclude_distinct_ids": ("nobody",),
    "exclude_libs": ("none",),
    "exclude_emulators": True,
    "exclude_bots": True,
}


@dataclass(frozen=True, slots=True)
class Recorder:
    """What a few runs sent, and which of the functions that write SQL had a part in it."""

    sent: list[Sent]
    called: set[str]
    destination: str


def sql_functions() -> dict[str, FunctionType]:
    """Every function of the product's pure modules that returns SQL text, by its name."""
    paths = itertools.chain.from_iterable(
        ROOT.glob(pattern) for pattern in ("process_*.py", "runs/[!_]*.py", "sessions/[!_]*.py")
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


# An id that is too long, and one that becomes it.
TOO_LONG = [
    *(event("too long", MIDNIGHT + timedelta(days=days)) for days in (0, 2, 4)),
    event("becomes too long", MIDNIGHT),
]
BECOMES_TOO_LONG = event("becomes too long", MIDNIGHT + timedelta(days=4))
# A user who signs in, a visitor who becomes one, also over midnight, and somebody two days later.
EVENTS = [
    event("signs in", MIDNIGHT, distinct_id="device"),
    event(
        "signs in",
        MIDNIGHT + timedelta(seconds=9),
        event="$identify",
        distinct_id="user",
        properties=json.dumps({"$session_id": "signs in", "$anon_distinct_id": "device"}),
    ),
    event("visits", MIDNIGHT + timedelta(hours=1), distinct_id="visitor"),
    event("comes again", MIDNIGHT + timedelta(hours=23, minutes=59), distinct_id="visitor"),
    event("comes again", MIDNIGHT + timedelta(hours=24, minutes=1), distinct_id="visitor"),
    event("is alone", MIDNIGHT + timedelta(days=2), distinct_id="somebody"),
]
LATE = [event("is alone", MIDNIGHT + timedelta(days=2, minutes=1))]

# `properties` as STRING, partitioned as PostHog's export is.
AS_TEXT = """CREATE TABLE {n} PARTITION BY DATE(`timestamp`) AS SELECT * EXCEPT (properties),
TO_JSON_STRING(properties) AS properties FROM {t}"""


@pytest.fixture(scope="module")
def recorder(endpoints: Endpoints, clients: Clients) -> Iterator[Recorder]:
    """Runs of every kind, and the first steps of others, which only read in another way."""
    client = ListeningClient(endpoints)
    listening = replace(clients, bigquery=client)
    scenario = Scenario(clients=listening, properties="json", settings=EXCLUSIONS)
    with scenario, listening_to(sql_functions()) as called:
        scenario.arrive("posthog_events", EVENTS)
        scenario.arrive("firebase_users", [{"user_id": "user", "createdAt": MIDNIGHT.isoformat()}])
        document = {"document_id": "d", "user_id": "user", "createdAt": MIDNIGHT.isoformat()}
        scenario.arrive("firebase_events", [document])
        scenario.arrive("posthog_sessions", [{"session_id": "visits", "channel_type": "Direct"}])
        report = run_in_every_way(scenario, datetime.now(UTC) - timedelta(hours=3), LATE)
        assert report.sessions["outdated"] == 2
        assert report.persons == {"persons": 5, "identities": 1, "sessions_without_person": 0}
        read_every_shape(scenario)
    yield Recorder(client.sent, called, scenario.destination)
    client.close()  # type: ignore[no-untyped-call]


def types_of(schema: TableSchema) -> dict[str, str]:
    """The columns of a table, with their types."""
    return {each.name: each.type for each in schema.fields}


def read(scenario: Scenario, **request: Any) -> None:  # noqa: ANN401 - the fields of a request
    """A run up to the point from which it is like any other."""
    settings = scenario.make_settings()
    run = begin(RunRequest(**request), settings, scenario.clients, trigger=None, progress=None)
    ensure_dataset(run.warehouse)
    work = JOB.begin(run)
    for step in JOB.steps[: JOB.step_names.index("extract")]:
        step.work(work)
    run.progress.close()


def run_in_every_way(scenario: Scenario, now: datetime, late: list[Row]) -> SessionsReport:
    """A limit, a full load, what is late with changed users, nothing new, and what runs share.

    On both types of properties and by both engines; the report is that of what was late.
    """
    scenario.arrive("posthog_events", TOO_LONG)
    with starting_at(now):  # runs of one second have no order
        assert scenario.run(limit=3).sessions["split"] == 0  # left to an ordinary run
    scenario.replace("posthog_events", AS_TEXT)
    scenario.settings = {}
    with starting_at(now + timedelta(hours=1)):
        report = scenario.run(engine="bigquery")
    assert report.kind == "full_load"
    assert report.sessions["split"] > 0
    scenario.arrive("posthog_events", [*late, BECOMES_TOO_LONG])
    scenario.arrive(
        "firebase_users", [{"user_id": name} for name in ("visitor", "anon-1", "anon-2")]
    )
    with starting_at(now + timedelta(hours=2)):
        report = scenario.run()
    assert report.kind == "incremental"
    assert report.sessions["split"] > 0
    assert scenario.run().kind == "nothing_new"
    lose_a_lease(scenario, report.run_id)
    query_without_a_run(scenario, report.run_id)
    with pytest.MonkeyPatch.context() as patch:  # a job that publishes once
        patch.setitem(JOBS, "greeting", "tests.greeting_job")
        main.main(RunRequest(job="greeting"), scenario.make_settings(), scenario.clients)
    return report


def lose_a_lease(scenario: Scenario, succeeded: str) -> None:
    """What only a long run sends, and what only a failure that stays does."""
    later = begin(
        RunRequest(), scenario.make_settings(), scenario.clients, trigger=None, progress=None
    )
    assert not later.lease.renew(0)  # of over LEASE_SECONDS / 4
    later.lease.release(0, triggers=triggers_parameter({}))
    assert find_failure(later.warehouse, succeeded) is None
    later.progress.close()


def read_every_shape(scenario: Scenario) -> None:
    """Each other shape of the events with one of Firebase's; and dates, of the events alone."""
    firebase = [(OTHERS["firebase_users"], OTHERS["firebase_events"]), *CHANGELOGS.values()]
    scenario.replace("posthog_sessions", OTHERS["posthog_sessions"])
    for events, (users, documents) in zip(EVENTS_SHAPES.values(), firebase, strict=True):
        scenario.replace("posthog_events", events)
        scenario.replace("firebase_users", users)
        scenario.replace("firebase_events", documents)
        read(scenario, full_load=True)
    client = scenario.clients.bigquery
    for table in OTHERS:
        client.delete_table(scenario.datasets.table_id(client, table))
    read(scenario, start_date=MIDNIGHT.date(), end_date=MIDNIGHT.date(), force=True)


def query_without_a_run(scenario: Scenario, run_id: str) -> None:
    """All that can be told without a run."""
    settings, now = scenario.make_settings(), datetime.now(UTC)
    warehouse = Warehouse(clients=scenario.clients, settings=settings, run_id="no_run")
    assert len(inspection.read_runs(warehouse, RunsRequest(before=run_id))) == 2
    assert inspection.read_reports(warehouse, limit=3)
    assert inspection.read_verifications(warehouse, limit=3) == []
    assert inspection.read_run(warehouse, run_id) is not None
    assert inspection.read_jobs(warehouse, now)
    assert check_sessions(METRIC_TABLE, warehouse, now)
    probes = readiness.probe_all(settings, lambda: nullcontext(warehouse))
    assert [probe.problem for probe in probes if probe.problem] == []
    assert VERIFY(warehouse, VerifyRequest(seed="1", size=2), lambda _: None).verdicts
    with pytest.raises(AbsentError):
        EXPLAIN(warehouse, "nowhere", lambda _: None)


@pytest.fixture(scope="module")
def analyzer() -> Analyzer:
    """ZetaSQL, loaded once."""
    return Analyzer()


_RUN_ID = re.compile(r"\d{8}T\d{6}_[0-9a-f]{8}")
_DAYS = re.compile(r"(?:(?:DATE|TIMESTAMP) '[-+:0-9 ]+',?\s*)+")


def of_each_kind(sent: list[Sent]) -> list[Sent]:
    """What differs by more than run, days and times; nor SELECTs that another is made of."""
    kinds: dict[str, Sent] = {}
    for each in sent:
        renamed = replace(
            each, sql=_RUN_ID.sub("a_run", each.sql), table=_RUN_ID.sub("a_run", each.table)
        )
        kinds.setdefault(_DAYS.sub("days", repr(renamed)), renamed)
    tails = {each.sql.partition("\nAS\n")[2] for each in kinds.values()}
    return [each for each in kinds.values() if each.table or each.sql not in tails]


@pytest.fixture(scope="module")
def refused(recorder: Recorder, analyzer: Analyzer) -> list[str]:
    """What is wrong with the statements that were sent, each with its text."""
    errors = [(analyzer.follow(each), each.sql) for each in of_each_kind(recorder.sent)]
    return [f"{error}\n{sql}" for error, sql in errors if error]


def test_bigquery_would_take_every_statement(refused: list[str]) -> None:
    """Grammar, names, types, parameters and options of all that runs of every kind send."""
    assert refused == []


def test_every_function_that_writes_sql_was_heard(recorder: Recorder) -> None:
    """A statement that none of these runs sends would be proved by nobody."""
    assert sql_functions().keys() - recorder.called == set()


@pytest.mark.usefixtures("refused")
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
    """In BigQuery's eyes, too, so that rows go from table to table without a silent coercion."""
    found = [columns for name, columns in analyzer.made if name.endswith(table)]
    assert found
    for columns in found:
        assert {name: type_name(type_) for name, type_ in columns.items()} == declared


@pytest.mark.usefixtures("refused")
@pytest.mark.parametrize("question", QUESTIONS)
def test_bigquery_would_take_the_question(
    recorder: Recorder, analyzer: Analyzer, question: str
) -> None:
    """Each statement of docs/queries.md, on the tables and the view that a run has made."""
    tables = f"local.{recorder.destination}."
    sql = QUESTIONS[question].replace("posthog_aggregated.", tables)
    assert analyzer.follow(Sent(sql=sql)) is None


@pytest.mark.usefixtures("refused")
def test_bigquery_would_take_the_consoles_statements(
    recorder: Recorder, analyzer: Analyzer
) -> None:
    """Each question of the pages, and a trend of every column, on the tables of a run."""
    name = f"`local`.`{recorder.destination}`"
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
