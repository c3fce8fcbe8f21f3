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
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa
import pytest

import main
from bigquery.destination import ensure_dataset
from bigquery.warehouse import Warehouse
from jobs.registry import JOBS
from jobs.sessions import EXPLAIN, JOB, VERIFY
from jobs.sessions_checks import check_sessions
from oracle.rows import ties
from oracle.sessions import expected_sessions
from process_persons import daily_activity_sql, identities_sql, persons_sql
from process_sessions import process_sessions
from runs.context import begin
from runs.errors import AbsentError
from runs.lease_row import triggers_parameter
from runs.ledger_row import find_failure
from runs.ledger_sql import RunsRequest
from runs.request import RunRequest
from service import inspection, readiness
from service.console.visits_sql import Tables
from sessions import audit, enrichment, plan, projection, sources, splitting
from sessions.bigquery_engine import aggregate_sql, pick_sql
from sessions.data_dictionary import NEVER, null_rules
from sessions.freshness import newest_loaded_sql
from sessions.metric_table import Aggregation, Metric, MetricTable
from sessions.persons import daily_activity_schema
from sessions.projection import downloaded_columns
from sessions.samples import VerifyRequest
from sessions.tables import aggregated_schema, sessions_schema
from tests import console_statements, snapshots
from tests.case_files import Cases, load_cases
from tests.clock import starting_at
from tests.docs.test_queries import QUESTIONS
from tests.googlesql import Analyzer, Evaluator, ListeningClient, Sent, type_name
from tests.paths import ROOT
from tests.persons_oracle import Derived, daily_key, expected_derived, person_key
from tests.scenario import (
    BOOKKEEPING,
    Row,
    Scenario,
    derived_differences,
    differences,
    without_digests,
)
from tests.sessions.test_firebase_shapes import CHANGELOGS
from tests.sessions.test_requests_on_data import MIDNIGHT, event
from tests.sessions.test_source_shapes import EVENTS as EVENTS_SHAPES
from tests.sessions.test_source_shapes import OTHERS
from tests.shipped import METRIC_TABLE
from tests.test_process_sessions import event as event_of
from tests.test_process_sessions import frame

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FunctionType

    import pandas as pd

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


# The same statements, executed by Google's reference implementation: no emulator, no DuckDB.

NOW = datetime(2026, 9, 25, 12, tzinfo=UTC)  # while some are new, and some are ahead
RUN: dict[str, tuple[str, object]] = {
    "now": ("TIMESTAMP", NOW),
    "today": ("DATE", NOW.date()),
    "run_id": ("STRING", "run"),
    "metrics_version": ("STRING", "version"),
}
FULL_LOAD = plan.Plan(kind="full_load", reason=None, days=(), counts={})


@pytest.fixture(scope="module")
def cases() -> Cases:
    """Every case folder, and a day on which a user only creates."""
    found = load_cases(ROOT / "tests" / "cases")
    alone = {"document_id": "alone", "user_id": "chk-u", "createdAt": "2026-10-20T12:00:00Z"}
    return replace(found, documents=[*found.documents, alone])


