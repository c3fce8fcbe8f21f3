"""Secrets and Firebase's personal data appear nowhere: canaries, whatever fails and however.

What Secret Manager's failures say of a key is in test_credentials.
"""

from __future__ import annotations

import itertools
import json
import logging
import re
import sys
import time
import traceback
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

import main
from app import create_app
from bigquery import retries
from bigquery.clients import local_clients
from bigquery.warehouse import Warehouse
from runs import supervision
from runs.lease_row import LeaseRow
from runs.log import configure_logging
from runs.request import RunRequest
from runs.supervision import STOP, take_lease
from sandbox import emulator
from tests.fault_proxy import Fault, HttpProxy
from tests.runs.test_lease import ActAtStep
from tests.scenario import Scenario
from tests.sessions.test_requests_on_data import MIDNIGHT, day_of_sessions, event

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

CANARIES = {
    "private key": "Q0FOQVJZS0VZQ0FOQVJZS0VZQ0FOQVJZS0VZQ0FOQVJZS0VZ",
    "api key": "canary-api-key-0123456789",
    "phone": "+999 1234 5678 901",
    "digits of the phone": "99912345678901",
    "e-mail": "canary.person@example.org",
    "full name": "Canary Q. Person",
    "user name": "canary_handle",
}
PERSON = {
    "user_id": "canary-user",
    "phoneNumber": CANARIES["phone"],
    "email": CANARIES["e-mail"],
    "fullName": CANARIES["full name"],
    "username": CANARIES["user name"],
    "createdAt": MIDNIGHT.isoformat(),
}
PEM = f"-----BEGIN PRIVATE KEY-----\n{CANARIES['private key']}\n-----END PRIVATE KEY-----\n"
KEY_FILES = {
    "no JSON": f'{{"type": "service_account", "private_key": "{CANARIES["private key"]}"',
    "no service account": json.dumps({"type": "authorized_user", "client_secret": PEM}),
    "no PEM": json.dumps({
        "type": "service_account",
        "client_email": "runner@my-project.iam.gserviceaccount.com",
        "token_uri": "https://oauth2.googleapis.com/token",
        "private_key": PEM,
    }),
}  # fmt: skip


def check_silent(*message: str) -> None:
    """No canary in any of it, in any case."""
    recorder = "\n".join(message).lower()
    assert [name for name, canary in CANARIES.items() if canary.lower() in recorder] == []


