"""Promise 3 on a bad network: requests are refused or dropped, answers are lost or late.

SOAK=1: every fault at every kind of request, each alone. The emulator never fails a job for a
temporary reason, so the proxy does.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
import threading
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, get_args

import grpc
import pytest

import main
from bigquery import jobs, retries
from bigquery.clients import local_clients
from bigquery.refusals import StatementError
from runs.errors import (
    AbortedError,
    DestinationError,
    EtlError,
    RunTimeoutError,
    SourceError,
    UnavailableError,
)
from runs.request import RunRequest
from runs.supervision import STOP
from tests.fault_proxy import Fault, GrpcProxy, HttpProxy, Kind, TcpProxy
from tests.runs.test_lease import ActAtStep
from tests.scenario import Scenario, differences
from tests.sessions.test_requests_on_data import MIDNIGHT, day_of_sessions, event

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sandbox.emulator import Endpoints
    from sessions.report import SessionsReport
    from tests.conftest import Count

IS_SOAK = os.environ.get("SOAK") == "1"
ALWAYS = 1_000_000
KINDS: list[Kind] = [kind for kind in get_args(Kind.__value__) if kind != "job failed"]
USUAL: list[Kind] = [kind for kind in KINDS if kind not in {"504", "408"}]
# What the product asks of the REST endpoint: method, path.
REQUESTS = {
    "jobs.insert of a query": ("POST", r"^/bigquery/v2/projects/\w+/jobs(\?|$)"),
    "jobs.insert of a load": ("POST", r"^/upload/"),
    "jobs.getQueryResults": ("GET", r"/queries/"),
    "jobs.get": ("GET", r"/jobs/"),
    "tables.get": ("GET", r"/tables/"),
    "tables.insert": ("POST", r"/tables(\?|$)"),
    "tables.delete": ("DELETE", r"/tables/"),
    "datasets.get": ("GET", r"/datasets/\w+(\?|$)"),
}
CREATIONS = (r"/datasets(\?|$)", r"/tables(\?|$)")  # where a first run POSTs to
ONCE_A_RUN = {"jobs.insert of a load", "jobs.get", "datasets.get", "tables.insert"}
# A kind of fault, the kind of request that it hits, and the number of that request.
type PlannedFault = tuple[Kind, str, int]

MATRIX = [  # each at one of several moments of a run
    pytest.param([(kind, request, first)], id=f"{kind} at {request} {first}")
    for row, kind in enumerate(KINDS)
    for column, request in enumerate(REQUESTS)
    for first in (1 if request in ONCE_A_RUN else (1, 2, 9)[(row + column) % 3],)
]
# The same in two runs: faults of several kinds, one after the other, at each kind of request.
SAMPLE = [
    pytest.param(
        [
            (kind, request, 1 if request in ONCE_A_RUN else 1 + (row + column) % 2)
            for row, kind in enumerate(kinds)
            for column, request in enumerate(REQUESTS)
        ],
        id=", ".join(kinds),
    )
    for kinds in (USUAL[:3], USUAL[3:])
]


@dataclass(kw_only=True)
class Network:
    """A scenario whose clients connect through the proxies."""

    scenario: Scenario
    rest: HttpProxy
    grpc: TcpProxy
    calls: GrpcProxy
    download_bytes: int  # of a full load
    seconds: float  # what the quickest run took
    numbers: Iterator[int] = field(default_factory=itertools.count)

    def arrive(self) -> None:
        """New rows: one for a session that is published already, and one of a new session."""
        number = next(self.numbers)
        rows = [event(name, MIDNIGHT.replace(hour=12, minute=number // 60, second=number % 60))
                for name in (f"d0-{number % 6}", f"new-{number}")]  # fmt: skip
        self.scenario.arrive("posthog_events", rows)

    @property
    def injected(self) -> int:
        """How many faults have happened so far."""
        return self.rest.injected + self.grpc.broken_ever + self.calls.failed

    def run(self, *faults: Fault) -> SessionsReport:
        """Run the job while these faults happen."""
        started = time.monotonic()
        with self.rest.faulty(*faults):
            report = self.scenario.run()
        self.seconds = min(self.seconds, time.monotonic() - started)
        return report

    def check_exact(self) -> None:
        """Check that the published table is the oracle's."""
        assert differences(self.scenario.sessions(), self.scenario.expected()) == []

    def check_completed(self) -> None:
        """Check that the next run needs no full load and leaves the oracle's table."""
        assert self.scenario.run().kind in {"incremental", "nothing_new"}
        self.check_exact()


