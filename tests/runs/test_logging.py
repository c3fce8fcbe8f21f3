"""Every line of a run names the run, and one line says how it ended: alerts rely on that."""

from __future__ import annotations

import io
import json
import logging
import threading
import time
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

import main
from app import create_app
from bigquery.retries import start
from runs.errors import CredentialsError, LeaseHeldError
from runs.lease_row import LeaseRow
from runs.log import LOG, configure_logging, log_fields, log_run_finished, log_run_not_begun
from runs.request import RunRequest
from runs.settings import Settings
from runs.supervision import STOP, take_lease
from sessions.report import SessionsReport
from tests.runs.test_lease import ActAtStep, warehouse
from tests.scenario import Scenario
from tests.sessions.test_requests_on_data import day_of_sessions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from bigquery.clients import Clients
    from runs.errors import EtlError
    from runs.progress import Progress
    from runs.report import RunKind

NO_KEY = {"GOOGLE_CLOUD_PROJECT_ID": "my-project", "BIGQUERY_CREDENTIALS_PATH": "/no/key.json"}
TRACE = "0123456789abcdef0123456789abcdef"


@contextmanager
def logged(*, as_json: bool = True, **fields: str) -> Iterator[io.StringIO]:
    """What is logged within the block, as the process would print it."""
    kept, level, propagate = LOG.handlers[:], LOG.level, LOG.propagate
    stream = io.StringIO()
    configure_logging(stream, as_json=as_json, fields=fields)
    try:
        yield stream
    finally:
        LOG.handlers[:], LOG.propagate = kept, propagate
        LOG.setLevel(level)


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    """The lines of JSON."""
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_fields_belong_to_the_lines_within_their_block() -> None:
    """Inner fields override outer ones; fields end with their block, and stay in their thread."""
    with logged(execution="e1") as stream:
        with log_fields({"run_id": "r1", "job": "sessions"}):
            LOG.info("one")
            with log_fields({"run_id": "r2"}):
                LOG.info("two", extra={"fields": {"job": "other"}})
            other = threading.Thread(target=LOG.info, args=("three",))
            other.start()
            other.join()
        LOG.info("four")
    reported = [(each.get("run_id"), each.get("job"), each["execution"]) for each in lines(stream)]
    assert reported == [
        ("r1", "sessions", "e1"),
        ("r2", "other", "e1"),
        (None, None, "e1"),
        (None, None, "e1"),
    ]


def test_threads_of_a_run_log_with_its_fields() -> None:
    """A thread that a run starts has the fields of the run."""
    with logged() as stream, log_fields({"run_id": "r1"}):
        start(lambda: LOG.info("beside")).result()
    assert [each["run_id"] for each in lines(stream)] == ["r1"]


@pytest.mark.parametrize("header", ["X-Cloud-Trace-Context", "traceparent"])
def test_the_lines_of_a_request_carry_its_trace(header: str) -> None:
    """Cloud Logging groups lines by the trace; either header may name it."""
    value = f"{TRACE}/1;o=1" if header.startswith("X") else f"00-{TRACE}-0123456789abcdef-01"
    with logged() as stream:
        create_app(NO_KEY).test_client().post("/run", headers={header: value})
        create_app(NO_KEY).test_client().post("/run", headers={header: f"x{value}"})
    traces = [each.get("logging.googleapis.com/trace") for each in lines(stream)]
    assert len(traces) == 6
    assert set(traces[:3]) == {f"projects/my-project/traces/{TRACE}"}
    assert set(traces[3:]) == {None}


def finished(stream: io.StringIO) -> dict[str, Any]:
    """The one line that ends a run."""
    (line,) = [each for each in lines(stream) if each.get("event") == "run_finished"]
    return line


def test_a_run_that_could_not_begin_logs_its_end() -> None:
    """Without credentials there is no run id; the alert fires all the same, once."""
    with logged() as stream, pytest.raises(CredentialsError):
        main.run(RunRequest(), Settings.from_environment(NO_KEY))
    line = finished(stream)
    assert (line["severity"], line["status"], line["run_id"]) == ("ERROR", "failed", None)
    assert (line["job"], line["error_type"]) == ("sessions", "CredentialsError")
    assert line["error"].startswith("The key file of BIGQUERY_CREDENTIALS_PATH can't be read")
    assert line["message"] == f"run failed: {line['error']}"


@pytest.fixture(scope="module")
def scenario(clients: Clients) -> Iterator[Scenario]:
    """A scenario with a day of sessions that no run has loaded."""
    with Scenario(clients=clients) as scenario:
        scenario.arrive("posthog_events", day_of_sessions(0, 3))
        yield scenario


def run(
    scenario: Scenario, progress: Progress | None = None, trigger: str | None = None
) -> dict[str, Any]:
    """Run the job, which may fail, and return its last line; every line must have the run's id."""
    with logged() as stream:
        try:
            settings = scenario.make_settings()
            request = RunRequest()
            main.main(request, settings, scenario.clients, trigger=trigger, progress=progress)
        except Exception:  # noqa: BLE001 - how it ends is what the line says
            LOG.info("it has ended")
    of_the_run = [each for each in lines(stream) if each["message"] != "it has ended"]
    line = finished(stream)
    assert {each.get("run_id") for each in of_the_run} == {line["run_id"]}
    assert {each.get("job") for each in of_the_run} == {"sessions"}
    return line