def written(scenario: Scenario) -> str:
    """Every row of every table of the destination."""
    names = [
        table.table_id for table in scenario.clients.bigquery.list_tables(scenario.destination)
    ]
    rows = [scenario.query(f"SELECT * FROM {{d}}.{name}") for name in names]
    return repr(dict(zip(names, rows, strict=True)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A scenario with a person in it, run once, where its emulator answers, and what names it."""

    scenario: Scenario
    endpoints: emulator.Endpoints
    environ: dict[str, str]
    staged: str  # all that was written when that run began its audit


@dataclass(kw_only=True)
class Scene:
    """The same, and the ways to run over it."""

    scenario: Scenario
    endpoints: emulator.Endpoints
    environ: dict[str, str]
    monkeypatch: pytest.MonkeyPatch

    def command_line(self, *arguments: str) -> int:
        """What the command line would exit with."""
        for name, value in self.environ.items():
            self.monkeypatch.setenv(name, value)
        return main.command_line(arguments)

    def serve(self, requests: list[tuple[str, str, Any]], **environ: str) -> list[str]:
        """What the service answers, with a key that is a canary."""
        key = {"AUTH": "api_key", "ETL_API_KEY": CANARIES["api key"]}
        client = create_app({**self.environ, **key, **environ}, is_local=True).test_client()
        headers = {"X-API-Key": CANARIES["api key"]}
        return [
            str(client.open(path, method=method, data=body, headers=headers).get_data(as_text=True))
            for method, path, body in requests
        ]

    @contextmanager
    def users(self, select: str) -> Iterator[None]:
        """The users table is a view, over what it was."""
        name = f"{self.scenario.datasets.firebase}.users"
        self.scenario.query(f"ALTER TABLE {name} RENAME TO kept_users")
        kept = f"{self.scenario.datasets.firebase}.kept_users"
        self.scenario.query(f"CREATE VIEW {name} AS {select} FROM {kept}")
        try:
            yield
        finally:
            self.scenario.query(f"DROP VIEW {name}")
            self.scenario.query(f"ALTER TABLE {kept} RENAME TO users")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    """The scenario, in a sandbox that the command line finds."""
    folder = tmp_path_factory.mktemp("sandbox")
    with emulator.attach(folder) as endpoints:
        clients = local_clients(endpoints)
        scenario = Scenario(clients=clients)
        at = MIDNIGHT.replace(hour=9)
        scenario.arrive("posthog_events", [event("canary", at, distinct_id="canary-user")])
        scenario.arrive("posthog_events", day_of_sessions(0, 2))
        scenario.arrive(
            "firebase_users", [PERSON, {**PERSON, "user_id": "twin", "createdAt": None}]
        )
        settings = scenario.make_settings()
        staged: list[str] = []
        progress = ActAtStep("audit", lambda: staged.append(written(scenario)))
        main.main(RunRequest(), settings, clients, progress=progress)
        yield Made(
            scenario=scenario,
            endpoints=endpoints,
            environ={
                "SANDBOX_DIR": str(folder),
                "POSTHOG_DATASET_ID": settings.posthog_dataset_id,
                "FIREBASE_DATASET_ID": settings.firebase_dataset_id,
                "POSTHOG_AGGREGATED_DATASET_ID": settings.aggregated_dataset_id,
            },
            staged=staged[0],
        )
        clients.close()


@pytest.fixture
def scene(made: Made, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    """The same, with something to do, and with the log as it was afterwards."""
    rows = [event("canary", MIDNIGHT, distinct_id="canary-user")]
    made.scenario.arrive("posthog_events", rows)
    log = logging.getLogger("posthog_etl")
    kept = (log.handlers[:], log.level, log.propagate)
    yield Scene(
        scenario=made.scenario,
        endpoints=made.endpoints,
        environ=made.environ,
        monkeypatch=monkeypatch,
    )
    log.handlers[:], log.level, log.propagate = kept


# Ways to fail, each with the exit code that shows that it did so.


def _lease_held(scene: Scene) -> int:
    holder = Warehouse(
        clients=scene.scenario.clients, settings=scene.scenario.make_settings(), run_id="holder"
    )
    with take_lease(LeaseRow(warehouse=holder, job="sessions")):
        return scene.command_line("--local")


def _timeout(scene: Scene) -> int:
    seconds = itertools.count()  # a second passes whenever the run looks at its clock
    clock = SimpleNamespace(monotonic=lambda: next(seconds), sleep=time.sleep)
    scene.monkeypatch.setattr(supervision, "time", clock)
    scene.monkeypatch.setenv("ETL_TIMEOUT_SECONDS", "1")
    return scene.command_line("--local")


def _aborted(scene: Scene) -> int:
    STOP.set()
    try:
        return scene.command_line("--local")
    finally:
        STOP.clear()


def _source_missing(scene: Scene) -> int:
    scene.monkeypatch.setitem(scene.environ, "FIREBASE_DATASET_ID", "nowhere")
    return scene.command_line("--local")


def _source_misshapen(scene: Scene) -> int:
    with scene.users("SELECT phoneNumber, email, fullName"):
        return scene.command_line("--local")


def _destination_refused(scene: Scene) -> int:
    scene.monkeypatch.setitem(scene.environ, "POSTHOG_AGGREGATED_DATASET_ID", "wrong")
    scene.scenario.query("CREATE SCHEMA IF NOT EXISTS wrong")
    scene.scenario.query("CREATE TABLE IF NOT EXISTS wrong.sessions AS SELECT 1 AS session_id")
    return scene.command_line("--local")


def _statement_that_quotes_a_person(scene: Scene) -> int:
    """BigQuery's own words hold the value that it could not cast."""
    with scene.users("SELECT user_id, phoneNumber, email, CAST(email AS INT64) AS createdAt"):
        return scene.command_line("--local")


WAYS: dict[str, tuple[Callable[[Scene], int], int]] = {
    "lease held": (_lease_held, 75),
    "timeout": (_timeout, 75),
    "aborted": (_aborted, 75),
    "source missing": (_source_missing, 3),
    "source misshapen": (_source_misshapen, 3),
    "destination refused": (_destination_refused, 4),
    "a statement quotes a person": (_statement_that_quotes_a_person, 3),
    "check": (lambda scene: scene.command_line("--local", "--check"), 0),
}


@pytest.mark.parametrize("way", WAYS)
def test_the_command_line_tells_no_canary(
    scene: Scene, way: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """Whatever ends a run: nothing on stdout, on stderr or in the ledger tells of a person."""
    act, code = WAYS[way]
    assert act(scene) == code
    message = capfd.readouterr()
    assert message.out + message.err
    check_silent(message.out, message.err, repr(scene.scenario.query("SELECT * FROM {d}.etl_runs")))


@pytest.mark.parametrize("content", KEY_FILES.values(), ids=KEY_FILES)
def test_a_bad_key_file_is_not_quoted(
    scene: Scene, content: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A key that can't be used is named by its setting alone: a value there may be the key."""
    path = tmp_path / "key.json"
    path.write_text(content)
    scene.monkeypatch.setenv("GOOGLE_CLOUD_PROJECT_ID", "my-project")
    scene.monkeypatch.setenv("BIGQUERY_CREDENTIALS_PATH", str(path))
    assert scene.command_line() == 2
    message = capfd.readouterr()
    assert "The key file of BIGQUERY_CREDENTIALS_PATH" in message.err
    assert str(path) not in message.err
    check_silent(message.out, message.err)


def test_the_service_tells_no_canary(scene: Scene, capfd: pytest.CaptureFixture[str]) -> None:
    """Its answers and its log: good requests, bad ones, and failures.

    A view that fails is named with its job, and is no bug of ours.
    """
    configure_logging(sys.stdout, as_json=True)
    secret = CANARIES["api key"]
    answers = scene.serve([
        ("POST", "/run", json.dumps({"limit": secret})),
        ("POST", "/run", json.dumps({"start_date": secret, "engine": secret})),
        ("POST", "/run", f'{{"limit": "{secret}'),
        *[("GET", path, None) for path in ("/ready", "/status", "/config", "/jobs", "/nowhere")],
    ])  # fmt: skip
    with scene.users("SELECT user_id, phoneNumber, email, CAST(email AS INT64) AS createdAt"):
        answers += scene.serve([("POST", "/run", ""), ("GET", "/runs", None)])
    answers += scene.serve([("POST", "/run", "")], FIREBASE_DATASET_ID="nowhere")
    params = json.dumps({"params": {"token": secret}})
    answers += scene.serve([("POST", "/run", params), ("GET", "/runs", None)])
    errors = [(json.loads(answer).get("error") or {}).get("type") for answer in answers]
    assert errors == [
        *["RequestError"] * 3, *[None] * 4, "NotFound", "SourceError", None,
        "SourceMissingError", None, None,
    ]  # fmt: skip
    view = rf"View local\.{scene.scenario.datasets.firebase}\.users can't be read: "
    assert re.search(rf"{view}.*\(.*, job \w+\)", answers[8])
    wrong = create_app(
        {**scene.environ, "AUTH": "api_key", "ETL_API_KEY": "another-key-0123456789"}, is_local=True
    ).test_client()
    refused = wrong.post("/run", headers={"X-API-Key": secret, "Authorization": f"Bearer {secret}"})
    assert refused.status_code == 401
    message = capfd.readouterr()
    check_silent(*answers, refused.get_data(as_text=True), message.out, message.err)


def test_no_exception_tells_a_canary(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """An outage, a job that fails, a failed audit: the text and the traceback of what is raised."""
    monkeypatch.setattr(retries, "_RETRY_SECONDS", 1.0)
    message: list[str] = []

    def run(progress: ActAtStep | None = None) -> None:
        settings = scene.scenario.make_settings()
        with pytest.raises(Exception) as raised:  # noqa: PT011 - any: it is what is looked at
            main.main(RunRequest(), settings, scenario.clients, progress=progress)
        message.append("".join(traceback.format_exception(raised.value)) + repr(raised.value))

    with ExitStack() as stack:
        proxy = stack.enter_context(HttpProxy(scene.endpoints.rest))
        clients = local_clients(replace(scene.endpoints, rest=proxy.address))
        stack.callback(clients.close)
        scenario = replace(scene.scenario, clients=clients)
        for fault in (
            Fault(kind="dropped", method="POST", path="/jobs", body="_user_keys", times=1000),
            Fault(
                kind="job failed", method="POST", path="/jobs", body="_user_keys", reason="invalid"
            ),
        ):
            with proxy.faulty(fault):
                run()
            assert fault.hits
        run(ActAtStep("audit", lambda: stage_twice(scene.scenario)))
    kinds = [re.findall(r"\w+(?:Error)(?=:)", text)[-1] for text in message]
    assert kinds == ["UnavailableError", "StatementError", "AuditError"]
    printed = capfd.readouterr()
    check_silent(*message, printed.out, printed.err)


def stage_twice(scenario: Scenario) -> None:
    """Make the audit fail."""
    tables = scenario.query("SELECT table_name FROM {d}.INFORMATION_SCHEMA.TABLES")
    name = next(each["table_name"] for each in tables if each["table_name"].endswith("_staged"))
    scenario.query(f"INSERT INTO {{d}}.{name} SELECT * FROM {{d}}.{name}")


def test_no_table_holds_a_canary(made: Made) -> None:
    """Staging tables and what is published: users are matched by hashes, and named by their id."""
    now = written(made.scenario)
    assert "_user_keys" in made.staged
    assert "canary-user" in now
    check_silent(made.staged, now)
