"""What every job gets without code of its own, shown by a job of a few lines."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

import main
from app import create_app
from bigquery.warehouse import Warehouse
from jobs import registry
from runs.errors import LeaseHeldError, LeaseLostError, RequestError, RunTimeoutError
from runs.lease_row import LeaseRow
from runs.request import RunRequest
from runs.settings import Settings
from runs.supervision import take_lease
from tests.paths import ROOT

if TYPE_CHECKING:
    from pathlib import Path

    from bigquery.clients import Clients
    from runs.report import RunReport

DELIVERY = "nightly 2026-11-26T02:00:00Z"
# Registers `greeting_job.py` in a process of its own, for a run that ends its process.
PROGRAM = """
import sys
from jobs.registry import JOBS
JOBS["greeting"] = "tests.greeting_job"
import main
from runs.request import RunRequest
"""


@dataclass(frozen=True, kw_only=True)
class JobRunner:
    """Runs the job in the sandbox of this module, and in a dataset of one test."""

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
        """Run the job."""
        request = RunRequest(job="greeting", **fields)
        return main.main(request, settings or self.settings(), self.clients, trigger=trigger)

    def query(self, sql: str) -> list[dict[str, Any]]:
        """The rows of a statement, in which {d} is the dataset."""
        rows = self.clients.bigquery.query(sql.format(d=self.dataset)).result()
        return [dict(row.items()) for row in rows]

    def greetings(self) -> list[str]:
        """The ids of the runs whose rows the table has."""
        return [row["run_id"] for row in self.query("SELECT run_id FROM {d}.greetings")]

    def lease(self, run_id: str, **settings: Any) -> LeaseRow:  # noqa: ANN401
        """The job's lease, as another run sees it."""
        other = Warehouse(clients=self.clients, settings=self.settings(**settings), run_id=run_id)
        return LeaseRow(warehouse=other, job="greeting")


@pytest.fixture
def runner(
    sandbox_dir: Path,
    clients: Clients,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> JobRunner:
    """Runs the registered job in a dataset of the test's own."""
    monkeypatch.setitem(registry.JOBS, "greeting", "tests.greeting_job")
    return JobRunner(clients=clients, folder=sandbox_dir, dataset=request.node.name)


def test_a_run_publishes_and_is_in_the_ledger(runner: JobRunner) -> None:
    """Its steps, counts and status are in the report and in the ledger."""
    report = runner.run()
    assert runner.greetings() == [report.run_id]
    assert [step.name for step in report.steps] == ["lease", "prepare", "greet"]
    (row,) = runner.query("SELECT job, status, report FROM {d}.etl_runs")
    assert (row["job"], row["status"]) == ("greeting", "succeeded")
    assert json.loads(row["report"])["counts"] == {"greetings": 1}


def test_a_dry_run_publishes_nothing(runner: JobRunner) -> None:
    """The part of a step that publishes is left out."""
    assert runner.run(dry_run=True).dry_run
    assert runner.greetings() == []


def test_a_delivery_that_succeeded_is_a_duplicate_unless_forced(runner: JobRunner) -> None:
    """The trigger is written by the job's one transaction."""
    first = runner.run(trigger=DELIVERY)
    again = runner.run(trigger=DELIVERY)
    assert (again.status, again.run_id) == ("duplicate", first.run_id)
    assert runner.greetings() == [first.run_id]
    forced = runner.run(trigger=DELIVERY, force=True)
    assert (forced.status, forced.run_id != first.run_id) == ("succeeded", True)
    assert runner.greetings() == [forced.run_id]


def test_a_lease_excludes_other_runs_of_its_job_alone(runner: JobRunner) -> None:
    """The lease of this job is held, while there is none of `sessions`."""
    runner.run()
    with take_lease(runner.lease("holder")):
        with pytest.raises(LeaseHeldError, match="Run holder holds the lease"):
            runner.run()
        tables = {table.table_id for table in runner.clients.bigquery.list_tables(runner.dataset)}
        assert tables == {"etl_lease_greeting", "etl_runs", "greetings"}


def test_the_fence_alone_keeps_a_replaced_run_from_publishing(
    runner: JobRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that does not notice the loss of its lease commits nothing."""
    before = runner.run().run_id
    monkeypatch.setattr(LeaseRow, "renew", lambda *_: True)

    class Rival:
        """Takes the lease over at the last step."""

        def step(self, name: str) -> None:
            if name == "greet":
                runner.query(
                    "UPDATE {d}.etl_lease_greeting SET fence = fence + 1, run_id = 'r' WHERE TRUE"
                )

        def batch(self, done: int, total: int, events: int) -> None: ...
        def close(self) -> None: ...

    with pytest.raises(LeaseLostError):
        main.main(RunRequest(job="greeting"), runner.settings(), runner.clients, progress=Rival())
    assert runner.greetings() == [before]


def test_the_deadline_ends_a_run(runner: JobRunner) -> None:
    """A run that waits for ever is ended, recorded, and has published nothing."""
    with pytest.raises(RunTimeoutError):
        runner.run(params={"wait": True}, settings=runner.settings(timeout_seconds=1))
    assert runner.greetings() == []
    assert [row["status"] for row in runner.query("SELECT status FROM {d}.etl_runs")] == [
        "timed_out"
    ]


def test_a_killed_run_is_completed_by_the_next(runner: JobRunner) -> None:
    """Its process ends in the middle; the next run takes the lease once it has expired."""
    run = """main.run(RunRequest(job="greeting", params={"die": True}), settings, is_local=True)"""
    killed = subprocess.run(  # noqa: S603 - our own command
        [sys.executable, "-c", f"{PROGRAM}{_settings(runner)}{run}"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert killed.returncode == 9, killed.stderr
    assert runner.greetings() == []
    report = runner.run(settings=runner.settings(lease_wait_seconds=30))
    assert runner.greetings() == [report.run_id]


def _settings(runner: JobRunner) -> str:
    return f"""
from pathlib import Path
from runs.settings import Settings
settings = Settings(project_id="local", aggregated_dataset_id={runner.dataset!r},
    lease_seconds=2, sandbox_dir=Path({str(runner.folder)!r}))
"""


def test_the_job_runs_from_the_command_line(
    runner: JobRunner, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With --job; an unknown job is refused, and the message names the known ones."""
    monkeypatch.setenv("SANDBOX_DIR", str(runner.folder))
    monkeypatch.setenv("POSTHOG_AGGREGATED_DATASET_ID", runner.dataset)
    assert main.command_line(["--local", "--job", "greeting", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["job"], runner.greetings()) == ("greeting", [report["run_id"]])
    assert main.command_line(["--local", "--job", "nightly"]) == RequestError.exit_code
    names = " or ".join(registry.JOBS)
    assert f"There is no job nightly: use {names}." in capsys.readouterr().err


def test_the_job_runs_and_is_listed_over_http(runner: JobRunner) -> None:
    """POST /run starts it; GET /jobs and GET /runs list it beside the others."""
    environ = {
        "SANDBOX_DIR": str(runner.folder), "POSTHOG_AGGREGATED_DATASET_ID": runner.dataset,
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


def test_two_jobs_run_at_once(runner: JobRunner) -> None:
    """The lease of one job does not hinder another job: neither waits nor fails."""
    results: list[str] = []
    runner.run()  # makes the dataset
    with take_lease(LeaseRow(warehouse=runner.lease("other").warehouse, job="sessions")):
        thread = threading.Thread(target=lambda: results.append(runner.run().status))
        thread.start()
        thread.join()
    assert results == ["succeeded"]
