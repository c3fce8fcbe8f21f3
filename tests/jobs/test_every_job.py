"""What holds for every job that reads an API: however it is started, stopped or killed."""

from __future__ import annotations

import json
import threading
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pytest

import main
from app import create_app
from bigquery.warehouse import Warehouse
from config.schedules import read_schedules
from jobs.registry import JOBS, find_job
from runs.errors import AbortedError, CredentialsError, RunTimeoutError, SettingsError
from runs.progress import IN_PROGRESS
from runs.supervision import STOP
from sandbox.apis import anthropic, tmdb
from sandbox.apis.dogs import breed, sample_breeds
from sandbox.apis.serving import FakeApi, Fault
from service.readiness import jobs_needs
from tests.jobs.conftest import create_scenario
from tests.jobs.scenario import SECRETS, ago

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from bigquery.clients import Clients
    from sandbox.emulator import Endpoints
    from tests.jobs.conftest import Kill
    from tests.jobs.scenario import JobScenario

API_JOBS = tuple(job for job in JOBS if job != "sessions")
SIGKILLED = -9


def fake_of(scenario: JobScenario, job: str) -> FakeApi:
    """The fake API that a job reads."""
    fakes: dict[str, FakeApi] = {
        "claude_usage": scenario.anthropic,
        "dog_breeds": scenario.dogs,
        "tmdb_changes": scenario.tmdb,
    }
    return fakes[job]


def fill(scenario: JobScenario) -> None:
    """Give the fake APIs data for every job."""
    anthropic.fill(scenario.anthropic, ago(1), days=3)
    scenario.anthropic.costs[ago(1)] = [anthropic.cost("150.5")]
    scenario.dogs.breeds = sample_breeds(8)
    for number, kind in enumerate(("movie", "tv", "person"), 1):
        make = {"movie": tmdb.movie, "tv": tmdb.show, "person": tmdb.person}[kind]
        scenario.tmdb.put(kind, make(number), ago(1))


def change(scenario: JobScenario) -> None:
    """Change the data, so that the next run of each job has something to store."""
    scenario.anthropic.costs[ago(2)] = [anthropic.cost("99.25")]
    scenario.dogs.breeds.append(breed(900, "Example Hound"))
    scenario.tmdb.items["movie"][1] = tmdb.movie(1, title="New Title")
    scenario.tmdb.items["tv"].pop(2)


def set_watermark_back(scenario: JobScenario, job: str) -> None:
    """Let the changes be of a day that is not done yet."""
    if job == "tmdb_changes":
        scenario.query(
            f"UPDATE {{a}}.etl_state_tmdb_changes SET watermark = DATE '{ago(2)}' WHERE TRUE"
        )


# Starting a job.


@pytest.fixture
def environ(
    scenario: JobScenario, sandbox_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, str]:
    """The environment variables of a process that runs jobs in this scenario."""
    found = scenario.environ | {"SANDBOX_DIR": str(sandbox_dir)}
    for name, value in found.items():
        monkeypatch.setenv(name, value)
    return found


