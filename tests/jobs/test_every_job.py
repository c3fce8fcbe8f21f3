"""What holds for each job that reads an API: however it is started, stopped or killed."""

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
from tests.jobs.conftest import made_place
from tests.jobs.place import SECRETS, ago

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from bigquery.clients import Clients
    from sandbox.emulator import Endpoints
    from tests.jobs.conftest import Kill
    from tests.jobs.place import Place

API_JOBS = tuple(job for job in JOBS if job != "sessions")
SIGKILLED = -9


def fake_of(place: Place, job: str) -> FakeApi:
    """The stand-in that a job asks."""
    fakes: dict[str, FakeApi] = {
        "claude_usage": place.anthropic,
        "dog_breeds": place.dogs,
        "tmdb_changes": place.tmdb,
    }
    return fakes[job]


def fill(place: Place) -> None:
    """Data for every job."""
    anthropic.fill(place.anthropic, ago(1), days=3)
    place.anthropic.costs[ago(1)] = [anthropic.cost("150.5")]
    place.dogs.breeds = sample_breeds(8)
    for number, kind in enumerate(("movie", "tv", "person"), 1):
        make = {"movie": tmdb.movie, "tv": tmdb.show, "person": tmdb.person}[kind]
        place.tmdb.put(kind, make(number), ago(1))


def change(place: Place) -> None:
    """Something that the next run of each job has to store."""
    place.anthropic.costs[ago(2)] = [anthropic.cost("99.25")]
    place.dogs.breeds.append(breed(900, "Example Hound"))
    place.tmdb.items["movie"][1] = tmdb.movie(1, title="New Title")
    place.tmdb.items["tv"].pop(2)


def behind(place: Place, job: str) -> None:
    """Let the changes be of a day that is not done yet."""
    if job == "tmdb_changes":
        place.query(
            f"UPDATE {{a}}.etl_state_tmdb_changes SET watermark = DATE '{ago(2)}' WHERE TRUE"
        )


# However it is started.


