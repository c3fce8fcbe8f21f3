"""No secret and no personal data of Firebase is revealed, whatever fails.

The tests search for canaries, values that occur nowhere else. Errors of Secret Manager are tested
in test_credentials.
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
from tests.fault_proxy import Fault, HttpProxy
from tests.runs.test_lease import ActAtStep
from tests.scenario import Scenario
from tests.sessions.test_requests_on_data import MIDNIGHT, day_of_sessions, event

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from bigquery.clients import Clients
    from sandbox import emulator

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


def check_no_canary(*texts: str) -> None:
    """Check that no text holds a canary, in upper or lower case."""
    text = "\n".join(texts).lower()
    assert [name for name, canary in CANARIES.items() if canary.lower() in text] == []


def all_rows(scenario: Scenario) -> str:
    """Every row of every table of the destination."""
    names = [
        table.table_id for table in scenario.clients.bigquery.list_tables(scenario.destination)
    ]
    rows = [scenario.query(f"SELECT * FROM {{d}}.{name}") for name in names]
    return repr(dict(zip(names, rows, strict=True)))


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedSandbox:
    """A scenario with a person, loaded by one run; its emulator, and the variables that name it."""

    scenario: Scenario
    endpoints: emulator.Endpoints
    environ: dict[str, str]
    staged: str  # every row when that run began its audit, as text


@dataclass(kw_only=True)
class Runner:
    """Runs the command line and the service over that scenario."""

    scenario: Scenario
    endpoints: emulator.Endpoints
    environ: dict[str, str]
    monkeypatch: pytest.MonkeyPatch

    def command_line(self, *arguments: str) -> int:
        """Run the command line; its exit code."""
        for name, value in self.environ.items():
            self.monkeypatch.setenv(name, value)
        return main.command_line(arguments)

    def serve(self, requests: list[tuple[str, str, Any]], **environ: str) -> list[str]:
        """The answers of a service whose API key is a canary."""
        key = {"AUTH": "api_key", "ETL_API_KEY": CANARIES["api key"]}
        client = create_app({**self.environ, **key, **environ}, is_local=True).test_client()
        headers = {"X-API-Key": CANARIES["api key"]}
        return [
            str(client.open(path, method=method, data=body, headers=headers).get_data(as_text=True))
            for method, path, body in requests
        ]

    @contextmanager
    def view_of_users(self, select: str) -> Iterator[None]:
        """Replace the users table by a view of it within the block."""
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
def loaded(
    sandbox_dir: Path, endpoints: emulator.Endpoints, clients: Clients
) -> Iterator[LoadedSandbox]:
    """The scenario, in a sandbox that the command line finds."""
    with Scenario(clients=clients) as scenario:
        at = MIDNIGHT.replace(hour=9)
        scenario.arrive("posthog_events", [event("canary", at, distinct_id="canary-user")])
        scenario.arrive("posthog_events", day_of_sessions(0, 2))
        scenario.arrive(
            "firebase_users", [PERSON, {**PERSON, "user_id": "twin", "createdAt": None}]
        )
        settings = scenario.make_settings()
        staged: list[str] = []
        progress = ActAtStep("audit", lambda: staged.append(all_rows(scenario)))
        main.main(RunRequest(), settings, clients, progress=progress)
        yield LoadedSandbox(
            scenario=scenario,
            endpoints=endpoints,
            environ={
                "SANDBOX_DIR": str(sandbox_dir),
                "POSTHOG_DATASET_ID": settings.posthog_dataset_id,
                "FIREBASE_DATASET_ID": settings.firebase_dataset_id,
                "POSTHOG_AGGREGATED_DATASET_ID": settings.aggregated_dataset_id,
            },
            staged=staged[0],
        )


@pytest.fixture
def runner(loaded: LoadedSandbox, monkeypatch: pytest.MonkeyPatch) -> Iterator[Runner]:
    """Runs over the loaded sandbox, with new rows; the logging is restored after the test."""
    rows = [event("canary", MIDNIGHT, distinct_id="canary-user")]
    loaded.scenario.arrive("posthog_events", rows)
    log = logging.getLogger("posthog_etl")
    kept = (log.handlers[:], log.level, log.propagate)
    yield Runner(
        scenario=loaded.scenario,
        endpoints=loaded.endpoints,
        environ=loaded.environ,
        monkeypatch=monkeypatch,
    )
    log.handlers[:], log.level, log.propagate = kept


# Each of these makes a run fail in one way, and returns its exit code.


def _lease_held(runner: Runner) -> int:
    holder = Warehouse(
        clients=runner.scenario.clients, settings=runner.scenario.make_settings(), run_id="holder"
    )
    with take_lease(LeaseRow(warehouse=holder, job="sessions")):
        return runner.command_line("--local")


def _timeout(runner: Runner) -> int:
    seconds = itertools.count()  # a second passes whenever the run looks at its clock
    clock = SimpleNamespace(monotonic=lambda: next(seconds), sleep=time.sleep)
    runner.monkeypatch.setattr(supervision, "time", clock)
    runner.monkeypatch.setenv("ETL_TIMEOUT_SECONDS", "1")
    return runner.command_line("--local")


def _aborted(runner: Runner) -> int:
    STOP.set()
    try:
        return runner.command_line("--local")
    finally:
        STOP.clear()


def _source_missing(runner: Runner) -> int:
    runner.monkeypatch.setitem(runner.environ, "FIREBASE_DATASET_ID", "nowhere")
    return runner.command_line("--local")


def _source_misshapen(runner: Runner) -> int:
    with runner.view_of_users("SELECT phoneNumber, email, fullName"):
        return runner.command_line("--local")


def _destination_refused(runner: Runner) -> int:
    runner.monkeypatch.setitem(runner.environ, "POSTHOG_AGGREGATED_DATASET_ID", "wrong")
    runner.scenario.query("CREATE SCHEMA IF NOT EXISTS wrong")
    runner.scenario.query("CREATE TABLE IF NOT EXISTS wrong.sessions AS SELECT 1 AS session_id")
    return runner.command_line("--local")


def _statement_that_quotes_a_person(runner: Runner) -> int:
    """BigQuery's message holds the value that it could not cast."""
    with runner.view_of_users(
        "SELECT user_id, phoneNumber, email, CAST(email AS INT64) AS createdAt"
    ):
        return runner.command_line("--local")


