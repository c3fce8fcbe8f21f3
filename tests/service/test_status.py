"""The endpoints for status, runs, jobs, readiness and settings, over gunicorn and HTTP."""

from __future__ import annotations

import dataclasses
import json
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, nullcontext
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from app import create_app
from bigquery.connection import CachedClients
from bigquery.warehouse import Warehouse
from runs.errors import CredentialsError
from runs.lease_row import LeaseRow
from runs.settings import SETTINGS, Settings
from sandbox.sources import SourceDatasets, append_rows
from service import readiness
from tests.bigquery.test_warehouse import denied_storage
from tests.sessions.test_requests_on_data import day_of_sessions
from tests.test_app import Service, serving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from bigquery.clients import Clients
    from sandbox.emulator import Endpoints
    from service.readiness import Probe

SOURCES = (
    "posthog_etl.events",
    "posthog_etl.sessions",
    "firebase_etl_prod.users",
    "firebase_etl_prod.events",
)
NEEDS = {
    "credentials", "metrics", "bigquery", "location", *SOURCES, "read_sessions", "destination",
}  # fmt: skip
SETTINGS_HERE = Settings(project_id="local")


@pytest.fixture(scope="module")
def folder(sandbox_dir: Path, clients: Clients, usual_sources: SourceDatasets) -> Path:
    """The directory of the sandbox, which has a day of sessions."""
    append_rows(clients.bigquery, usual_sources, "posthog_events", day_of_sessions(0, 6))
    return sandbox_dir


@pytest.fixture(scope="module")
def service(folder: Path, clients: Clients) -> Iterator[Service]:
    """The service under gunicorn, on that sandbox."""
    assert clients.bigquery.project == "local"
    with serving(folder / "log", app="app:local()", SANDBOX_DIR=str(folder)) as found:
        yield found


def query(clients: Clients, sql: str) -> None:
    """Run a statement."""
    clients.bigquery.query(sql).result()


def test_before_the_first_run_every_endpoint_answers(service: Service) -> None:
    """Even without a destination: nothing runs, and nothing has run."""
    assert service.request("GET", "/status").body == {
        "status": "idle",
        "runs": [],
        "lease": None,
        "problem": None,
    }
    assert service.request("GET", "/runs").body == {"runs": [], "next": None}
    assert service.request("GET", "/runs/20261121T100700_d0ff7524").status == 404
    jobs = {job["job"]: job for job in service.request("GET", "/jobs").body["jobs"]}
    assert {job["last_success"] for job in jobs.values()} == {None}
    assert jobs["sessions"]["is_stale"] is True
    assert jobs["dog_breeds"]["is_stale"] is None  # it is not deployed


def test_a_run_in_progress_can_be_watched(service: Service) -> None:
    """While POST /run works, the other endpoints answer and report its progress."""
    progress: list[Any] = []
    during: list[Any] = []
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(service.request, "POST", "/run")
        while not running.done():
            progress += service.request("GET", "/status").body["runs"]
            if not during and progress and progress[-1]["step"] == "extract":
                during = [service.request("GET", "/runs").body["runs"][0]]
                during.append(service.request("GET", f"/runs/{progress[-1]['run_id']}").body)
            time.sleep(0.05)
        report = running.result().body
    assert [found["status"] for found in during] == ["running", "running"]
    assert during[1]["run_id"] == during[1]["progress"]["run_id"] == report["run_id"]
    assert {run["run_id"] for run in progress} == {report["run_id"]}
    steps = [step["name"] for step in report["steps"]]
    reported = [run["step"] for run in progress if run["step"]]
    assert reported == sorted(reported, key=steps.index)
    assert len(set(reported)) >= 3
    assert [run["seconds"] for run in progress] == sorted(run["seconds"] for run in progress)
    assert (progress[-1]["batch"], progress[-1]["batches"], progress[-1]["events"]) == (1, 1, 12)
    assert service.request("GET", "/status").body["status"] == "idle"
    stored = service.request("GET", f"/runs/{report['run_id']}").body
    assert stored == {**report, "progress": None}