@pytest.fixture(scope="module")
def google(cases: Cases) -> Evaluator:
    """Every step of a full load of all cases, as a run takes them, executed by ZetaSQL."""
    found = Evaluator()
    arrived = {
        "posthog_etl.events": cases.events,
        "posthog_etl.sessions": cases.posthog_sessions,
        "firebase_etl_prod.users": cases.users,
        "firebase_etl_prod.events": cases.documents,
    }
    for table, each in arrived.items():
        found.put(f"my-project.{table}", snapshots.COLUMNS[table], each)
    tables = snapshots.source_tables(is_table=False)  # the evaluator has no past to travel to
    s = snapshots.STAGING
    found.make(s.user_keys, enrichment.user_keys_sql(METRIC_TABLE, tables.users))
    found.make(s.documents, enrichment.documents_sql(tables.documents))
    found.make(s.channels, enrichment.channels_sql(METRIC_TABLE, tables.posthog_sessions))
    found.make(s.projected, projection.project_sql(METRIC_TABLE, tables.events, "TRUE"))
    stored = {"sessions": "sessions", "quarantined": "quarantined_sessions"}
    touched = plan.touched_sql(METRIC_TABLE, FULL_LOAD, projected=s.projected, **stored)
    found.make(s.touched, touched)
    ids = splitting.split_sql(METRIC_TABLE, projected=s.projected, touched=s.touched)
    found.make(s.split, ids)  # the rest as a later run, which knows them: an update is no SELECT
    project = projection.project_sql(METRIC_TABLE, tables.events, "TRUE", split_ids=s.split)
    found.make(s.projected, project)
    found.make(s.touched, touched)
    planned = plan.planned_sql(METRIC_TABLE, projected=s.projected, touched=s.touched, batches=1)
    found.make(s.planned, planned)
    found.make(
        s.batches, projection.batches_sql(METRIC_TABLE, projected=s.projected, planned=s.planned)
    )
    found.make(s.aggregated, aggregate_sql(METRIC_TABLE, s.batches))
    rows = {"aggregated": s.aggregated, "planned": s.planned}
    found.make(s.staged, enrichment.new_rows_sql(METRIC_TABLE, **rows, **snapshots.SMALL), **RUN)
    found.make("sessions", f"SELECT * FROM {s.staged}")
    found.make(s.outdated, enrichment.none_outdated_sql(METRIC_TABLE, sessions="sessions"))
    keys = {"sessions": "sessions", "user_keys": s.user_keys}
    found.make("ties", projection.ties_sql(s.projected, "TRUE"))
    identities = identities_sql(METRIC_TABLE, ties="ties", user_keys=s.user_keys)
    found.make("identities", identities, **RUN)
    persons = persons_sql(
        METRIC_TABLE, **keys, identities="identities", documents=s.documents, churn_days=14
    )
    found.make("persons", persons, **RUN)
    found.make("daily_activity", daily_activity_sql(METRIC_TABLE, **snapshots.DERIVED))
    return found


def by_id(rows: list[Row]) -> dict[str, Row]:
    """Rows of `sessions`, by id, bookkeeping left out."""
    return {
        row["session_id"]: {name: row[name] for name in row if name not in BOOKKEEPING}
        for row in rows
    }


def test_google_evaluates_a_full_load_to_the_oracles_sessions(
    google: Evaluator, cases: Cases
) -> None:
    """From raw rows with malformed JSON to the last derived column, cell by cell, in all cases."""
    rows = google.select("SELECT * FROM sessions")
    expected = expected_sessions(
        METRIC_TABLE, cases.events, cases.users, cases.documents, cases.posthog_sessions
    )
    assert len(rows) == len(expected) > 150
    assert differences(without_digests(by_id(rows)), expected) == []


def as_rows(frame: pd.DataFrame) -> dict[str, Row]:
    """A frame's rows by the session's number, as the client would give them."""
    rows = pa.Table.from_pandas(frame, preserve_index=False).to_pylist()
    return {str(row["session_no"]): row for row in rows}


def compared(google: Evaluator, batches: str, metric_table: MetricTable) -> tuple[int, list[str]]:
    """How many sessions Google makes of the batches, and each cell that pandas makes another."""
    sql = aggregate_sql(metric_table, batches).replace("s.batch, s.session_no", "s.session_no")
    rows = {str(row["session_no"]): row for row in google.select(sql)}
    columns = ", ".join(downloaded_columns(metric_table))
    events = google.select(f"SELECT {columns} FROM {batches}")
    return len(rows), differences(rows, as_rows(process_sessions(frame(events), metric_table)))


def test_google_and_pandas_aggregate_all_cases_alike(google: Evaluator) -> None:
    """The statement of the BigQuery engine, over the very rows that the other engine downloads."""
    count, found = compared(google, snapshots.STAGING.batches, METRIC_TABLE)
    assert count > 150
    assert found == []


# What no case has: values that are empty, at the ends of their type, or of another script; a list
# whose order by bytes is not the one by letters; views without any value; starts after finishes.
ODD = [
    event_of(0, 1, "", distinct_id="", screen_name=""),
    event_of(0, 2, "\u00e9", distinct_id="b", touch_y=-0.0, touch_reach=0.0),
    event_of(0, 3, "Z", distinct_id="\U0001f600", touch_y=1e308),
    event_of(0, 4, "a", distinct_id="b", screen_name="\u0130"),
    event_of(1, 1, "finish_quiz", screen_name="only here"),
    event_of(1, 2, "start_quiz"),
    event_of(1, 3, "$pageview"),
    event_of(2, 1, "Enable\u017fContact\u212a"),
    event_of(2, 2, "ENABLE CONTACTS", lib="'quoted\\'"),
    event_of(3, 1, "start_quiz"),
    event_of(3, 2, "start_quiz"),
    event_of(3, 3, "finish_quiz"),
    event_of(3, 4, "$identify", anonymous_id="b", distinct_id="a"),
    event_of(3, 5, "$identify", anonymous_id="a", distinct_id="b"),
    event_of(3, 6, "$identify", anonymous_id="b", distinct_id="a"),
    event_of(3, 7, "$identify", anonymous_id="c"),
]
UNUSED = [
    Metric(name=name, aggregation=kind, type="FLOAT64", value="touch_y", description="")
    for name, kind in (("total", Aggregation.SUM), ("least", Aggregation.MIN))
]
METRICS_OF_ALL_KINDS = replace(METRIC_TABLE, columns=(*METRIC_TABLE.metrics, *UNUSED))


