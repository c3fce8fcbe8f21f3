"""The command line, as people type it: a process of its own, its output and its exit code."""

from __future__ import annotations

import io
import json
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import main
from runs.log import LOG
from runs.supervision import STOP
from sandbox.sources import SourceDatasets, append_rows
from tests.forks import environ_of
from tests.paths import ROOT
from tests.sessions.test_requests_on_data import day_of_sessions

if TYPE_CHECKING:
    from bigquery.clients import Clients
    from tests.forks import Run


@pytest.fixture(scope="module")
def folder(sandbox_dir: Path, clients: Clients, usual_sources: SourceDatasets) -> Path:
    """The directory of the sandbox, which has two days of sessions."""
    for day in (0, 1):
        append_rows(clients.bigquery, usual_sources, "posthog_events", day_of_sessions(day, 6))
    return sandbox_dir


def test_the_report_alone_is_on_stdout_as_json(folder: Path) -> None:
    """--json prints the report alone; log lines are JSON on stderr, with the run's id.

    This interpreter is a fresh one, as people have it.
    """
    done = subprocess.run(
        [sys.executable, "main.py", "--local", "--json"],
        cwd=ROOT,
        env=environ_of(folder),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    assert report["status"] == "succeeded"
    assert report["sessions"]["staged"] == 12
    assert sum(report["counts"].values()) == 24
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert {line["severity"] for line in lines[:-1]} == {"INFO"}
    assert (lines[-1]["severity"], lines[-1]["event"]) == ("WARNING", "run_finished")  # old events
    assert {line["run_id"] for line in lines if "run_id" in line} == {report["run_id"]}
    assert [line["step"] for line in lines if "step" in line] == [
        step["name"] for step in report["steps"]
    ]


def test_people_get_a_table_whose_sum_closes(run: Run, folder: Path) -> None:
    """The report as text: rows by reason, their sum, sessions and seconds."""
    done = run("--local", "--full-load", folder=folder)
    assert done.returncode == 0, done.stderr
    assert "full load, because it was asked for" in done.stdout
    assert "= rows read or counted" in done.stdout
    numbers = [int(word) for word in done.stdout.split() if word.isdigit()]
    assert 24 in numbers
    assert "12" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--limit", "0"), "limit must be a whole number of sessions"),
        (("--end-date", "2026-10-01"), "end_date needs a start_date"),
        (("--full-load", "--limit", "3"), "full_load takes every session"),
        (("--start-date", "2026-10-02", "--end-date", "2026-10-01"), "before start_date"),
        (("--start-date", "yesterday"), "'yesterday' is no day: write it like 2026-01-31"),
        (("--start-date", "20261101"), "'20261101' is no day: write it like 2026-01-31"),
        (("--end-date", "2026-02-31"), "there is no day 2026-02-31: correct it"),
        (("--limit", "many"), "'many' is no whole number: write it like 100"),
        (("--limit", "1_000"), "'1_000' is no whole number: write it like 100"),
        (("--dry",), "unrecognized arguments: --dry"),
        (("--job", "knitting"), "There is no job knitting"),
        (("--nonsense",), "unrecognized arguments: --nonsense"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_bad_flags_are_refused(
    run: Run, folder: Path, arguments: tuple[str, ...], sentence: str
) -> None:
    """Exit code 2 and one sentence, whatever is wrong with the request."""
    done = run("--local", *arguments, folder=folder)
    assert done.returncode == 2
    assert sentence in done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("environment", "code", "sentence"),
    [
        ({}, 2, "GOOGLE_CLOUD_PROJECT_ID"),
        ({"GOOGLE_CLOUD_PROJECT_ID": "Not A Project"}, 2, "GOOGLE_CLOUD_PROJECT_ID"),
        (
            {"GOOGLE_CLOUD_PROJECT_ID": "my-project", "BIGQUERY_CREDENTIALS_PATH": "/no/key.json"},
            2,
            "The key file of BIGQUERY_CREDENTIALS_PATH can't be read",
        ),
    ],
    ids=["no project", "bad project", "no key file"],
)
def test_bad_settings_are_refused(
    run: Run, environment: dict[str, str], code: int, sentence: str
) -> None:
    """Without usable settings or credentials nothing starts, and nothing falls back to local."""
    done = run(environment=environment)
    assert done.returncode == code
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


def test_a_sandbox_that_cannot_start_is_one_sentence(run: Run, tmp_path: Path) -> None:
    """Exit code 75 where the emulator does not come up."""
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    done = run("--local", folder=blocked)
    assert done.returncode == 75
    errors = [
        line for line in map(json.loads, done.stderr.splitlines()) if line["severity"] == "ERROR"
    ]
    assert [line["error_type"] for line in errors] == ["UnavailableError"]  # reported once
    assert str(blocked) in errors[0]["message"]


def test_a_failed_run_says_why_once(run: Run, folder: Path) -> None:
    """The line that ends a run is enough where a machine reads it; without a run there is none."""
    for options, key in (([], "error_type"), (["--check", "--limit", "1"], "type")):
        done = run("--local", *options, folder=folder, environment={"EVENTS_TABLE": "no.table"})
        lines = [json.loads(line) for line in done.stderr.splitlines()]
        errors = [line for line in lines if line["severity"] == "ERROR"]
        assert [key in line for line in errors] == [True], done.stderr
    checked = run("--local", "--check", folder=folder, environment={"EVENTS_TABLE": "no.table"})
    assert checked.returncode == 5
    assert re.search(r"^failed +no\.table .*Not found", checked.stdout, re.MULTILINE)


def test_help_and_version_need_no_settings(run: Run) -> None:
    """Both answer at once, in an empty environment."""
    assert "--full-load" in run("--help").stdout
    assert run("--version").stdout.startswith("posthog-etl ")


def test_sessions_are_verified_and_explained(run: Run, folder: Path) -> None:
    """Two commands check a number: every cell of some sessions, and what one session is made of."""
    refused = run("--local", "--verify", "3", folder=folder)
    assert refused.returncode == 2
    assert "It reads " in refused.stderr
    assert "add --yes" in refused.stderr
    done = run("--local", "--verify", "3", "--seed", "x", "--yes", "--json", folder=folder)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["sessions"], found["seed"], found["differences"]) == (3, "x", [])
    explained = run("--local", "--explain", "d0-1", "--json", folder=folder)
    assert explained.returncode == 0, explained.stderr
    assert [line["number"] for line in json.loads(explained.stdout)["events"]] == [1, 2]
    shown = run("--local", "--explain", "d0-1", folder=folder)
    assert "from events" in shown.stdout


