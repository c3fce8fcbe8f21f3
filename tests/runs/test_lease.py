"""One run at a time: the lease, its fence, and what stops a run."""

from __future__ import annotations

import dataclasses
import http.client
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pytest

import main
from bigquery import jobs, retries
from bigquery.clients import Clients, local_clients
from bigquery.refusals import StatementError
from bigquery.warehouse import Warehouse
from runs import lease_row, supervision
from runs.errors import (
    DestinationError,
    LeaseHeldError,
    LeaseLostError,
    RunTimeoutError,
    UnavailableError,
)
from runs.lease_row import LeaseRow
from runs.lease_sql import Lease
from runs.request import RunRequest
from runs.supervision import take_lease
from service.inspection import lease_holder
from tests.fault_proxy import Edit, Fault, HttpProxy
from tests.paths import ROOT
from tests.scenario import Scenario, differences
from tests.sessions.test_requests_on_data import day_of_sessions
from tests.test_app import serving

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from sandbox.emulator import Endpoints
    from tests.forks import Forks

_days = itertools.count(2)


@pytest.fixture(scope="module")
def shared(clients: Clients) -> Iterator[Scenario]:
    """A scenario with a day of sessions, loaded by one run."""
    with Scenario(clients=clients) as scenario:
        scenario.arrive("posthog_events", day_of_sessions(0, 6))
        scenario.run()
        yield scenario


@pytest.fixture
def scenario(shared: Scenario) -> Scenario:
    """The shared scenario with a free lease, and with rows that no run has loaded."""
    shared.settings.clear()
    shared.query("UPDATE {d}.etl_lease_sessions SET run_id = NULL, expires_at = NULL WHERE TRUE")
    shared.arrive("posthog_events", day_of_sessions(next(_days), 2))
    return shared


def warehouse(scenario: Scenario, run_id: str, **settings: int) -> Warehouse:
    """BigQuery as a run of this id sees it."""
    scenario.settings |= settings
    return Warehouse(clients=scenario.clients, settings=scenario.make_settings(), run_id=run_id)


class ActAtStep:
    """Watches a run, and calls a function as a step begins."""

    def __init__(self, step: str, act: Callable[[], object]) -> None:
        self._step, self._act = step, act

    def step(self, name: str) -> None:
        """Call the function, if it is that step."""
        if name == self._step:
            self._act()

    def batch(self, done: int, total: int, events: int) -> None:
        """Ignore batches."""

    def close(self) -> None:
        """There is nothing to close."""


def lease_of(scenario: Scenario, run_id: str, **settings: Any) -> LeaseRow:  # noqa: ANN401
    """The lease of the sessions job, as a run of that id sees it."""
    return LeaseRow(warehouse=warehouse(scenario, run_id, **settings), job="sessions")


def run_with_progress(scenario: Scenario, progress: ActAtStep) -> None:
    """Run the job with this progress."""
    main.main(RunRequest(), scenario.make_settings(), scenario.clients, progress=progress)


def test_a_held_lease_refuses_other_runs_and_names_its_holder(scenario: Scenario) -> None:
    """The second run changes nothing, and says who holds the lease and until when."""
    before = scenario.sessions()
    with take_lease(lease_of(scenario, "holder")):
        with pytest.raises(
            LeaseHeldError, match=r"Run holder holds the lease until 20\d\d-"
        ) as raised:
            scenario.run()
        assert (raised.value.exit_code, raised.value.http_status) == (75, 409)
        assert scenario.sessions() == before


def test_a_run_waits_for_the_lease_as_long_as_the_settings_allow(scenario: Scenario) -> None:
    """With LEASE_WAIT_SECONDS the second run starts when the first one is over."""
    holder = take_lease(lease_of(scenario, "holder"))
    scenario.settings["lease_wait_seconds"] = 60
    with holder:
        threading.Timer(1.0, holder.__exit__).start()
        assert scenario.run().status == "succeeded"
    assert differences(scenario.sessions(), scenario.expected()) == []


def test_a_run_that_waits_for_the_lease_does_not_update_it(scenario: Scenario) -> None:
    """It only reads between its first and last try, since an update could cancel a publication."""
    rival = lease_of(scenario, "rival", lease_wait_seconds=3)
    with take_lease(lease_of(scenario, "holder")), pytest.raises(LeaseHeldError):
        take_lease(rival)
    assert [step for step, _ in rival.warehouse.usage] == ["lease", "lease"]


def test_an_expired_lease_is_taken_over(scenario: Scenario) -> None:
    """A run that died leaves a lease behind that is free once it has expired."""
    dead = take_lease(lease_of(scenario, "dead", lease_seconds=1))
    scenario.settings["lease_wait_seconds"] = 30
    assert scenario.run().status == "succeeded"
    assert not lease_of(scenario, "dead").renew(dead.fence)