def write_runs(clients: Clients, *runs: tuple[str, str, str, bool]) -> None:
    """Write rows of the ledger, for runs of this id, status and kind, dry or not."""
    newest_at = "2026-10-05T23:00:00+00:00"
    rows = []
    for run_id, status, kind, dry_run in runs:
        report = json.dumps({"run_id": run_id, "dry_run": dry_run, "newest_event_at": newest_at})
        at = datetime.strptime(run_id[:15], "%Y%m%dT%H%M%S").replace(tzinfo=UTC)
        started_at = f"TIMESTAMP '{at:%Y-%m-%d %H:%M:%S}+00'"
        rows.append(f"('{run_id}', 'sessions', '{status}', '{kind}', {started_at}, '{report}')")
    columns = "run_id, job, status, kind, started_at, report"
    query(
        clients,
        f"INSERT INTO posthog_aggregated.etl_runs ({columns}) VALUES {', '.join(rows)}",
    )


def test_runs_are_listed_in_pages_newest_first(service: Service, clients: Clients) -> None:
    """Each page names the next one, and together they have every run once."""
    old = [f"2020010{day}T020000_0000000{day}" for day in range(1, 5)]
    write_runs(clients, *((run_id, "failed", "incremental", False) for run_id in old))
    paged: list[str] = []
    path = "/runs?limit=2"
    while path:
        answer = service.request("GET", path)
        assert answer.status == 200
        assert len(answer.body["runs"]) <= 2
        paged += [run["run_id"] for run in answer.body["runs"]]
        path = answer.body["next"]
    assert paged[1:] == old[::-1]
    assert paged[0] > old[-1]


def test_invalid_parameters_of_a_page_give_a_400(service: Service) -> None:
    """Bounds, names and ids are checked."""
    for path in ("/runs?limit=0", "/runs?page=2", "/runs?before=x", "/runs?limit=1&limit=2"):
        answer = service.request("GET", path)
        assert (answer.status, answer.body["error"]["type"]) == (400, "RequestError"), path


@pytest.mark.parametrize("run_id", ["20200101T000000_00000000", "x", "%27%20OR%20TRUE"])
def test_an_unknown_run_gives_a_404(service: Service, run_id: str) -> None:
    """In JSON, whatever the id looks like."""
    answer = service.request("GET", f"/runs/{run_id}")
    assert (answer.status, answer.body["error"]["type"]) == (404, "NotFound")
    assert answer.message.endswith("GET /runs lists those there are.")


def test_a_run_is_running_only_while_its_lease_is_valid(service: Service, clients: Clients) -> None:
    """A run elsewhere is known by its lease; once that has expired, the run is lost."""
    dead = "20190101T000000_deadbeef"
    write_runs(clients, (dead, "running", "incremental", False))
    settings = dataclasses.replace(SETTINGS_HERE, lease_seconds=600)
    warehouse = Warehouse(clients=clients, settings=settings, run_id=dead)
    row = LeaseRow(warehouse=warehouse, job="sessions")
    lease = row.take()
    status = service.request("GET", "/status").body
    assert (status["status"], status["lease"]["run_id"]) == ("running elsewhere", dead)
    assert service.request("GET", "/runs").body["runs"][-1]["status"] == "running"
    assert service.request("GET", f"/runs/{dead}").body["status"] == "running"
    query(
        clients,
        "UPDATE posthog_aggregated.etl_lease_sessions SET expires_at = TIMESTAMP '2026-01-02'"
        " WHERE TRUE",
    )
    assert service.request("GET", "/status").body["status"] == "idle"
    assert service.request("GET", "/runs").body["runs"][-1]["status"] == "lost"
    found = service.request("GET", f"/runs/{dead}").body
    assert (found["run_id"], found["status"], found["progress"]) == (dead, "lost", None)
    row.release(lease.fence)
    query(clients, "DROP TABLE posthog_aggregated.etl_lease_sessions")  # the next run creates it
    assert service.request("GET", "/runs").status == 200
    assert service.request("GET", "/status").body["status"] == "idle"


def test_jobs_say_how_fresh_their_data_are(service: Service, clients: Clients) -> None:
    """By the last run that updated everything: no dry run, and none with a limit or dates."""
    query(clients, "DELETE FROM posthog_aggregated.etl_runs WHERE TRUE")
    write_runs(
        clients,
        ("20260101T000000_00000001", "succeeded", "nothing_new", False),
        ("20260102T000000_00000002", "succeeded", "incremental", True),
        ("20260103T000000_00000003", "succeeded", "limit", False),
        ("20260104T000000_00000004", "succeeded", "dates", False),
        ("20260105T000000_00000005", "failed", "incremental", False),
        ("20990101T000000_00000006", "succeeded", "incremental", False),  # its clock was ahead
    )
    job = service.request("GET", "/jobs").body["jobs"][0]
    assert job["last_success"]["run_id"] == "20260101T000000_00000001"
    assert job["newest_event_at"] == "2026-10-05T23:00:00+00:00"
    assert job["age_hours"] > 26
    assert job["is_stale"] is True