def test_a_wrong_cell_ends_with_code_5(run: Run, folder: Path, clients: Clients) -> None:
    """By itself, and within --check, which writes it to the ledger."""
    update = "UPDATE posthog_aggregated.sessions SET event_count = 7 WHERE TRUE"
    clients.bigquery.query(update).result()
    done = run("--local", "--session", "d0-1", "--yes", folder=folder)
    assert done.returncode == 5
    assert "d0-1.event_count is 7 and should be 2" in done.stdout
    checked = run("--local", "--check", "--verify", "2", folder=folder)
    assert checked.returncode == 5
    lines = [json.loads(line) for line in checked.stderr.splitlines()]
    assert [(each["kind"], each["status"]) for each in lines if "kind" in each] == [
        ("verify", "failed")
    ]


def test_options_of_a_run_are_no_options_of_a_verification(run: Run, folder: Path) -> None:
    """A question runs nothing, and --yes alone asks nothing."""
    asked = run("--local", "--verify", "1", "--force", folder=folder)
    assert "leave out the options of a run" in asked.stderr
    assert "belong to --verify" in run("--local", "--yes", folder=folder).stderr


def test_a_stdout_that_is_full_or_closed_fails_no_run(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The run has published already."""
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        monkeypatch.setattr(sys, "stdout", full)
        main.print_report("report\n")
    assert "The report can't be written to stdout" in caplog.text
    monkeypatch.setattr(sys, "stdout", None)
    main.print_report("report\n")


def test_a_stderr_that_is_closed_ends_no_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """`2>&-` leaves Python without one: the exit code still says how it went."""
    monkeypatch.setattr(sys, "stderr", None)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.delenv("GOOGLE_CLOUD_PROJECT_ID", raising=False)
    kept = LOG.handlers[:], LOG.level, LOG.propagate
    try:
        assert main.command_line([]) == 2
        sys.stderr.close()  # what it opened instead
    finally:
        LOG.handlers[:], LOG.level, LOG.propagate = kept


def test_whoever_ends_it_twice_keeps_a_cursor(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bars hide it; the second signal ends the process before anything could show it."""
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stderr", terminal)
    kept = signal.getsignal(signal.SIGHUP)
    try:
        main._stop(signal.SIGHUP, None)  # noqa: SLF001 - what a signal calls
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_DFL
        assert STOP.is_set()
    finally:
        STOP.clear()
        signal.signal(signal.SIGHUP, kept)
    assert terminal.getvalue() == "\x1b[?25h"
