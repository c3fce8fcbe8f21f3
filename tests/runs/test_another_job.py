"""What every job has for nothing, proved by one of a few lines (`greeting_job.py`)."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

import main
from app import create_app
from bigquery.clients import Clients, local_clients
from bigquery.warehouse import Warehouse
from jobs import registry
from runs.errors import LeaseHeldError, LeaseLostError, RequestError, RunTimeoutError
from runs.lease_row import LeaseRow
from runs.request import RunRequest
from runs.settings import Settings
from runs.supervision import take_lease
from sandbox import emulator
from tests.paths import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from runs.report import RunReport

DELIVERY = "nightly 2026-11-26T02:00:00Z"
# A process of its own that knows the job, for runs that end with their process.
PROGRAM = """
import sys
from jobs.registry import JOBS
JOBS["greeting"] = "tests.greeting_job"
import main
from runs.request import RunRequest
"""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where the job runs: a sandbox of this module, and a dataset of one test."""

    clients: Clients
    folder: Path
    dataset: str

    def settings(self, **more: Any) -> Settings:  # noqa: ANN401 - the fields of settings
        """The settings of its runs."""
        return Settings(project_id="local", aggregated_dataset_id=self.dataset, **more)

    def run(
        self,
        *,
        trigger: str | None = None,
        settings: Settings | None = None,
        **fields: Any,  # noqa: ANN401
    ) -> RunReport:
        """A run of the job."""
        request = RunRequest(job="greeting", **fields)
        return main.main(request, settings or self.settings(), self.clients, trigger=trigger)

    def query(self, sql: str) -> list[dict[str, Any]]:
        """The rows of a statement, in which {d} is the dataset."""
        rows = self.clients.bigquery.query(sql.format(d=self.dataset)).result()
        return [dict(row.items()) for row in rows]

    def greetings(self) -> list[str]:
        """Which runs the table is of."""
        return [row["run_id"] for row in self.query("SELECT run_id FROM {d}.greetings")]

    def lease(self, run_id: str, **settings: Any) -> LeaseRow:  # noqa: ANN401
        """The job's lease, as another run sees it."""
        other = Warehouse(clients=self.clients, settings=self.settings(**settings), run_id=run_id)
        return LeaseRow(warehouse=other, job="greeting")


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Clients]]:
    """An emulator that other processes can attach to."""
    folder = tmp_path_factory.mktemp("sandbox")
    with emulator.attach(folder) as endpoints, closing(local_clients(endpoints)) as clients:
        yield folder, clients