def test_ready_names_what_a_run_needs(service: Service) -> None:
    """Each dependency has its outcome and seconds; the answer is cached for some seconds."""
    answer = service.request("GET", "/ready")
    assert (answer.status, answer.body["status"]) == (200, "ready")
    assert answer.body["checks"].keys() == NEEDS
    for check in answer.body["checks"].values():
        assert (check["status"], check["problem"], check["warnings"]) == ("ok", None, [])
        assert check["seconds"] >= 0
    assert service.request("GET", "/ready").body == answer.body


def warnings(clients: Clients) -> dict[str, tuple[str, ...]]:
    """The warnings of the probes, by name."""
    warehouse = Warehouse(clients=clients, settings=SETTINGS_HERE, run_id="no_run")
    probes = readiness.probe_all(SETTINGS_HERE, lambda: nullcontext(warehouse))
    return {probe.name: probe.warnings for probe in probes if probe.warnings}


def problems(clients: Clients, settings: Settings = SETTINGS_HERE) -> dict[str, str]:
    """The problems that the probes find, by name."""
    warehouse = Warehouse(clients=clients, settings=settings, run_id="no_run")
    probes: tuple[Probe, ...] = readiness.probe_all(settings, lambda: nullcontext(warehouse))
    return {probe.name: probe.problem for probe in probes if probe.problem}


def test_a_missing_source_is_reported(clients: Clients) -> None:
    """Only its own check fails; a missing optional source is a warning."""
    query(clients, "ALTER TABLE posthog_etl.events RENAME TO kept_events")
    query(clients, "ALTER TABLE firebase_etl_prod.users RENAME TO kept_users")
    try:
        found, probed = problems(clients), warnings(clients)
    finally:
        query(clients, "ALTER TABLE posthog_etl.kept_events RENAME TO events")
        query(clients, "ALTER TABLE firebase_etl_prod.kept_users RENAME TO users")
    assert found.keys() == {"posthog_etl.events"}
    assert "local.posthog_etl.events" in found["posthog_etl.events"]
    assert probed == {
        "firebase_etl_prod.users": (
            "Table local.firebase_etl_prod.users does not exist: no session gets a user.",
        )
    }


def test_an_invalid_metrics_file_is_reported(clients: Clients, tmp_path: Path) -> None:
    """With the place and the remedy, as at the start of a run; no other check fails."""
    path = tmp_path / "metrics.yaml"
    path.write_text("metrics: [{name: select}]", "utf-8")
    found = problems(clients, dataclasses.replace(SETTINGS_HERE, metrics_file=path))
    assert found.keys() == {"metrics"}
    assert f"{path}:1:18: The name select is a word of SQL: choose another." in found["metrics"]


def test_a_missing_role_for_read_sessions_is_reported(
    endpoints: Endpoints, clients: Clients
) -> None:
    """The role is named, although runs work without it."""
    with denied_storage(endpoints) as denied:
        found = problems(denied)
    assert found.keys() == {"read_sessions"}
    assert "readSessionUser" in found["read_sessions"]
    assert problems(clients) == {}


def test_a_source_of_another_shape_is_reported(clients: Clients) -> None:
    """A table that exists but lacks required columns is not ready."""
    settings = dataclasses.replace(SETTINGS_HERE, posthog_dataset_id="firebase_etl_prod2")
    query(clients, "CREATE SCHEMA IF NOT EXISTS firebase_etl_prod2")
    query(clients, "CREATE TABLE firebase_etl_prod2.events AS SELECT 1 AS one")
    query(clients, "CREATE VIEW firebase_etl_prod2.sessions AS SELECT 1 AS one")
    found = problems(clients, settings)
    assert found.keys() == {"firebase_etl_prod2.events", "firebase_etl_prod2.sessions"}
    assert "has no column for uuid" in found["firebase_etl_prod2.events"]


def test_probes_run_no_statement(clients: Clients) -> None:
    """All their queries are dry runs: nothing is billed, however often somebody asks."""
    before = {job.job_id for job in clients.bigquery.list_jobs(max_results=1000)}
    assert problems(clients) == {}
    after = [
        job for job in clients.bigquery.list_jobs(max_results=1000) if job.job_id not in before
    ]
    assert [job.job_id for job in after if not job.dry_run] == []
    tables = clients.bigquery.list_tables("posthog_aggregated")
    assert "readiness" not in {table.table_id for table in tables}


