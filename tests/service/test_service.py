"""Real runs through the service: gunicorn, HTTP, the product's clients, and the emulator."""

from __future__ import annotations

import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from subprocess import CompletedProcess
from typing import TYPE_CHECKING

import pytest

from sandbox.sources import SourceDatasets, append_rows
from tests.forks import environ_of
from tests.paths import ROOT
from tests.sessions.test_requests_on_data import day_of_sessions
from tests.test_app import Service, serving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from google.cloud import bigquery

    from bigquery.clients import Clients

REFUSED = "(holds|held) the lease"


@pytest.fixture(scope="module")
def client(clients: Clients, usual_sources: SourceDatasets) -> bigquery.Client:
    """A client of the sandbox, which has a day of sessions."""
    append_rows(clients.bigquery, usual_sources, "posthog_events", day_of_sessions(0, 6))
    return clients.bigquery


@pytest.fixture(scope="module")
def service(
    sandbox_dir: Path, client: bigquery.Client, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    """The service under gunicorn, on that sandbox."""
    assert client.project == "local"
    log = tmp_path_factory.mktemp("service") / "log"
    with serving(log, app="app:local()", SANDBOX_DIR=str(sandbox_dir)) as found:
        yield found


def test_a_post_without_a_body_is_an_ordinary_run(service: Service) -> None:
    """Cloud Scheduler's bare POST: a run, its report as the answer, its steps in the log."""
    answer = service.request("POST", "/run", b"", {"Content-Type": "application/octet-stream"})
    assert answer.status == 200
    assert (answer.body["status"], answer.body["kind"]) == ("succeeded", "full_load")
    assert answer.body["sessions"]["staged"] == 6
    assert sum(answer.body["counts"].values()) == 12
    steps = [line["step"] for line in service.logged() if "step" in line]
    assert steps == [step["name"] for step in answer.body["steps"]]


def test_the_body_says_what_to_run(service: Service, client: bigquery.Client) -> None:
    """Its fields are those of a run's request; only new rows are processed."""
    append_rows(client, SourceDatasets(), "posthog_events", day_of_sessions(3, 2))
    answer = service.request("POST", "/run", b'{"full_load": false}')
    assert answer.body["kind"] == "incremental"
    assert answer.body["sessions"]["staged"] == 2
    rows = client.query("SELECT COUNT(*) AS n FROM posthog_aggregated.sessions").result()
    assert [row["n"] for row in rows] == [8]


def test_sessions_are_verified_over_http(service: Service) -> None:
    """Some sessions are compared with the source; for one of them its events are listed."""
    found = service.request("GET", "/verify?sessions=3&seed=x")
    assert (found.status, found.body["outcome"]) == (200, "ok")
    assert (found.body["sessions"], found.body["seed"]) == (3, "x")
    assert service.request("GET", "/verify?sessions=201").status == 400
    assert service.request("GET", "/verify?days=1").status == 400
    story = service.request("GET", "/sessions/d0-1")
    assert [line["number"] for line in story.body["events"]] == [1, 2]
    absent = service.request("GET", "/sessions/nobody's")
    assert absent.status == 404
    assert "There is no session nobody's" in str(absent.body)


def scheduled(name: str, at: str) -> dict[str, str]:
    """The headers of a delivery by Cloud Scheduler."""
    return {"X-CloudScheduler-JobName": name, "X-CloudScheduler-ScheduleTime": at}


def test_a_repeated_delivery_starts_no_run(service: Service) -> None:
    """The scheduler delivers at least once: a repeat gets the id of the first run."""
    nightly = scheduled("nightly", "2026-10-05T02:00:00Z")
    first = service.request("POST", "/run", b"", nightly)
    again = service.request("POST", "/run", b"", nightly)
    assert (first.body["status"], again.body["status"]) == ("succeeded", "duplicate")
    assert (again.status, again.body["run_id"]) == (200, first.body["run_id"])
    assert [step["name"] for step in again.body["steps"]] == ["lease"]
    forced = service.request("POST", "/run", b'{"force": true}', nightly)
    assert forced.body["status"] == "succeeded"
    weekly = service.request("POST", "/run", b"", scheduled("weekly", "2026-10-05T02:00:00Z"))
    assert weekly.body["status"] == "succeeded"  # another schedule is another delivery


def test_a_missing_source_gives_a_502_and_the_delivery_runs_again(
    service: Service, client: bigquery.Client
) -> None:
    """The class of the error decides the status, and the sentence names the table.

    After a failure the same delivery runs again: only success makes it a duplicate.
    """
    nightly = scheduled("nightly", "2026-10-06T02:00:00Z")
    client.query("ALTER TABLE posthog_etl.events RENAME TO kept_events").result()
    try:
        answer = service.request("POST", "/run", b"", nightly)
    finally:
        client.query("ALTER TABLE posthog_etl.kept_events RENAME TO events").result()
    assert answer.status == 502
    assert "local.posthog_etl.events" in answer.message
    rows = client.query(
        "SELECT status, error FROM posthog_aggregated.etl_runs ORDER BY started_at DESC LIMIT 1"
    ).result()
    assert [(row["status"], row["error"]) for row in rows] == [("failed", answer.message)]
    again = service.request("POST", "/run", b"", nightly)
    assert (again.status, again.body.get("status")) == (200, "succeeded"), again.body


def test_simultaneous_requests_run_one_at_a_time(service: Service, sandbox_dir: Path) -> None:
    """Of six requests and two command lines, those that find the lease held are refused."""

    def command() -> CompletedProcess[str]:
        command = [sys.executable, "main.py", "--local", "--json"]
        return subprocess.run(  # noqa: S603 - our own command
            command,
            cwd=ROOT,
            env=environ_of(sandbox_dir),
            capture_output=True,
            text=True,
            check=False,
        )

    with ThreadPoolExecutor(8) as pool:
        commands = [pool.submit(command) for _ in range(2)]
        answers = list(pool.map(lambda _: service.request("POST", "/run"), range(6)))
    ended = [command.result() for command in commands]
    refused = [answer for answer in answers if answer.status != 200]
    assert {answer.status for answer in refused} == {409}
    # One has the lease: a request, or a command line.
    assert len(refused) < len(answers) or any(each.returncode == 0 for each in ended)
    assert all(re.search(REFUSED, answer.message) for answer in refused)
    assert {each.returncode for each in ended} <= {0, 75}
    assert all(bool(re.search(REFUSED, each.stderr)) == bool(each.returncode) for each in ended)