def test_a_successful_run_logs_one_line_with_all_that_alerts_need(scenario: Scenario) -> None:
    """It has status, kind, seconds, freshness, warnings and counts, under documented names."""
    line = run(scenario, trigger="nightly")
    assert (line["severity"], line["status"], line["kind"]) == (
        "WARNING",
        "succeeded",
        "full_load",
    )
    assert (line["error"], line["error_type"], line["is_stale"]) == (None, None, True)
    assert line["newest_event_at"].startswith("2026-10-0")
    assert line["seconds"] > 0
    assert [text for text in line["warnings"] if "is the export running?" in text]
    assert line["rows"]["aggregated"] == 6
    assert line["sessions"]["staged"] == 3
    assert line["message"].startswith("run succeeded in ")
    again = run(scenario, trigger="nightly")
    assert (again["severity"], again["status"], again["error"]) == ("INFO", "duplicate", None)
    assert again["run_id"] != line["run_id"]
    assert again["is_stale"] is None


def test_a_run_that_is_refused_causes_no_alert(scenario: Scenario) -> None:
    """A run that meets a held lease logs one line, which no alert takes for a failure."""
    with take_lease(LeaseRow(warehouse=warehouse(scenario, "holder"), job="sessions")):
        line = run(scenario)
    assert (line["severity"], line["status"]) == ("WARNING", "refused")
    assert (line["error_type"], line["kind"]) == ("LeaseHeldError", None)
    assert line["error"].startswith("Run holder holds the lease")


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (LeaseHeldError("Run a holds the lease."), ("WARNING", "refused")),
        (CredentialsError("There is no key."), ("ERROR", "failed")),
    ],
    ids=["refused", "failed"],
)
def test_a_run_that_is_refused_before_it_begins_causes_no_alert(
    error: EtlError, outcome: tuple[str, str]
) -> None:
    """Only a failure is logged as an error, also where no run began."""
    with logged() as stream:
        log_run_not_begun("sessions", error, str(error))
    line = json.loads(stream.getvalue())
    assert (line["severity"], line["status"]) == outcome


def bug() -> None:
    """Log a line without fields of a run, and raise an error with a secret in its text."""
    LOG.warning("it smells odd")
    raise KeyError("phone number")  # noqa: EM101, TRY003 - a test's own text


@pytest.mark.parametrize(
    ("act", "status", "error_type"),
    [
        (bug, "failed", "KeyError"),
        (STOP.set, "aborted", "AbortedError"),
    ],
    ids=["a bug", "SIGTERM"],
)
def test_a_run_that_is_ended_logs_one_line(
    scenario: Scenario,
    act: Callable[[], None],
    status: str,
    error_type: str,
) -> None:
    """The line has the status and the type of the error, and nothing of a bug's text."""
    try:
        line = run(scenario, ActAtStep("changes", act))
    finally:
        STOP.clear()
    assert (line["severity"], line["status"], line["error_type"]) == ("ERROR", status, error_type)
    assert "phone number" not in json.dumps(line)
    assert line["error"]


def test_a_lost_lease_and_a_deadline_have_their_status(scenario: Scenario) -> None:
    """They are `lease_lost` and `timed_out`, as in the ledger."""
    steal = "UPDATE {d}.etl_lease_sessions SET fence = fence + 1, run_id = 'thief' WHERE TRUE"
    scenario.settings["lease_seconds"] = 1
    try:
        line = run(scenario, ActAtStep("changes", lambda: scenario.query(steal)))
        assert (line["status"], line["error_type"]) == ("lease_lost", "LeaseLostError")
        scenario.settings |= {"timeout_seconds": 1, "lease_wait_seconds": 30, "lease_seconds": 60}
        line = run(scenario, ActAtStep("extract", lambda: time.sleep(1.1)))
        assert (line["status"], line["error_type"]) == ("timed_out", "RunTimeoutError")
    finally:
        scenario.settings.clear()


NOW = datetime(2026, 10, 5, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("newest_at", "kind", "is_stale"),
    [
        (NOW - timedelta(hours=25), "incremental", False),
        (NOW - timedelta(hours=27), "nothing_new", True),
        (None, "incremental", True),
        (None, None, None),
    ],
    ids=["fresh", "old", "no events", "nobody looked"],
)
def test_a_report_says_whether_the_sources_are_stale(
    newest_at: datetime | None,
    kind: RunKind | None,
    is_stale: bool | None,  # noqa: FBT001
) -> None:
    """They are stale after 26 hours; a run that ended before it looked doesn't say."""
    report = SessionsReport(
        run_id="r",
        status="succeeded",
        request=RunRequest(),
        engine="pandas",
        kind=kind,
        started_at=NOW,
        finished_at=NOW + timedelta(seconds=12),
        newest_event_at=newest_at,
    )
    assert report.is_stale is is_stale
    with logged() as stream:
        log_run_finished(report)
    line = finished(stream)
    assert (line["severity"], line["is_stale"]) == ("INFO", is_stale)
    assert line["message"] == "run succeeded in 12 s"


def test_a_terminal_does_not_show_events_for_alerts() -> None:
    """There the report and the error say the same already."""
    with logged(as_json=False) as stream:
        LOG.error("run failed", extra={"fields": {"event": "run_finished"}})
        LOG.log(logging.WARNING, "something else")
    assert stream.getvalue() == "WARNING: something else\n"