def test_without_credentials_nothing_else_is_tried() -> None:
    """/ready reports the missing key file; the other checks are not tried, and are not ready."""
    environ = {"GOOGLE_CLOUD_PROJECT_ID": "my-project", "BIGQUERY_CREDENTIALS_PATH": "/no/key.json"}
    client = create_app(environ).test_client()
    answer = client.get("/ready")
    assert answer.status_code == 503
    found = answer.get_json()["checks"]
    assert found["credentials"]["problem"].startswith(
        "The key file of BIGQUERY_CREDENTIALS_PATH can't be read"
    )
    others = [check for name, check in found.items() if name != "credentials"]
    assert {check["problem"] for check in others} == {"Not tried: there are no credentials."}
    status = client.get("/status")
    assert (status.status_code, status.get_json()["status"]) == (200, "unknown")
    assert client.get("/runs").status_code == 500


def refuse() -> None:
    """Raise what a request raises whose key is no longer accepted."""
    message = "BigQuery did not accept the credentials: renew the key or the role."
    raise CredentialsError(message)


def test_refused_credentials_are_read_again(folder: Path, clients: Clients) -> None:
    """Clients are cached between requests, until BigQuery no longer accepts their key."""
    assert clients.bigquery.project == "local"
    settings = dataclasses.replace(SETTINGS_HERE, sandbox_dir=folder)
    with closing(CachedClients(settings, is_local=True)) as cached:
        with cached.warehouse() as first, cached.warehouse() as second:
            assert first.clients is second.clients
        with pytest.raises(CredentialsError), cached.warehouse():
            refuse()
        with cached.warehouse() as third:
            assert third.clients is not first.clients


PRIVATE = {
    "GOOGLE_CLOUD_PROJECT_ID": "canary-project",
    "BIGQUERY_SECRET_NAME": "projects/canary-project/secrets/key",
    "BIGQUERY_CREDENTIALS_PATH": "/canary.json",
    "AUTH": "api_key",
    "ETL_API_KEY": "canary-0123456789",
    "EXCLUDE_DISTINCT_IDS": "canary-1,canary-2,canary-3",
    "EVENTS_TABLE": "canary-project.posthog.events",
    "POSTHOG_SESSIONS_TABLE": "canary-project.posthog.sessions",
    "USERS_TABLE": "canary-project.firebase.users",
    "DOCUMENTS_TABLE": "canary-project.firebase.events",
    "ANTHROPIC_ORGANIZATION_ID": "cacacaca-0000-4000-8000-000000000815",
    "ANTHROPIC_ADMIN_API_KEY": "canary-anthropic",
    "ANTHROPIC_BASE_URL": "https://canary.example.com",
    "DOG_API_BASE_URL": "https://canary.example.com",
    "DOG_API_SECRET_NAME": "canary-dog",
    "TMDB_BASE_URL": "https://canary.example.com",
    "TMDB_READ_TOKEN": "canary-tmdb",
    "REDIS_HOST": "canary.example.com",
    "REDIS_PASSWORD": "canary-redis",
    "REDIS_CA_PATH": "/canary.pem",
}


def test_the_configuration_shows_no_secret_and_no_id() -> None:
    """Every setting is listed; of private values only their number is shown."""
    environ = PRIVATE | {"EXCLUDE_LIBS": "posthog-python", "CHURN_DAYS": "7"}
    headers = {"X-API-Key": PRIVATE["ETL_API_KEY"]}
    answer = create_app(environ).test_client().get("/config", headers=headers)
    assert answer.status_code == 200
    assert "canary" not in answer.text
    assert "0815" not in answer.text
    shown = answer.get_json()["settings"]
    assert list(shown) == [setting.variable for setting in SETTINGS]
    assert shown["CHURN_DAYS"] == 7
    assert shown["EXCLUDE_LIBS"] == ["posthog-python"]
    assert shown["EXCLUDE_DISTINCT_IDS"] == ["(not shown)"] * 3
    assert shown["ETL_API_KEY"] == "(not shown)"
    private = {setting.variable for setting in SETTINGS if setting.is_private}
    assert private == PRIVATE.keys() - {"AUTH"} | {"OIDC_AUDIENCE", "OIDC_ALLOWED", "IAP_AUDIENCE"}
    jobs = answer.get_json()["jobs"]
    assert jobs["tmdb_changes"]["rules"]["min_votes"] == 2
    assert {name for name, job in jobs.items() if job["missing"]} == set()