@pytest.fixture(scope="module")
def shared(endpoints: Endpoints) -> Iterator[Network]:
    """A day of sessions behind the proxies, loaded by one run."""
    with ExitStack() as stack:
        rest = stack.enter_context(HttpProxy(endpoints.rest))
        calls = stack.enter_context(GrpcProxy(endpoints.grpc))
        tcp = stack.enter_context(TcpProxy(calls.address))
        proxied = dataclasses.replace(endpoints, rest=rest.address, grpc=tcp.address)
        clients = local_clients(proxied)
        stack.callback(clients.close)
        scenario = stack.enter_context(Scenario(clients=clients))
        scenario.arrive("posthog_events", day_of_sessions(0, 6))
        started = time.monotonic()
        scenario.run()
        seconds = time.monotonic() - started
        download_bytes = tcp.received
        yield Network(
            scenario=scenario,
            rest=rest,
            grpc=tcp,
            calls=calls,
            download_bytes=download_bytes,
            seconds=seconds,
        )


@pytest.fixture
def network(shared: Network, monkeypatch: pytest.MonkeyPatch, count: Count) -> Iterator[Network]:
    """The shared network with new rows; its runs give up after seconds."""
    monkeypatch.setattr(retries, "_RETRY_SECONDS", 5.0 if IS_SOAK else 3.0)
    monkeypatch.setattr(retries, "_FIRST_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(retries, "_FIRST_REQUEST_PAUSE_SECONDS", 0.01)
    shared.arrive()
    before = shared.injected
    yield shared
    count("faults injected", shared.injected - before)


@pytest.mark.parametrize("planned_faults", [*SAMPLE, *(MATRIX if IS_SOAK else ())])
def test_no_single_fault_fails_a_run(
    network: Network, planned_faults: list[PlannedFault], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any request that fails, in any way, is repeated or resumed."""
    monkeypatch.setattr(retries, "_RETRY_SECONDS", 30.0)  # up to three faults may hit one request
    faults = [
        Fault(kind=kind, method=REQUESTS[name][0], path=REQUESTS[name][1], first=first, seconds=0.2)
        for kind, name, first in planned_faults
    ]
    report = network.run(*faults)
    assert report.sessions["touched"] == 2
    network.check_exact()
    # A run may send fewer requests of a kind than the matrix names. It sends all of the sample
    # except jobs.get, which is for jobs whose submission seemed to fail and for long ones.
    missed = {
        name for (_, name, _), each in zip(planned_faults, faults, strict=True) if not each.hits
    }
    assert len(faults) == 1 or missed <= {"jobs.get"}


@pytest.mark.parametrize("kind", KINDS if IS_SOAK else ["answer lost"])
def test_a_first_run_survives_faults_as_it_creates_and_publishes(
    network: Network, kind: Kind
) -> None:
    """What was created though the answer was lost is found again: one dataset, tables, all rows.

    The transaction is found again by its job id, and commits once.
    """
    faults = [Fault(kind=kind, method="POST", path=path) for path in CREATIONS]
    method, path = REQUESTS["jobs.insert of a query"]
    faults.append(Fault(kind=kind, method=method, path=path, body="BEGIN TRANSACTION"))
    twin = network.scenario.twin()
    with network.rest.faulty(*faults):
        twin.run()
    assert [len(fault.hits) for fault in faults] == [1, 1, 1]
    assert differences(twin.sessions(), twin.expected()) == []
    twin.clients.bigquery.delete_dataset(twin.destination, delete_contents=True)


def test_a_publication_whose_answers_are_lost_is_whole(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run fails, though it has committed; the next one has nothing to do."""
    monkeypatch.setattr(retries, "_RETRY_SECONDS", 1.0)
    method, path = REQUESTS["jobs.insert of a query"]
    submit = Fault(kind="answer lost", method=method, path=path, body="BEGIN TRANSACTION")
    ask = Fault(kind="dropped", method="GET", path=r"/(queries|jobs)/.*_publish_", times=ALWAYS)
    with pytest.raises(UnavailableError):
        network.run(submit, ask)
    assert submit.hits
    assert ask.hits
    network.check_exact()
    assert network.scenario.run().kind == "nothing_new"
    network.check_exact()


def test_a_publication_that_fails_halfway_changes_nothing(network: Network) -> None:
    """A statement in its middle, or its last one, finds no table: the others are undone."""
    before = network.scenario.sessions()
    for table in ("planned", "etl_state_sessions"):
        publish_without(network.scenario, table)
        assert network.scenario.sessions() == before
    network.check_completed()


def publish_without(scenario: Scenario, table: str) -> None:
    """Run the job without this table, which is moved away as the run publishes."""
    moved: list[str] = []

    def move_away() -> None:
        tables = scenario.clients.bigquery.list_tables(scenario.destination)
        moved.extend(each.table_id for each in tables if each.table_id.endswith(table))
        for name in moved:
            scenario.query(f"ALTER TABLE {{d}}.{name} RENAME TO moved_away")

    watcher = ActAtStep("publish", move_away)
    try:
        with pytest.raises(DestinationError):
            main.main(RunRequest(), scenario.make_settings(), scenario.clients, progress=watcher)
    finally:
        scenario.query(f"ALTER TABLE {{d}}.moved_away RENAME TO {moved[0]}")


OUTAGES: list[PlannedFault] = [
    ("503", "jobs.insert of a query", 9),
    ("dropped", "jobs.getQueryResults", 9),
    ("answer cut", "tables.get", 6),
    ("429", "jobs.insert of a load", 1),
]
MORE_OUTAGES: list[list[PlannedFault]] = [  # each request with half of the kinds
    [(kind, request, 1 if request in ONCE_A_RUN else 9)]
    for row, kind in enumerate(KINDS)
    for column, request in enumerate(REQUESTS)
    if (row + column) % 2
]


@pytest.mark.parametrize("outages", MORE_OUTAGES if IS_SOAK else [OUTAGES], ids=str)
def test_an_outage_is_one_sentence_and_changes_nothing(
    network: Network, outages: list[PlannedFault], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends the run with an error of ours; readers see the old table or the new one."""
    monkeypatch.setattr(retries, "_RETRY_SECONDS", 1.0 if IS_SOAK else 0.2)
    for kind, request, first in outages:
        before = network.scenario.sessions()
        method, path = REQUESTS[request]
        with suppress(EtlError):
            network.run(Fault(kind=kind, method=method, path=path, first=first, times=ALWAYS))
        now = network.scenario.sessions()
        assert now == before or differences(now, network.scenario.expected()) == []
        network.scenario.query("UPDATE {d}.etl_lease_sessions SET run_id = NULL WHERE TRUE")
    network.check_completed()


@pytest.mark.parametrize("part", [0.0, 0.3, 0.6, 0.95] if IS_SOAK else [0.0, 0.6])
def test_a_download_that_breaks_off_is_resumed(network: Network, part: float) -> None:
    """The Storage API's connection is reset once, anywhere: the run succeeds, with no row twice."""
    network.grpc.received = network.grpc.broken = 0
    network.grpc.break_after = int(network.download_bytes * part)
    try:
        network.scenario.run(full_load=True)
    finally:
        network.grpc.break_after = None
    assert network.grpc.broken == 1
    network.check_exact()


STATUSES = ["INTERNAL", "ABORTED", "RESOURCE_EXHAUSTED", "DATA_LOSS", "DEADLINE_EXCEEDED"]


@pytest.mark.parametrize("status", STATUSES if IS_SOAK else ["INTERNAL"])
def test_a_download_that_fails_is_repeated(network: Network, status: str) -> None:
    """A read session does not open, then a stream fails after some rows: each row counts once.

    The client resumes neither by itself: the whole batch is read again.
    """
    code = getattr(grpc.StatusCode, status)
    network.calls.failures |= {"CreateReadSession": (code, 0), "ReadRows": (code, 1)}
    network.run()
    assert network.calls.failures == {}
    network.check_exact()


SUBMITTED_JOBS = {  # what a job is for, and a pattern of its statement
    "the lease": "UPDATE .*etl_lease_",
    "the projection": "CREATE OR REPLACE TABLE .*_projected",
    "the ledger": "INSERT INTO .*etl_runs",
    "the transaction": "BEGIN TRANSACTION",
}


def failing(statement: str, **fault: Any) -> Fault:  # noqa: ANN401 - the fields of a fault
    """A fault that fails the job of a statement."""
    method, path = REQUESTS["jobs.insert of a query"]
    return Fault(kind="job failed", method=method, path=path, body=statement, **fault)


def test_a_job_that_bigquery_fails_is_submitted_again(network: Network) -> None:
    """Statements and loads with a temporary failure are submitted again, under another id."""
    method, path = REQUESTS["jobs.insert of a load"]
    reasons = ["rateLimitExceeded", "backendError", "jobBackendError", "internalError"]
    faults = [
        failing(statement, reason=reason, times=2)
        for statement, reason in zip(SUBMITTED_JOBS.values(), reasons, strict=True)
    ]
    faults.append(
        Fault(kind="job failed", method=method, path=path, reason="jobRateLimitExceeded", times=2)
    )
    network.run(*faults)
    assert [len(fault.hits) for fault in faults] == [2] * len(faults)
    assert len(network.rest.failed) == 2 * len(faults)  # each under an id of its own
    network.check_exact()


def test_a_publication_that_committed_is_not_repeated(network: Network) -> None:
    """It is reported as failed all the same; the second attempt notices, and changes nothing."""
    fault = failing(SUBMITTED_JOBS["the transaction"], reason="internalError", has_effect=True)
    report = network.run(fault)
    assert len(fault.hits) == 1
    assert report.status == "succeeded"
    network.check_exact()
    jobs = network.scenario.clients.bigquery.list_jobs(max_results=50)
    tried = [job for job in jobs if f"{report.run_id}_publish" in job.job_id]
    assert sorted(job.error_result is None for job in tried) == [False, True]


COUNTS = "SELECT[^;]*INFORMATION_SCHEMA.PARTITIONS"


@pytest.mark.parametrize(
    ("reason", "error", "statement"),
    [
        ("quotaExceeded", UnavailableError, COUNTS),
        ("stopped", UnavailableError, COUNTS),
        ("accessDenied", DestinationError, "BEGIN TRANSACTION"),
        ("bytesBilledLimitExceeded", SourceError, COUNTS),
        ("resourcesExceeded", SourceError, COUNTS),
        ("billingTierLimitExceeded", SourceError, COUNTS),
        ("responseTooLarge", SourceError, COUNTS),
        ("billingNotEnabled", DestinationError, "UPDATE .*etl_lease_"),
        ("tableUnavailable", UnavailableError, COUNTS),
        ("invalidQuery", StatementError, COUNTS),
    ],
)
def test_a_permanent_failure_is_not_retried(
    network: Network, reason: str, error: type[Exception], statement: str
) -> None:
    """A second attempt would neither have the role nor the quota that the first one lacked."""
    fault = failing(f'"query": "{statement}', reason=reason, times=ALWAYS)
    with pytest.raises(error) as raised:
        network.run(fault)
    assert len(fault.hits) == 1
    has_remedy = "Exceeded" in reason and reason not in {
        "quotaExceeded",
        "bytesBilledLimitExceeded",
    }
    assert not has_remedy or "load fewer days at a time" in str(raised.value)


def test_the_number_of_attempts_is_limited(network: Network) -> None:
    """A job that fails each time ends the run, whose error says to try later."""
    fault = failing("INFORMATION_SCHEMA.PARTITIONS", times=ALWAYS)
    with pytest.raises(UnavailableError):
        network.run(fault)
    assert len(fault.hits) == 6


def test_a_run_stops_while_it_waits_for_another_attempt(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGTERM and the deadline hold during the pauses, too: there is no second attempt."""
    monkeypatch.setattr(retries, "backoff_seconds", lambda *_: itertools.repeat(10.0))
    fault = failing("INFORMATION_SCHEMA.PARTITIONS", times=ALWAYS)

    def stop() -> None:
        while not fault.hits:
            time.sleep(0.02)
        STOP.set()

    stopper = threading.Thread(target=stop)
    stopper.start()
    try:
        with pytest.raises(AbortedError):
            network.run(fault)
    finally:
        stopper.join()
        STOP.clear()
    assert len(fault.hits) == 1


def test_a_request_without_any_answer_is_sent_again(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A submission that is never answered neither delays the run for long nor fails it."""
    monkeypatch.setattr(jobs, "HTTP_SECONDS", 1.0)
    method, path = REQUESTS["jobs.insert of a query"]
    fault = Fault(kind="hang", method=method, path=path, body="day_counts", seconds=30.0)
    network.run(fault)
    assert len(fault.hits) == 1
    assert fault.matched > 1
    network.check_exact()


def test_a_download_that_hangs_ends_at_the_deadline(network: Network) -> None:
    """The deadline holds also while the Storage API sends nothing more."""
    before = network.scenario.sessions()
    network.scenario.settings["timeout_seconds"] = round(2 * network.seconds) + 1
    network.grpc.is_silent.set()
    try:
        with pytest.raises(RunTimeoutError):
            network.run()
    finally:
        network.grpc.is_silent.clear()
        del network.scenario.settings["timeout_seconds"]
    assert network.scenario.sessions() == before
    network.check_completed()