@pytest.fixture
def environ(place: Place, sandbox_dir: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The environment of a process that runs here."""
    found = place.environ | {"SANDBOX_DIR": str(sandbox_dir)}
    for name, value in found.items():
        monkeypatch.setenv(name, value)
    return found


@pytest.mark.parametrize("job", API_JOBS)
def test_it_runs_from_everywhere_with_the_same_result(
    job: str,
    place: Place,
    environ: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """From a terminal, by POST /run and as a Cloud Run job; and nothing of it tells a secret."""
    fill(place)
    assert main.command_line(["--local", "--job", job, "--json"]) == 0
    first, stored = json.loads(capsys.readouterr().out), place.stored(job)
    assert (first["job"], first["status"]) == (job, "succeeded")
    assert sum(map(len, stored.values())) > 0

    client = create_app(environ, is_local=True).test_client()
    answer = client.post("/run", json={"job": job}).get_json()
    assert answer["status"] == "succeeded", answer
    assert place.stored(job) == stored
    pages = [client.get(path) for path in ("/jobs", "/runs", "/config", "/status", "/ready")]
    seen = {page.request.path: page.get_json() for page in pages}
    shown = {each["job"]: each for each in seen["/jobs"]["jobs"]}[job]
    ids = {first["run_id"], answer["run_id"]}  # of one second, perhaps: then in any order
    assert shown["last_success"]["run_id"] in ids
    assert shown["is_stale"] is False
    assert {run["run_id"] for run in seen["/runs"]["runs"]} == ids
    report = client.get(f"/runs/{answer['run_id']}").get_json()
    assert report["counts"] == answer["counts"]

    monkeypatch.setenv("CLOUD_RUN_EXECUTION", f"{job}-abc")
    monkeypatch.setenv("CLOUD_RUN_JOB", f"posthog-etl-{job}")
    for _ in range(2):  # the second attempt of an execution that has succeeded
        assert main.command_line(["--local", "--job", job]) == 0
    assert [row["status"] for row in place.query("SELECT status FROM {a}.etl_runs")] == [
        "succeeded"
    ] * 3
    assert place.stored(job) == stored
    assert main.command_line(["--local", "--job", job, "--check"]) == 0

    ledger = place.query("SELECT TO_JSON_STRING(r) AS text FROM {a}.etl_runs AS r")
    told = "".join(capsys.readouterr()) + json.dumps([first, answer, seen, report, ledger])
    assert not [name for name, secret in SECRETS.items() if secret in told]


@pytest.mark.parametrize("job", API_JOBS)
def test_a_refused_key_is_reported_without_it(
    job: str, place: Place, environ: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    """In no log line, in no answer, and not in the ledger."""
    fill(place)
    fake_of(place, job).key = "another"
    if job == "dog_breeds":  # it has no key, as the API allows
        fake_of(place, job).break_down(Fault(status=401, times=None))
    client = create_app(environ, is_local=True).test_client()
    answer = client.post("/run", json={"job": job})
    assert (answer.status_code, answer.get_json()["error"]["type"]) == (500, "CredentialsError")
    code = main.command_line(["--local", "--job", job])
    assert code == CredentialsError.exit_code
    rows = place.query("SELECT error, report FROM {a}.etl_runs")
    told = answer.get_data(as_text=True) + "".join(capsys.readouterr()) + json.dumps(rows)
    assert not [name for name, secret in SECRETS.items() if secret in told]


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
def test_what_is_not_set_is_reported_when_the_job_is_asked_for(
    job: str,
    variable: str,
    place: Place,
    environ: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Not when the service starts, which serves the others; one line says how the run ended."""
    monkeypatch.setenv(variable, "")
    said = f"The job {job} needs {variable}: set what is missing."
    assert main.command_line(["--local", "--job", job]) == SettingsError.exit_code
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    (ended,) = [line for line in lines if line.get("event") == "run_finished"]
    assert (ended["job"], ended["error"].startswith(said)) == (job, True)
    assert IN_PROGRESS.all() == []
    client = create_app(environ | {variable: ""}, is_local=True).test_client()
    answer = client.post("/run", json={"job": job})
    assert (answer.status_code, said in answer.get_data(as_text=True)) == (500, True)
    settings = place.settings(**{variable: ""})
    assert find_job(job).missing(settings) == [variable]
    assert find_job("sessions").missing(settings) == []


def test_a_weekly_job_is_not_stale_after_a_day(place: Place, environ: dict[str, str]) -> None:
    """Neither for GET /jobs nor for --check: what is usual stands in config/jobs.yaml."""
    fill(place)
    for job in ("dog_breeds", "tmdb_changes"):
        place.run(job)
    place.query(
        "UPDATE {a}.etl_runs SET finished_at = TIMESTAMP_SUB(finished_at, INTERVAL 3 DAY)"
        " WHERE TRUE"
    )
    for job, outcome in (("dog_breeds", "ok"), ("tmdb_changes", "warning")):
        assert place.check(job)["last run"].outcome == outcome
    client = create_app(environ, is_local=True).test_client()
    jobs = {job["job"]: job["is_stale"] for job in client.get("/jobs").get_json()["jobs"]}
    assert jobs == {
        "sessions": True, "claude_usage": None, "dog_breeds": False, "tmdb_changes": True,
    }  # fmt: skip


def test_ready_names_what_the_service_is_to_run(place: Place) -> None:
    """Jobs that are deployed in mode service alone: their settings, their dataset, Redis."""
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
    good = Warehouse(clients=place.clients, settings=place.settings(), run_id="no_run")
    for need in needs.values():
        need(good)
    without = place.settings(ANTHROPIC_ORGANIZATION_ID="", REDIS_PASSWORD="another")  # noqa: S106
    bad = Warehouse(clients=place.clients, settings=without, run_id="no_run")
    with pytest.raises(SettingsError, match="ANTHROPIC_ORGANIZATION_ID"):
        needs["claude_usage.settings"](bad)
    with pytest.raises(CredentialsError, match="REDIS_PASSWORD"):
        needs["tmdb_changes.redis"](bad)
    assert jobs_needs({job: replace(each, mode="job") for job, each in declared.items()}) == {}


# Whatever stops it.


@pytest.mark.parametrize("job", API_JOBS)
def test_sigterm_stops_it_within_two_seconds(job: str, place: Place) -> None:
    """Though its API does not answer; the lease is free, and readers see no change."""
    fill(place)
    place.run(job)
    change(place)
    behind(place, job)
    stored = place.stored(job)
    fake_of(place, job).break_down(Fault(trouble="hang", times=None))
    fake_of(place, job).requests.clear()
    told_at: list[float] = []

    def tell_to_stop() -> None:
        while not fake_of(place, job).requests:
            time.sleep(0.02)
        told_at.append(time.monotonic())
        STOP.set()

    threading.Thread(target=tell_to_stop).start()
    try:
        with pytest.raises(AbortedError):
            place.run(job)
    finally:
        STOP.clear()
    assert time.monotonic() - told_at[0] < 2
    assert place.stored(job) == stored
    fake_of(place, job).recover()
    assert place.run(job).status == "succeeded"


@pytest.mark.parametrize("job", API_JOBS)
def test_the_deadline_stops_it_within_two_seconds(job: str, place: Place) -> None:
    """The ledger says so."""
    fill(place)
    fake_of(place, job).break_down(Fault(trouble="hang", times=None))
    started = time.monotonic()
    with pytest.raises(RunTimeoutError):
        place.run(job, variables={"ETL_TIMEOUT_SECONDS": "2"})
    assert time.monotonic() - started < 4.5  # what comes before the lease is not counted
    assert [row["status"] for row in place.query("SELECT status FROM {a}.etl_runs")] == [
        "timed_out"
    ]


POINTS = [
    (job, point) for job in API_JOBS for point in (*find_job(job).step_names, "a batch", "the end")
]


@dataclass(kw_only=True)
class Victim:
    """A job whose API says one thing and another in turn, and what an undisturbed run stores."""

    place: Place
    job: str
    expected: dict[bool, dict[str, list[str]]]
    is_changed: bool = False

    def turn(self) -> None:
        """Let the API say the other thing."""
        self.is_changed = not self.is_changed
        fill(self.place)
        if self.is_changed:
            change(self.place)


@contextmanager
def made_victim(job: str, place: AbstractContextManager[Place]) -> Iterator[Victim]:
    """A place that the job has run in. What it stores of either is found in an empty place."""
    with place as made:
        found = Victim(place=made, job=job, expected={})
        for _ in range(2):
            made.drop()
            found.turn()
            made.run(job)
            found.expected[found.is_changed] = made.stored(job)
        assert found.expected[True] != found.expected[False]
        yield found


@pytest.fixture(scope="module")
def victims(
    clients: Clients, endpoints: Endpoints, redis_port: int
) -> Iterator[Callable[[str], Victim]]:
    """The victim of a job: one at a time, and the same for as long as it is the same job's."""
    with ExitStack() as stack:
        last: list[Victim] = []

        def victim(job: str) -> Victim:
            if not last or last[-1].job != job:
                stack.pop_all().close()
                place = made_place(clients, endpoints, redis_port)
                last.append(stack.enter_context(made_victim(job, place)))
            return last[-1]

        yield victim


@pytest.mark.parametrize(("job", "at"), POINTS, ids=lambda value: value)
def test_the_next_run_repairs_a_killed_run(
    job: str, at: str, victims: Callable[[str], Victim], kill: Kill
) -> None:
    """Killed as a step begins, after a batch or at the end: the next run ends as if it had not."""
    victim = victims(job)
    place = victim.place
    assert place.stored(job) == victim.expected[victim.is_changed]
    victim.turn()
    behind(place, job)
    before = place.stored(job)
    assert kill(place, job, at) == SIGKILLED
    seen: dict[str, Any] = place.stored(job)
    is_published = at == "the end"
    if job == "tmdb_changes":
        table = "etl_state_tmdb_changes"
        assert (seen[table] == before[table]) is not is_published
    else:
        assert (seen == before) is not is_published
    place.expire_lease(job)
    assert place.run(job).status == "succeeded"
    assert place.stored(job) == victim.expected[victim.is_changed]