@pytest.mark.parametrize("job", API_JOBS)
def test_a_job_has_the_same_result_however_it_is_started(
    job: str,
    scenario: JobScenario,
    environ: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """From a terminal, by POST /run or as a Cloud Run job; and no output contains a secret."""
    fill(scenario)
    assert main.command_line(["--local", "--job", job, "--json"]) == 0
    first, stored = json.loads(capsys.readouterr().out), scenario.stored(job)
    assert (first["job"], first["status"]) == (job, "succeeded")
    assert sum(map(len, stored.values())) > 0

    client = create_app(environ, is_local=True).test_client()
    answer = client.post("/run", json={"job": job}).get_json()
    assert answer["status"] == "succeeded", answer
    assert scenario.stored(job) == stored
    pages = [client.get(path) for path in ("/jobs", "/runs", "/config", "/status", "/ready")]
    answers = {page.request.path: page.get_json() for page in pages}
    listed = {each["job"]: each for each in answers["/jobs"]["jobs"]}[job]
    ids = {first["run_id"], answer["run_id"]}  # of one second, perhaps: then in any order
    assert listed["last_success"]["run_id"] in ids
    assert listed["is_stale"] is False
    assert {run["run_id"] for run in answers["/runs"]["runs"]} == ids
    report = client.get(f"/runs/{answer['run_id']}").get_json()
    assert report["counts"] == answer["counts"]

    monkeypatch.setenv("CLOUD_RUN_EXECUTION", f"{job}-abc")
    monkeypatch.setenv("CLOUD_RUN_JOB", f"posthog-etl-{job}")
    for _ in range(2):  # the second attempt of an execution that has succeeded
        assert main.command_line(["--local", "--job", job]) == 0
    assert [row["status"] for row in scenario.query("SELECT status FROM {a}.etl_runs")] == [
        "succeeded"
    ] * 3
    assert scenario.stored(job) == stored
    assert main.command_line(["--local", "--job", job, "--check"]) == 0

    ledger = scenario.query("SELECT TO_JSON_STRING(r) AS text FROM {a}.etl_runs AS r")
    output = "".join(capsys.readouterr()) + json.dumps([first, answer, answers, report, ledger])
    assert not [name for name, secret in SECRETS.items() if secret in output]


@pytest.mark.parametrize("job", API_JOBS)
def test_a_refused_key_is_reported_without_its_value(
    job: str, scenario: JobScenario, environ: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Its value is in no log line, in no answer, and not in the ledger."""
    fill(scenario)
    fake_of(scenario, job).key = "another"
    if job == "dog_breeds":  # it sends no key here, as the API allows
        fake_of(scenario, job).break_down(Fault(status=401, times=None))
    client = create_app(environ, is_local=True).test_client()
    answer = client.post("/run", json={"job": job})
    assert (answer.status_code, answer.get_json()["error"]["type"]) == (500, "CredentialsError")
    code = main.command_line(["--local", "--job", job])
    assert code == CredentialsError.exit_code
    rows = scenario.query("SELECT error, report FROM {a}.etl_runs")
    output = answer.get_data(as_text=True) + "".join(capsys.readouterr()) + json.dumps(rows)
    assert not [name for name, secret in SECRETS.items() if secret in output]


@pytest.mark.parametrize(
    ("job", "variable"),
    [
        ("claude_usage", "ANTHROPIC_ORGANIZATION_ID"),
        ("claude_usage", "ANTHROPIC_ADMIN_API_KEY"),
        ("dog_breeds", "DOG_API_BASE_URL"),
        ("tmdb_changes", "TMDB_READ_TOKEN"),
        ("tmdb_changes", "REDIS_HOST"),
    ],
)
def test_a_missing_setting_is_reported_when_the_job_starts(
    job: str,
    variable: str,
    scenario: JobScenario,
    environ: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Not when the service starts, which may run other jobs; a log line says how the run ended."""
    monkeypatch.setenv(variable, "")
    message = f"The job {job} needs {variable}: set what is missing."
    assert main.command_line(["--local", "--job", job]) == SettingsError.exit_code
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    (ended,) = [line for line in lines if line.get("event") == "run_finished"]
    assert (ended["job"], ended["error"].startswith(message)) == (job, True)
    assert IN_PROGRESS.all() == []
    client = create_app(environ | {variable: ""}, is_local=True).test_client()
    answer = client.post("/run", json={"job": job})
    assert (answer.status_code, message in answer.get_data(as_text=True)) == (500, True)
    settings = scenario.settings(**{variable: ""})
    assert find_job(job).missing(settings) == [variable]
    assert find_job("sessions").missing(settings) == []


def test_a_weekly_job_is_not_stale_after_a_day(
    scenario: JobScenario, environ: dict[str, str]
) -> None:
    """For GET /jobs and for --check, config/jobs.yaml says after how many hours a job is stale."""
    fill(scenario)
    for job in ("dog_breeds", "tmdb_changes"):
        scenario.run(job)
    scenario.query(
        "UPDATE {a}.etl_runs SET finished_at = TIMESTAMP_SUB(finished_at, INTERVAL 3 DAY)"
        " WHERE TRUE"
    )
    for job, outcome in (("dog_breeds", "ok"), ("tmdb_changes", "warning")):
        assert scenario.check(job)["last run"].outcome == outcome
    client = create_app(environ, is_local=True).test_client()
    jobs = {job["job"]: job["is_stale"] for job in client.get("/jobs").get_json()["jobs"]}
    assert jobs == {
        "sessions": True, "claude_usage": None, "dog_breeds": False, "tmdb_changes": True,
    }  # fmt: skip


def test_ready_checks_what_jobs_in_the_service_need(scenario: JobScenario) -> None:
    """For jobs that are deployed in mode service only: their settings, their dataset, Redis."""
    declared = {
        job: replace(each, deployed=True, mode="service")
        for job, each in read_schedules().items()
        if job != "sessions"
    }
    needs = jobs_needs(declared)
    assert set(needs) == {
        "claude_usage.settings", "claude_usage.destination", "dog_breeds.destination",
        "tmdb_changes.settings", "tmdb_changes.redis",
    }  # fmt: skip
    good = Warehouse(clients=scenario.clients, settings=scenario.settings(), run_id="no_run")
    for need in needs.values():
        need(good)
    without = scenario.settings(ANTHROPIC_ORGANIZATION_ID="", REDIS_PASSWORD="another")  # noqa: S106
    bad = Warehouse(clients=scenario.clients, settings=without, run_id="no_run")
    with pytest.raises(SettingsError, match="ANTHROPIC_ORGANIZATION_ID"):
        needs["claude_usage.settings"](bad)
    with pytest.raises(CredentialsError, match="REDIS_PASSWORD"):
        needs["tmdb_changes.redis"](bad)
    assert jobs_needs({job: replace(each, mode="job") for job, each in declared.items()}) == {}


# Stopping a job.


@pytest.mark.parametrize("job", API_JOBS)
def test_sigterm_stops_a_job_within_two_seconds(job: str, scenario: JobScenario) -> None:
    """Even if its API does not answer; the lease is released, and readers see no change."""
    fill(scenario)
    scenario.run(job)
    change(scenario)
    set_watermark_back(scenario, job)
    stored = scenario.stored(job)
    fake_of(scenario, job).break_down(Fault(trouble="hang", times=None))
    fake_of(scenario, job).requests.clear()
    stopped_at: list[float] = []

    def stop() -> None:
        while not fake_of(scenario, job).requests:
            time.sleep(0.02)
        stopped_at.append(time.monotonic())
        STOP.set()

    threading.Thread(target=stop).start()
    try:
        with pytest.raises(AbortedError):
            scenario.run(job)
    finally:
        STOP.clear()
    assert time.monotonic() - stopped_at[0] < 2
    assert scenario.stored(job) == stored
    fake_of(scenario, job).recover()
    assert scenario.run(job).status == "succeeded"


@pytest.mark.parametrize("job", API_JOBS)
def test_the_deadline_stops_a_job_within_two_seconds(job: str, scenario: JobScenario) -> None:
    """The ledger has the run as timed out."""
    fill(scenario)
    fake_of(scenario, job).break_down(Fault(trouble="hang", times=None))
    started = time.monotonic()
    with pytest.raises(RunTimeoutError):
        scenario.run(job, variables={"ETL_TIMEOUT_SECONDS": "2"})
    assert time.monotonic() - started < 4.5  # what comes before the lease is not counted
    assert [row["status"] for row in scenario.query("SELECT status FROM {a}.etl_runs")] == [
        "timed_out"
    ]


POINTS = [
    (job, point) for job in API_JOBS for point in (*find_job(job).step_names, "a batch", "the end")
]


@dataclass(kw_only=True)
class AlternatingJob:
    """A job whose API alternates between two states, and what it stores of each if undisturbed."""

    scenario: JobScenario
    job: str
    expected: dict[bool, dict[str, list[str]]]
    is_changed: bool = False

    def switch(self) -> None:
        """Let the API return the other state."""
        self.is_changed = not self.is_changed
        fill(self.scenario)
        if self.is_changed:
            change(self.scenario)


@contextmanager
def create_alternating_job(
    job: str, scenario: AbstractContextManager[JobScenario]
) -> Iterator[AlternatingJob]:
    """Run the job in an empty scenario for each state, to find what it stores of it."""
    with scenario as opened:
        found = AlternatingJob(scenario=opened, job=job, expected={})
        for _ in range(2):
            opened.drop()
            found.switch()
            opened.run(job)
            found.expected[found.is_changed] = opened.stored(job)
        assert found.expected[True] != found.expected[False]
        yield found


@pytest.fixture(scope="module")
def alternating_job(
    clients: Clients, endpoints: Endpoints, redis_port: int
) -> Iterator[Callable[[str], AlternatingJob]]:
    """The alternating job of a name, which is kept until another name is asked for."""
    with ExitStack() as stack:
        last: list[AlternatingJob] = []

        def find(job: str) -> AlternatingJob:
            if not last or last[-1].job != job:
                stack.pop_all().close()
                scenario = create_scenario(clients, endpoints, redis_port)
                last.append(stack.enter_context(create_alternating_job(job, scenario)))
            return last[-1]

        yield find


@pytest.mark.parametrize(("job", "at"), POINTS, ids=lambda value: value)
def test_the_next_run_repairs_a_killed_run(
    job: str, at: str, alternating_job: Callable[[str], AlternatingJob], kill: Kill
) -> None:
    """Killed as a step begins, after a batch or at the end: the next run stores what it should."""
    alternating = alternating_job(job)
    scenario = alternating.scenario
    assert scenario.stored(job) == alternating.expected[alternating.is_changed]
    alternating.switch()
    set_watermark_back(scenario, job)
    before = scenario.stored(job)
    assert kill(scenario, job, at) == SIGKILLED
    after: dict[str, Any] = scenario.stored(job)
    is_published = at == "the end"
    if job == "tmdb_changes":
        table = "etl_state_tmdb_changes"
        assert (after[table] == before[table]) is not is_published
    else:
        assert (after == before) is not is_published
    scenario.expire_lease(job)
    assert scenario.run(job).status == "succeeded"
    assert scenario.stored(job) == alternating.expected[alternating.is_changed]