INVOCATIONS: dict[str, tuple[Callable[[Runner], int], int]] = {
    "lease held": (_lease_held, 75),
    "timeout": (_timeout, 75),
    "aborted": (_aborted, 75),
    "source missing": (_source_missing, 3),
    "source misshapen": (_source_misshapen, 3),
    "destination refused": (_destination_refused, 4),
    "a statement quotes a person": (_statement_that_quotes_a_person, 3),
    "check": (lambda runner: runner.command_line("--local", "--check"), 0),
}


@pytest.mark.parametrize("invocation", INVOCATIONS)
def test_the_command_line_reveals_no_secret_or_personal_data(
    runner: Runner, invocation: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """However a run ends, neither stdout, stderr nor the ledger holds a canary."""
    act, code = INVOCATIONS[invocation]
    assert act(runner) == code
    printed = capfd.readouterr()
    assert printed.out + printed.err
    check_no_canary(
        printed.out, printed.err, repr(runner.scenario.query("SELECT * FROM {d}.etl_runs"))
    )


@pytest.mark.parametrize("content", KEY_FILES.values(), ids=KEY_FILES)
def test_a_bad_key_file_is_not_quoted(
    runner: Runner, content: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The error names the setting and not its value, which may be the key itself."""
    path = tmp_path / "key.json"
    path.write_text(content)
    runner.monkeypatch.setenv("GOOGLE_CLOUD_PROJECT_ID", "my-project")
    runner.monkeypatch.setenv("BIGQUERY_CREDENTIALS_PATH", str(path))
    assert runner.command_line() == 2
    printed = capfd.readouterr()
    assert "The key file of BIGQUERY_CREDENTIALS_PATH" in printed.err
    assert str(path) not in printed.err
    check_no_canary(printed.out, printed.err)


def test_the_service_reveals_no_secret_or_personal_data(
    runner: Runner, capfd: pytest.CaptureFixture[str]
) -> None:
    """Neither answers nor log hold a canary, for good requests, bad ones and failures.

    The error of a view that fails names the view and the job.
    """
    configure_logging(sys.stdout, as_json=True)
    secret = CANARIES["api key"]
    answers = runner.serve([
        ("POST", "/run", json.dumps({"limit": secret})),
        ("POST", "/run", json.dumps({"start_date": secret, "engine": secret})),
        ("POST", "/run", f'{{"limit": "{secret}'),
        *[("GET", path, None) for path in ("/ready", "/status", "/config", "/jobs", "/nowhere")],
    ])  # fmt: skip
    with runner.view_of_users(
        "SELECT user_id, phoneNumber, email, CAST(email AS INT64) AS createdAt"
    ):
        answers += runner.serve([("POST", "/run", ""), ("GET", "/runs", None)])
    answers += runner.serve([("POST", "/run", "")], FIREBASE_DATASET_ID="nowhere")
    params = json.dumps({"params": {"token": secret}})
    answers += runner.serve([("POST", "/run", params), ("GET", "/runs", None)])
    errors = [(json.loads(answer).get("error") or {}).get("type") for answer in answers]
    assert errors == [
        *["RequestError"] * 3, *[None] * 4, "NotFound", "SourceError", None,
        "SourceMissingError", None, None,
    ]  # fmt: skip
    view = rf"View local\.{runner.scenario.datasets.firebase}\.users can't be read: "
    assert re.search(rf"{view}.*\(.*, job \w+\)", answers[8])
    wrong = create_app(
        {**runner.environ, "AUTH": "api_key", "ETL_API_KEY": "another-key-0123456789"},
        is_local=True,
    ).test_client()
    refused = wrong.post("/run", headers={"X-API-Key": secret, "Authorization": f"Bearer {secret}"})
    assert refused.status_code == 401
    printed = capfd.readouterr()
    check_no_canary(*answers, refused.get_data(as_text=True), printed.out, printed.err)


def test_no_exception_reveals_a_secret_or_personal_data(
    runner: Runner, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Text and traceback of an outage, a failed job and a failed audit hold no canary."""
    monkeypatch.setattr(retries, "_RETRY_SECONDS", 1.0)
    tracebacks: list[str] = []

    def run(progress: ActAtStep | None = None) -> None:
        settings = runner.scenario.make_settings()
        with pytest.raises(Exception) as raised:  # noqa: PT011 - whatever it is, its text is examined
            main.main(RunRequest(), settings, scenario.clients, progress=progress)
        tracebacks.append("".join(traceback.format_exception(raised.value)) + repr(raised.value))

    with ExitStack() as stack:
        proxy = stack.enter_context(HttpProxy(runner.endpoints.rest))
        clients = local_clients(replace(runner.endpoints, rest=proxy.address))
        stack.callback(clients.close)
        scenario = replace(runner.scenario, clients=clients)
        for fault in (
            Fault(kind="dropped", method="POST", path="/jobs", body="_user_keys", times=1000),
            Fault(
                kind="job failed", method="POST", path="/jobs", body="_user_keys", reason="invalid"
            ),
        ):
            with proxy.faulty(fault):
                run()
            assert fault.hits
        run(ActAtStep("audit", lambda: stage_twice(runner.scenario)))
    kinds = [re.findall(r"\w+(?:Error)(?=:)", text)[-1] for text in tracebacks]
    assert kinds == ["UnavailableError", "StatementError", "AuditError"]
    printed = capfd.readouterr()
    check_no_canary(*tracebacks, printed.out, printed.err)


def stage_twice(scenario: Scenario) -> None:
    """Make the audit fail."""
    tables = scenario.query("SELECT table_name FROM {d}.INFORMATION_SCHEMA.TABLES")
    name = next(each["table_name"] for each in tables if each["table_name"].endswith("_staged"))
    scenario.query(f"INSERT INTO {{d}}.{name} SELECT * FROM {{d}}.{name}")


def test_no_table_holds_a_secret_or_personal_data(loaded: LoadedSandbox) -> None:
    """Staging and published tables hold hashes and user ids, and no canary."""
    now = all_rows(loaded.scenario)
    assert "_user_keys" in loaded.staged
    assert "canary-user" in now
    check_no_canary(loaded.staged, now)