def test_a_lease_that_becomes_free_during_the_try_is_taken(
    scenario: Scenario, endpoints: Endpoints
) -> None:
    """Its holder releases it after the try and before the look at who has it."""
    holder = lease_of(scenario, "holder")
    held, looks = holder.take(), itertools.count(1)

    def release_at_the_second(answer: dict[str, Any]) -> dict[str, Any]:
        if next(looks) == 2:  # the first: whether there is a table
            holder.release(held.fence)
        return answer

    look = r"/tables/etl_lease_sessions(\?|$)"
    with ExitStack() as stack:
        proxy = stack.enter_context(HttpProxy(endpoints.rest))
        proxy.edits.append(Edit(method="GET", path=look, change=release_at_the_second))
        clients = local_clients(dataclasses.replace(endpoints, rest=proxy.address))
        stack.callback(clients.close)
        row = lease_of(scenario, "next")
        lease = replace(row, warehouse=replace(row.warehouse, clients=clients)).take()
    assert (lease.run_id, lease.fence) == ("next", held.fence + 1)


def test_a_running_run_keeps_its_lease(scenario: Scenario) -> None:
    """The lease is renewed in time, however much longer than LEASE_SECONDS a run takes."""
    lease = lease_of(scenario, "long", lease_seconds=2)
    with take_lease(lease) as supervisor:
        time.sleep(2.5)
        supervisor.check()
        assert lease_of(scenario, "rival").take().run_id == "long"


def test_only_one_of_many_racers_gets_the_lease(scenario: Scenario) -> None:
    """Eight runs at once: one has the lease, and all agree on which."""
    leases: list[Any] = []
    racers = [
        threading.Thread(target=lambda n=n: leases.append(lease_of(scenario, f"racer{n}").take()))
        for n in range(8)
    ]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join()
    assert len(leases) == 8
    assert len({(lease.run_id, lease.fence) for lease in leases}) == 1


def test_a_zombie_publishes_nothing(scenario: Scenario) -> None:
    """A run whose lease was taken over while it slept stops before it publishes."""
    before = scenario.sessions()
    steal = "UPDATE {d}.etl_lease_sessions SET fence = fence + 1, run_id = 'thief' WHERE TRUE"
    with pytest.raises(LeaseLostError, match="took the lease over"):
        run_with_progress(scenario, ActAtStep("publish", lambda: scenario.query(steal)))
    assert scenario.sessions() == before
    rows = scenario.query("SELECT status FROM {d}.etl_runs ORDER BY started_at DESC LIMIT 1")
    assert [row["status"] for row in rows] == ["lease_lost"]


RACES = [
    pytest.param(False, "before", id="incremental, before the other"),
    pytest.param(True, "after", id="full load, after the other"),
    *[
        pytest.param(full_load, order, id=f"{order}, full load: {full_load}")
        for full_load, order in (
            (True, "before"),
            (False, "after"),
            (False, "with"),
            (True, "with"),
        )
        if os.environ.get("SOAK") == "1"
    ],
]