@pytest.fixture
def place(
    sandbox: tuple[Path, Clients], request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Place:
    """The job is registered, in a dataset of the test's own."""
    monkeypatch.setitem(registry.JOBS, "greeting", "tests.greeting_job")
    folder, clients = sandbox
    return Place(clients=clients, folder=folder, dataset=request.node.name)


def test_a_run_publishes_and_is_in_the_ledger(place: Place) -> None:
    """Its steps, its counts and its end stand in the report and in the ledger alike."""
    report = place.run()
    assert place.greetings() == [report.run_id]
    assert [step.name for step in report.steps] == ["lease", "prepare", "greet"]
    (row,) = place.query("SELECT job, status, report FROM {d}.etl_runs")
    assert (row["job"], row["status"]) == ("greeting", "succeeded")
    assert json.loads(row["report"])["counts"] == {"greetings": 1}


def test_a_dry_run_publishes_nothing(place: Place) -> None:
    """What a step does that publishes is left out."""
    assert place.run(dry_run=True).dry_run
    assert place.greetings() == []


def test_a_delivery_that_succeeded_is_a_duplicate_unless_forced(place: Place) -> None:
    """The trigger is written by the job's one transaction."""
    first = place.run(trigger=DELIVERY)
    again = place.run(trigger=DELIVERY)
    assert (again.status, again.run_id) == ("duplicate", first.run_id)
    assert place.greetings() == [first.run_id]
    forced = place.run(trigger=DELIVERY, force=True)
    assert (forced.status, forced.run_id != first.run_id) == ("succeeded", True)
    assert place.greetings() == [forced.run_id]


def test_the_lease_keeps_others_out_and_the_other_job_free(place: Place) -> None:
    """A lease is of one job: the test's is held while that of `sessions` is not."""
    place.run()
    with take_lease(place.lease("holder")):
        with pytest.raises(LeaseHeldError, match="Run holder holds the lease"):
            place.run()
        tables = {table.table_id for table in place.clients.bigquery.list_tables(place.dataset)}
        assert tables == {"etl_lease_greeting", "etl_runs", "greetings"}


def test_the_fence_alone_keeps_a_replaced_run_from_publishing(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that believes the lease is still its own commits nothing."""
    before = place.run().run_id
    monkeypatch.setattr(LeaseRow, "renew", lambda *_: True)

    class Rival:
        """Takes the lease over at the last step."""

        def step(self, name: str) -> None:
            if name == "greet":
                place.query(
                    "UPDATE {d}.etl_lease_greeting SET fence = fence + 1, run_id = 'r' WHERE TRUE"
                )

        def batch(self, done: int, total: int, events: int) -> None: ...
        def close(self) -> None: ...

    with pytest.raises(LeaseLostError):
        main.main(RunRequest(job="greeting"), place.settings(), place.clients, progress=Rival())
    assert place.greetings() == [before]


def test_the_deadline_ends_a_run(place: Place) -> None:
    """A run that waits for ever is ended, recorded, and has published nothing."""
    with pytest.raises(RunTimeoutError):
        place.run(params={"wait": True}, settings=place.settings(timeout_seconds=1))
    assert place.greetings() == []
    assert [row["status"] for row in place.query("SELECT status FROM {d}.etl_runs")] == [
        "timed_out"
    ]


def test_a_killed_run_is_made_good_by_the_next(place: Place) -> None:
    """Its process ends in the middle; the next run takes the lease once it has expired."""
    run = """main.run(RunRequest(job="greeting", params={"die": True}), settings, is_local=True)"""
    killed = subprocess.run(  # noqa: S603 - our own command
        [sys.executable, "-c", f"{PROGRAM}{_settings(place)}{run}"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert killed.returncode == 9, killed.stderr
    assert place.greetings() == []
    report = place.run(settings=place.settings(lease_wait_seconds=30))
    assert place.greetings() == [report.run_id]


def _settings(place: Place) -> str:
    return f"""
from pathlib import Path
from runs.settings import Settings
settings = Settings(project_id="local", aggregated_dataset_id={place.dataset!r},
    lease_seconds=2, sandbox_dir=Path({str(place.folder)!r}))
"""


def test_it_runs_from_the_command_line(
    place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By --job; a job that there is not is refused by the names of those there are."""
    monkeypatch.setenv("SANDBOX_DIR", str(place.folder))
    monkeypatch.setenv("POSTHOG_AGGREGATED_DATASET_ID", place.dataset)
    assert main.command_line(["--local", "--job", "greeting", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["job"], place.greetings()) == ("greeting", [report["run_id"]])
    assert main.command_line(["--local", "--job", "nightly"]) == RequestError.exit_code
    names = " or ".join(registry.JOBS)
    assert f"There is no job nightly: use {names}." in capsys.readouterr().err


def test_it_runs_and_shows_over_http(place: Place) -> None:
    """By POST /run; GET /jobs and GET /runs have it beside the others."""
    environ = {
        "SANDBOX_DIR": str(place.folder), "POSTHOG_AGGREGATED_DATASET_ID": place.dataset,
    }  # fmt: skip
    client = create_app(environ, is_local=True).test_client()
    answer = client.post("/run", json={"job": "greeting"}).get_json()
    assert answer["status"] == "succeeded", answer
    jobs = {job["job"]: job for job in client.get("/jobs").get_json()["jobs"]}
    assert jobs["greeting"]["last_success"]["run_id"] == answer["run_id"]
    assert jobs["greeting"]["is_stale"] is False
    assert jobs["sessions"]["last_success"] is None
    (run,) = client.get("/runs").get_json()["runs"]
    assert (run["run_id"], run["job"]) == (answer["run_id"], "greeting")
    found = client.get(f"/runs/{run['run_id']}").get_json()
    assert [step["name"] for step in found["steps"]] == ["lease", "prepare", "greet"]
    assert client.get("/status").get_json()["status"] == "idle"


def test_two_jobs_run_at_once(place: Place) -> None:
    """A lease of one job is no obstacle to another's: neither waits nor fails."""
    results: list[str] = []
    place.run()  # makes the dataset
    with take_lease(LeaseRow(warehouse=place.lease("other").warehouse, job="sessions")):
        runner = threading.Thread(target=lambda: results.append(place.run().status))
        runner.start()
        runner.join()
    assert results == ["succeeded"]
