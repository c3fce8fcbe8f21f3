"""Two attempts at an execution of a Cloud Run job, and the checks of the tables that they leave."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from bigquery.warehouse import Warehouse
from jobs.sessions_checks import check_sessions
from runs.checks import check_last_run
from runs.execution import Execution
from runs.settings import Settings
from sandbox.sources import SourceDatasets, append_rows
from sessions import checks
from sessions.checks import Figures
from sessions.plan import State
from tests.sessions.test_requests_on_data import day_of_sessions
from tests.shipped import METRIC_TABLE

if TYPE_CHECKING:
    from pathlib import Path

    from bigquery.clients import Clients
    from tests.forks import Run

NOW = datetime(2026, 10, 8, 12, tzinfo=UTC)
NO_KEY = {"GOOGLE_CLOUD_PROJECT_ID": "my-project", "BIGQUERY_CREDENTIALS_PATH": "/no/key.json"}
JOB = {
    "CLOUD_RUN_JOB": "posthog-etl-job",
    "CLOUD_RUN_EXECUTION": "posthog-etl-job-x7kq2",
    "CLOUD_RUN_TASK_INDEX": "0",
    "CLOUD_RUN_TASK_COUNT": "1",
    "CLOUD_RUN_TASK_ATTEMPT": "0",
}
SESSIONS_CHECKS = [
    "sessions", "last run", "newest event", "missing days", "unique keys", "no null keys",
    "order", "fallen metrics", "rows set aside", "columns", "state",
]  # fmt: skip
READINESS_CHECKS = [
    "credentials", "metrics", "bigquery", "location", "posthog_etl.events", "posthog_etl.sessions",
    "firebase_etl_prod.users", "firebase_etl_prod.events", "read_sessions", "destination",
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(sandbox_dir: Path, clients: Clients, usual_sources: SourceDatasets) -> Path:
    """The directory of the sandbox, which has two days of sessions."""
    for day in (0, 1):
        append_rows(clients.bigquery, usual_sources, "posthog_events", day_of_sessions(day, 3))
    return sandbox_dir


@pytest.fixture(scope="module")
def attempts(
    run: Run, folder: Path, clients: Clients
) -> list[tuple[int, str, list[dict[str, Any]]]]:
    """Exit code, stdout and lines of the log of two attempts at one execution."""
    assert clients.bigquery.project == "local"
    before = run("--local", "--check", folder=folder)
    assert before.returncode == 0, before.stderr
    assert [line.split()[:2] for line in before.stdout.splitlines()] == [
        *(["ok", name] for name in READINESS_CHECKS[:-1]),
        ["warning", "destination"],
        ["warning", "sessions"],
    ]
    assert "Dataset posthog_aggregated does not exist: the first run makes it" in before.stdout
    assert "does not exist yet: run main.py once, without --check." in before.stdout
    attempts = []
    for attempt in ("0", "1"):
        done = run("--local", folder=folder, environment=JOB | {"CLOUD_RUN_TASK_ATTEMPT": attempt})
        lines = [json.loads(line) for line in done.stderr.splitlines()]
        attempts.append((done.returncode, done.stdout, lines))
    return attempts


def test_a_second_attempt_at_an_execution_does_nothing(
    attempts: list[tuple[int, str, list[dict[str, Any]]]],
) -> None:
    """Cloud Run may retry a task that has succeeded: the second attempt is a duplicate."""
    ends = [lines[-1] for _, _, lines in attempts]
    assert [code for code, _, _ in attempts] == [0, 0]
    assert [(end["event"], end["status"]) for end in ends] == [
        ("run_finished", "succeeded"),
        ("run_finished", "duplicate"),
    ]
    assert ends[0]["sessions"]["staged"] == 6


def test_every_log_line_of_a_job_names_execution_and_attempt(
    attempts: list[tuple[int, str, list[dict[str, Any]]]],
) -> None:
    """They are fields of each line; stdout stays empty, since the log has the report."""
    for number, (_, stdout, lines) in enumerate(attempts):
        assert stdout == ""
        labels = {(line["execution"], line["attempt"]) for line in lines}
        assert labels == {("posthog-etl-job-x7kq2", str(number))}


def test_other_tasks_of_a_job_have_nothing_to_do(run: Run) -> None:
    """If a job has several tasks by mistake, task 0 works; the others warn and succeed."""
    done = run(environment=JOB | {"CLOUD_RUN_TASK_INDEX": "3", "CLOUD_RUN_TASK_COUNT": "4"})
    assert done.returncode == 0
    (line,) = [json.loads(text) for text in done.stderr.splitlines()]
    assert (line["severity"], line["execution"]) == ("WARNING", "posthog-etl-job-x7kq2")
    assert line["message"] == ("Task 3 has nothing to do: task 0 does all of it, set --tasks to 1.")


def test_a_job_fails_with_the_exit_code_of_its_error(run: Run) -> None:
    """Every line is JSON and names the execution, also the one with the error."""
    done = run(environment=JOB | NO_KEY)
    assert done.returncode == 2
    lines = [json.loads(text) for text in done.stderr.splitlines()]
    assert {line["execution"] for line in lines} == {"posthog-etl-job-x7kq2"}
    assert [line.get("event") for line in lines].count("run_finished") == 1
    assert (lines[-1]["event"], lines[-1]["error_type"]) == ("run_finished", "CredentialsError")
    assert len([line for line in lines if line["severity"] == "ERROR"]) == 1


def test_a_trigger_is_the_same_for_every_attempt() -> None:
    """The trigger names the job and its execution; outside of a job there is none."""
    attempts = [
        Execution.from_environment(JOB | {"CLOUD_RUN_TASK_ATTEMPT": attempt}) for attempt in "01"
    ]
    assert {each.trigger for each in attempts if each} == {"posthog-etl-job posthog-etl-job-x7kq2"}
    assert Execution.from_environment({"CLOUD_RUN_JOB": "", "K_SERVICE": "posthog-etl"}) is None


@pytest.mark.usefixtures("attempts")
def test_a_check_after_a_successful_run_succeeds(run: Run, folder: Path) -> None:
    """Each check prints one line; old events cause a warning and no failure."""
    done = run("--local", "--check", folder=folder)
    assert done.returncode == 0, done.stderr
    lines = [line.split(maxsplit=1) for line in done.stdout.splitlines()]
    names = [*READINESS_CHECKS, *SESSIONS_CHECKS]
    assert all(rest.startswith(name) for (_, rest), name in zip(lines, names, strict=True))
    outcomes = {name: outcome for (outcome, _), name in zip(lines, names, strict=True)}
    assert outcomes == dict.fromkeys(names, "ok") | {"newest event": "warning"}
    assert "6 sessions in local.posthog_aggregated.sessions." in done.stdout
    assert "hours old: is the export running?" in done.stdout


def test_a_check_takes_no_options_of_a_run(run: Run, folder: Path) -> None:
    """`--check --limit 3` is refused, and the message says what to leave out."""
    done = run("--local", "--check", "--limit", "3", folder=folder)
    assert done.returncode == 2
    assert "run nothing: leave out the options of a run." in done.stderr


@pytest.mark.usefixtures("attempts")
def test_a_check_names_a_missing_source(run: Run, folder: Path) -> None:
    """As in `GET /ready`; the checks of the sessions are left out, since a run would fail."""
    missing = {"EVENTS_TABLE": "raw.events"}
    done = run("--local", "--check", folder=folder, environment=missing)
    assert done.returncode == 5
    lines = done.stdout.splitlines()
    assert len(lines) == len(READINESS_CHECKS)
    (failed,) = [line for line in lines if line.startswith("failed")]
    assert "raw.events" in failed
    assert "local:raw.events" in failed or "local.raw.events" in failed


def outcomes(clients: Clients) -> dict[str, tuple[str, str]]:
    """The outcome and the message of each check."""
    settings = Settings(project_id="local")
    warehouse = Warehouse(clients=clients, settings=settings, run_id="check")
    found = check_sessions(METRIC_TABLE, warehouse, datetime.now(UTC))
    assert [each.name for each in found] == SESSIONS_CHECKS
    return {each.name: (each.outcome, each.message) for each in found}


@pytest.mark.usefixtures("attempts")
def test_a_missing_day_and_an_outdated_state_are_warnings(clients: Clients) -> None:
    """A day is not loaded yet, and the state is of other metrics: the next run corrects both."""
    append_rows(clients.bigquery, SourceDatasets(), "posthog_events", day_of_sessions(9, 1))
    statement = "UPDATE posthog_aggregated.etl_state_sessions SET metrics_version = 'x' WHERE TRUE"
    clients.bigquery.query(statement).result()
    found = outcomes(clients)
    assert found["missing days"][0] == "warning"
    assert found["missing days"][1].startswith("2 days of the source have no session (2026-10-14,")
    assert found["state"][0] == "warning"
    assert found["state"][1].startswith("The sessions are of metrics x, not ")


@pytest.mark.usefixtures("attempts")
def test_a_broken_table_fails_the_check(run: Run, folder: Path, clients: Clients) -> None:
    """A repeated key, a null key and a session that ends too early are named; the code is 5."""
    for statement in (
        """INSERT INTO posthog_aggregated.sessions
        SELECT * FROM posthog_aggregated.sessions WHERE session_id = 'd0-0'""",
        "UPDATE posthog_aggregated.sessions SET session_id = NULL WHERE session_id = 'd0-1'",
        """UPDATE posthog_aggregated.sessions
        SET ended_at = TIMESTAMP '2020-01-01' WHERE session_id = 'd0-2'""",
    ):
        clients.bigquery.query(statement).result()
    done = run("--local", "--check", "--json", folder=folder)
    assert done.returncode == 5
    report = json.loads(done.stdout)
    assert report["outcome"] == "failed"
    failed = {
        each["name"]: each["message"] for each in report["checks"] if each["outcome"] == "failed"
    }
    assert failed == {
        "unique keys": "1 rows repeat a session: run with --full-load.",
        "no null keys": "1 sessions have no id or no date: run with --full-load.",
        "order": "1 sessions end before they start: run with --full-load.",
    }


SOUND = Figures(sessions=3, keys=3, distinct_keys=3, null_keys=0, backwards=0)


def test_sound_figures_pass() -> None:
    """Figures that add up fail no check."""
    assert {each.outcome for each in checks.check_figures(SOUND)} == {"ok"}


@pytest.mark.parametrize(
    ("age", "outcome"),
    [(timedelta(hours=26), "ok"), (timedelta(hours=26, seconds=1), "warning"), (None, "warning")],
    ids=str,
)
def test_age_warns_after_26_hours(age: timedelta | None, outcome: str) -> None:
    """The last run and the newest event; a missing one is a warning, too."""
    at = NOW - age if age else None
    assert checks.check_newest_event(at, NOW).outcome == outcome
    assert check_last_run(at, "run", NOW).outcome == outcome


def test_a_time_in_the_future_is_a_warning() -> None:
    """A run or an event in the future shows that a clock is wrong."""
    future = NOW + timedelta(days=365)
    for check in (check_last_run(future, "run", NOW), checks.check_newest_event(future, NOW)):
        assert check.outcome == "warning"
        assert "8760 hours in the future" in check.message
    soon = NOW + timedelta(minutes=1)
    assert check_last_run(soon, "run", NOW).outcome == "ok"


def test_future_days_are_not_missing() -> None:
    """A device whose clock is ahead makes a day that no session has yet."""
    days = [date(2026, 10, 7), date(2026, 10, 8), date(2026, 10, 9)]
    assert checks.check_days(days, set(days[:2]), NOW).outcome == "ok"
    missing = checks.check_days(days, set(days[:1]), NOW)
    assert (missing.outcome, "(2026-10-08)" in missing.message) == ("warning", True)


def test_many_missing_days_are_counted() -> None:
    """The last five are named, the others counted."""
    days = [date(2026, 9, day) for day in range(1, 11)]
    message = checks.check_days(days, set(), NOW).message
    assert message.startswith("10 days of the source have no session (2026-09-06, 2026-09-07,")
    assert "2026-09-10 and 5 more)" in message


def test_a_state_of_another_table_or_other_metrics_is_a_warning() -> None:
    """A missing state is one, too; in each case the next run is a full load."""
    state = State(run_id="r", metrics_version="m", sessions_created_at=NOW, days={})
    for found, outcome in (
        (checks.check_state(state, sessions_created_at=NOW, metrics_version="m"), "ok"),
        (checks.check_state(None, sessions_created_at=NOW, metrics_version="m"), "warning"),
        (checks.check_state(state, sessions_created_at=NOW, metrics_version="n"), "warning"),
        (
            checks.check_state(
                state, sessions_created_at=NOW + timedelta(seconds=1), metrics_version="m"
            ),
            "warning",
        ),
    ):
        assert found.outcome == outcome
        assert ("the next run is a full load" in found.message) == (outcome == "warning")


@pytest.mark.usefixtures("attempts")
def test_an_unexpected_error_ends_with_code_1_and_its_traceback(
    run: Run, folder: Path, clients: Clients
) -> None:
    """It is one line of JSON, too; here the table of the state has unknown columns."""
    clients.bigquery.query(
        "CREATE OR REPLACE TABLE posthog_aggregated.etl_state_sessions AS SELECT 1 AS one"
    ).result()
    done = run("--local", "--check", folder=folder)
    assert done.returncode == 1
    line = json.loads(done.stderr.splitlines()[-1])
    assert (line["severity"], line["message"]) == (
        "ERROR",
        "Something unforeseen happened: this is a bug.",
    )
    assert line["exception"].startswith("Traceback")