@pytest.mark.parametrize(("full_load", "order"), RACES)
def test_the_fence_alone_stops_a_zombie(
    scenario: Scenario,
    endpoints: Endpoints,
    full_load: bool,  # noqa: FBT001 - a parameter of the test
    order: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A run that does not notice the loss of its lease commits nothing.

    It renews its lease and sends its transaction, which hangs until another run has taken the lease
    over, and arrives before, with or after the transaction of that run.
    """
    monkeypatch.setattr(jobs, "HTTP_SECONDS", 300.0)  # it is not sent again meanwhile
    transaction = Fault(
        kind="hang", method="POST", path=r"/jobs(\?|$)", body="BEGIN TRANSACTION", seconds=300.0
    )
    request = RunRequest(full_load=full_load)
    with ExitStack() as stack:
        proxy = stack.enter_context(HttpProxy(endpoints.rest))
        stack.enter_context(proxy.faulty(transaction))
        clients = local_clients(dataclasses.replace(endpoints, rest=proxy.address))
        stack.callback(clients.close)
        scenario.settings |= {"lease_seconds": 2, "lease_wait_seconds": 60}
        pool = stack.enter_context(ThreadPoolExecutor(1))
        zombie = pool.submit(main.main, request, scenario.make_settings(), clients)
        while not transaction.hits and not zombie.done():
            time.sleep(0.05)
        scenario.settings["lease_seconds"] = 60
        scenario.arrive(
            "posthog_events", day_of_sessions(next(_days), 4)
        )  # which the zombie has not read

        def release_transaction() -> None:
            if order != "after":
                proxy.released.set()
            if order == "before":
                wait([zombie])

        report = main.main(
            request,
            scenario.make_settings(),
            scenario.clients,
            progress=ActAtStep("publish", release_transaction),
        )
        proxy.released.set()
        with pytest.raises(LeaseLostError, match="at the step publish"):
            zombie.result()
    assert report.status == "succeeded"
    assert differences(scenario.sessions(), scenario.expected()) == []
    rows = scenario.query("SELECT run_id FROM {d}.etl_state_sessions")
    assert [row["run_id"] for row in rows] == [report.run_id]


def test_the_deadline_stops_a_run_while_bigquery_works(scenario: Scenario) -> None:
    """ETL_TIMEOUT_SECONDS ends it soon, before it publishes, and the ledger says so."""
    before = scenario.sessions()
    scenario.settings["timeout_seconds"] = 1
    with pytest.raises(RunTimeoutError, match="ETL_TIMEOUT_SECONDS") as raised:
        # The first statement of the step ends the run.
        run_with_progress(scenario, ActAtStep("extract", lambda: time.sleep(1.1)))
    assert raised.value.http_status == 504
    assert scenario.sessions() == before
    rows = scenario.query("SELECT status FROM {d}.etl_runs ORDER BY started_at DESC LIMIT 1")
    assert [row["status"] for row in rows] == ["timed_out"]
    scenario.settings["timeout_seconds"] = 3300
    scenario.run()
    assert differences(scenario.sessions(), scenario.expected()) == []


@dataclass(frozen=True, slots=True, kw_only=True)
class Sandbox:
    """A scenario for other processes, and the variables by which they find it."""

    scenario: Scenario
    environ: dict[str, str]


@pytest.fixture(scope="module")
def empty_sandbox(clients: Clients, sandbox_dir: Path) -> Iterator[Sandbox]:
    """A sandbox without rows."""
    with Scenario(clients=clients) as scenario:
        settings = scenario.make_settings()
        environ = {
            "SANDBOX_DIR": str(sandbox_dir),
            "POSTHOG_DATASET_ID": settings.posthog_dataset_id,
            "FIREBASE_DATASET_ID": settings.firebase_dataset_id,
            "POSTHOG_AGGREGATED_DATASET_ID": settings.aggregated_dataset_id,
        }
        yield Sandbox(scenario=scenario, environ=environ)


@pytest.fixture
def sandbox(empty_sandbox: Sandbox) -> Sandbox:
    """The sandbox with sessions that no run has loaded."""
    empty_sandbox.scenario.arrive("posthog_events", day_of_sessions(next(_days), 6))
    return empty_sandbox


def test_sigterm_stops_the_command_line_within_seconds(sandbox: Sandbox, forks: Forks) -> None:
    """The code is 75, the message one sentence, the lease free; the next run succeeds."""
    command = [sys.executable, "main.py", "--local", "--json"]
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": os.environ["HOME"],
        **sandbox.environ,
    }
    with subprocess.Popen(  # noqa: S603 - our own program
        command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if json.loads(line).get("step") == "extract":
                break
        process.send_signal(signal.SIGTERM)
        stopped = time.monotonic()
        _, rest = process.communicate(timeout=30)
        seconds = time.monotonic() - stopped
    assert process.returncode == 75
    assert "told to stop" in json.loads(rest.splitlines()[-1])["message"]
    assert seconds < 10  # 2 s and what a busy machine takes for the ledger and the lease
    again = forks.run(["--local", "--json"], environment)
    assert again.returncode == 0
    assert json.loads(again.stdout)["sessions"]["staged"] == 6


def test_ctrl_c_stops_a_run_of_the_service(sandbox: Sandbox, tmp_path: Path) -> None:
    """SIGINT at gunicorn: the caller gets a 503, the lease is free, and no staging table is left.

    SIGTERM does the same, as `tests/test_app.py` shows.
    """
    answers: list[tuple[int, Any]] = []

    def post(port: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        connection.request("POST", "/run")
        answer = connection.getresponse()
        answers.append((answer.status, json.loads(answer.read())))
        connection.close()

    with serving(tmp_path / "log", app="app:local()", **sandbox.environ) as service:
        caller = threading.Thread(target=post, args=(service.port,))
        caller.start()
        while not any(line.get("step") == "extract" for line in service.logged()):
            time.sleep(0.05)
        service.end(signal.SIGINT)
        caller.join(timeout=30)
    assert [status for status, _ in answers] == [503]
    assert "told to stop" in answers[0][1]["error"]["message"]
    rows = sandbox.scenario.query("SELECT run_id FROM {d}.etl_lease_sessions")
    assert [row["run_id"] for row in rows] == [None]
    client, dataset = sandbox.scenario.clients.bigquery, sandbox.scenario.destination
    names = [each.table_id for each in client.list_tables(dataset)]
    assert [name for name in names if name.startswith("staging_")] == []


NUMBERS = "UNNEST(GENERATE_ARRAY(1, 10000))"
SLOW = f"SELECT COUNT(*) FROM {NUMBERS} AS a, {NUMBERS} AS b WHERE MOD(a + b, 7) = 8"


@pytest.mark.parametrize("commits", [True, False], ids=["it had committed", "it had not"])
def test_a_publication_that_takes_too_long_ends_as_the_lease_row_says(
    shared: Scenario, monkeypatch: pytest.MonkeyPatch, *, commits: bool
) -> None:
    """Its job is cancelled, and the row says whether the transaction was committed."""
    row = lease_of(shared, f"slow_{commits}")
    lease = row.take()
    if commits:
        shared.query(
            f"UPDATE {{d}}.etl_lease_sessions SET published_run_id = 'slow_{commits}' WHERE TRUE"
        )
    monkeypatch.setattr(supervision, "_PUBLICATION_SECONDS", -1.0)
    monkeypatch.setattr(retries, "_CHECK_SECONDS", 0.0)
    limited = replace(row, warehouse=replace(row.warehouse, check=supervision.check_publication()))
    raises = nullcontext() if commits else pytest.raises(RunTimeoutError, match="was cancelled")
    with raises:
        limited.transact("publish", SLOW, (), fence=lease.fence, publishes=True)
    row.release(lease.fence)


CONFLICT = "SELECT ERROR('Transaction is aborted due to concurrent update against table t')"


def test_a_transaction_that_always_conflicts_is_tried_six_times(
    shared: Scenario, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Then the error says to run again, since nothing is wrong with the code."""
    row = lease_of(shared, "in_conflict")
    lease = row.take()
    monkeypatch.setattr(lease_row, "_PAUSES_SECONDS", (0.0,) * 5)
    with pytest.raises(UnavailableError, match="cancelled the transaction publish each time: run"):
        row.transact("publish", CONFLICT, (), fence=lease.fence, publishes=True)
    assert caplog.text.count("Another change cancelled the transaction publish: again in") == 5
    row.release(lease.fence)


def test_a_wrong_transaction_is_not_repeated(
    shared: Scenario, caplog: pytest.LogCaptureFixture
) -> None:
    """No pause helps a statement that is wrong: the error comes at once."""
    row = lease_of(shared, "wrong_sql")
    lease = row.take()
    with pytest.raises(StatementError):
        row.transact("publish", "SELECT ERROR('x')", (), fence=lease.fence, publishes=True)
    assert "again in" not in caplog.text
    row.release(lease.fence)


def test_a_run_stops_between_two_attempts_at_a_transaction(
    shared: Scenario, caplog: pytest.LogCaptureFixture
) -> None:
    """SIGTERM and the deadline hold during the pauses, too."""
    row = lease_of(shared, "stopped_in_conflict")
    lease = row.take()

    def check() -> None:
        if "again in" in caplog.text:
            message = "stopped"
            raise RunTimeoutError(message)

    stopped = replace(row, warehouse=replace(row.warehouse, check=check))
    with pytest.raises(RunTimeoutError, match="stopped"):
        stopped.transact("persons", CONFLICT, (), fence=lease.fence, publishes=False)
    assert caplog.text.count("again in") == 1
    row.release(lease.fence)


def test_a_lease_that_became_free_names_no_run() -> None:
    """Its run may end between the attempt to take it and the look at its holder."""
    free = Lease(fence=1, run_id=None, expires_at=None, published_run_id=None, triggers={})
    message = supervision.held(free)
    assert message == "Another run held the lease until this moment: run again."


@pytest.mark.parametrize(
    "rows",
    [
        "SELECT * FROM {d}.etl_lease_sessions WHERE FALSE",
        "SELECT t.* FROM {d}.etl_lease_sessions AS t, UNNEST([1, 2])",
        "SELECT * EXCEPT (fence) FROM {d}.etl_lease_sessions",
    ],
    ids=["no row", "two rows", "other columns"],
)
def test_an_invalid_lease_table_is_reported_with_its_remedy(shared: Scenario, rows: str) -> None:
    """A run says to drop the table; a request that only reads the lease does not fail."""
    row = replace(lease_of(shared, "invalid"), job="tmdb_changes")
    shared.query(f"CREATE OR REPLACE TABLE {{d}}.etl_lease_tmdb_changes AS {rows}")
    try:
        with pytest.raises(DestinationError, match=r"needs one row of .*: drop it, and run again"):
            row.take()
        assert lease_holder(row.warehouse) is None
    finally:
        shared.query("DROP TABLE {d}.etl_lease_tmdb_changes")
