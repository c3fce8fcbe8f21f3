"""Runs that send every statement there is, over a random history."""

from __future__ import annotations

import importlib
import inspect
import itertools
import json
import sys
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

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
from sessions.samples import VerifyRequest
from tests import histories
from tests.clock import starting_at
from tests.paths import ROOT
from tests.sessions.test_firebase_shapes import CHANGELOGS
from tests.sessions.test_requests_on_data import MIDNIGHT, event
from tests.sessions.test_source_shapes import EVENTS as EVENTS_SHAPES
from tests.sessions.test_source_shapes import OTHERS
from tests.shipped import METRIC_TABLE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FunctionType

    from sessions.report import SessionsReport
    from tests.scenario import Row, Scenario

_TOOL = 4  # of sys.monitoring: none that a debugger, coverage or a profiler takes
EXCLUSIONS = {
    "exclude_distinct_ids": ("nobody",),
    "exclude_libs": ("none",),
    "exclude_emulators": True,
    "exclude_bots": True,
}


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
    sys.monitoring.use_tool_id(_TOOL, "every_statement")
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


def read_other_shapes(scenario: Scenario) -> None:
    """Some of one day, in a view and in the tables of Firebase's extension."""
    day = histories.FIRST_DAY.date() + timedelta(days=2)
    users, documents = CHANGELOGS["data as STRING"]
    scenario.replace("posthog_events", EVENTS_SHAPES["a view"])
    scenario.replace("firebase_users", users)
    scenario.replace("firebase_events", documents)
    read(scenario, start_date=day, end_date=day, force=True)


def query_without_a_run(scenario: Scenario, run_id: str) -> None:
    """Every statement that is sent without a run."""
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


@dataclass(frozen=True, slots=True)
class History:
    """Source rows."""

    events: list[Row]
    users: list[Row]
    documents: list[Row]
    channels: list[Row]


def random_history() -> History:
    """A history of rows that Hypothesis makes of a constant seed."""
    made: list[History] = []

    @settings(histories.THE_SAME, max_examples=1)
    @given(
        st.builds(
            History,
            events=st.lists(histories.events(), min_size=60, max_size=90),
            users=st.lists(histories.users(), min_size=3, max_size=10),
            documents=st.lists(histories.documents(), min_size=3, max_size=14),
            channels=st.lists(histories.posthog_sessions(), min_size=1, max_size=5),
        )
    )
    def make(history: History) -> None:
        # Hypothesis tries the dullest history first.
        kinds = {(row["distinct_id"], row["event"]) for row in history.events}
        assume(len(kinds) > len(history.events) / 2)
        made.append(history)

    make()
    return made[0]


def play(scenario: Scenario, history: History) -> SessionsReport:
    """The history, in runs of every kind; the report is that of what was late."""
    user = {"user_id": "user", "createdAt": MIDNIGHT.isoformat()}
    scenario.arrive("posthog_events", [*EVENTS, *history.events[5:]])
    scenario.arrive("firebase_users", [user, *history.users])
    scenario.arrive("firebase_events", [user | {"document_id": "d"}, *history.documents])
    channel = {"session_id": "visits", "channel_type": "Direct"}
    scenario.arrive("posthog_sessions", [channel, *history.channels])
    late = [*LATE, *history.events[:5]]
    return run_in_every_way(scenario, histories.FIRST_DAY + timedelta(days=30), late)