def test_google_and_pandas_aggregate_odd_events_alike(google: Evaluator) -> None:
    """Also by the aggregations that no declared metric uses."""
    types = dict.fromkeys(downloaded_columns(METRIC_TABLE), "STRING") | {
        **dict.fromkeys(("batch", "session_no", "event_no"), "INT64"),
        **{
            item.name: "FLOAT64"
            for item in METRIC_TABLE.properties
            if item.kind in {"number", "fraction"}
        },
        "event_at": "TIMESTAMP",
    }
    rows = [
        row | {"batch": 0, "event_at": datetime.fromtimestamp(row["event_at"] / 1e6, UTC)}
        for row in ODD
    ]
    google.put("odd", types, rows)
    assert compared(google, "odd", METRICS_OF_ALL_KINDS) == (4, [])


@pytest.mark.parametrize("best", ["MIN", "MAX"])
@pytest.mark.parametrize("known", ["b", None])
def test_a_value_is_picked_of_known_rows_alone(
    google: Evaluator, best: Literal["MIN", "MAX"], known: str | None
) -> None:
    """Neither of those that don't count nor of those without a value; null where there is none."""
    google.put(
        "uses",
        {"value": "STRING", "place": "INT64", "counts": "BOOL"},
        [
            {"value": value, "place": place, "counts": counts}
            for place, (value, counts) in enumerate(
                [("a", False), (None, True), (known, True), (None, True), ("c", False)]
            )
        ],
    )
    picked = pick_sql("value", best, by="place", among=["counts"])
    assert google.select(f"SELECT {picked} AS picked FROM uses") == [{"picked": known}]


def test_the_audit_of_what_google_made_holds(google: Evaluator) -> None:
    """Everything counted once more, by Google: no rule is broken."""
    newest = newest_loaded_sql(sessions=None, projected="staging_projected", touched=None)
    now = ("TIMESTAMP", datetime.now(UTC))
    (row,) = google.select(audit.audit_sql(snapshots.STAGING, newest), now=now)
    figures = audit.AuditFigures(**row)
    assert figures.touched > 150
    assert figures.duplicate_rows > 0
    audit.check_audit(figures, FULL_LOAD, {}, [])


def test_google_derives_the_oracles_persons(google: Evaluator, cases: Cases) -> None:
    """Identities, persons and daily activity, from the sessions that Google has made."""
    found = Derived(
        identities={
            row["anonymous_id"]: row["user_id"] for row in google.select("SELECT * FROM identities")
        },
        persons={
            person_key(row): row
            for row in google.select("SELECT * EXCEPT (_loaded_at, _run_id) FROM persons")
        },
        daily_activity={
            daily_key(row): row for row in google.select("SELECT * FROM daily_activity")
        },
    )
    sessions = by_id(google.select("SELECT * FROM sessions"))
    expected = expected_derived(
        sessions,
        cases.users,
        cases.documents,
        ties=ties(METRIC_TABLE, cases.events),
        today=NOW.date(),
    )
    assert expected.identities
    assert derived_differences(found, expected) == []


def test_columns_are_null_where_the_dictionary_says(google: Evaluator) -> None:
    """In all cases: never where it says never, and somewhere where it says when."""
    for table in ("sessions", "persons", "daily_activity", "identities"):
        rows = google.select(f"SELECT * FROM {table}")
        found = {name for row in rows for name, value in row.items() if value is None}
        reported = null_rules(METRIC_TABLE, table)
        assert {name for name in found if reported[name].startswith(NEVER)} == set(), table
        assert {name for name, rule in reported.items() if not rule.startswith(NEVER)} == found, (
            table
        )
