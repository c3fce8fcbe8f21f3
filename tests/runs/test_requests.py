"""A request is read or refused in one sentence; a report is plain JSON."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta, timezone

import pytest

from runs.errors import RequestError
from runs.report import StepReport
from runs.request import RunRequest
from sessions.report import SessionsReport

FIELDS = "full_load, limit, start_date, end_date, engine, force, dry_run, job, params"


@pytest.mark.parametrize("body", [b"", b" \r\n", b"{}"], ids=["empty", "blank", "object"])
def test_an_empty_request_is_the_nightly_run(body: bytes) -> None:
    """An empty body asks for whatever has changed."""
    assert RunRequest.from_json(body) == RunRequest(
        full_load=False,
        limit=None,
        start_date=None,
        end_date=None,
        engine=None,
        force=False,
        dry_run=False,
        job="sessions",
        params={},
    )


def test_every_field_is_read() -> None:
    """Each field reaches the record, with its type."""
    body = {
        "full_load": False,
        "limit": 100,
        "start_date": "2026-01-31",
        "end_date": "2026-02-01",
        "engine": "bigquery",
        "force": True,
        "dry_run": True,
        "job": "dog_breeds",
        "params": {"days": 7, "ratio": 0.5, "tags": [None, True]},
    }
    request = RunRequest.from_json(json.dumps(body).encode())
    assert request == RunRequest(
        limit=100,
        start_date=date(2026, 1, 31),
        end_date=date(2026, 2, 1),
        engine="bigquery",
        force=True,
        dry_run=True,
        job="dog_breeds",
        params={"days": 7, "ratio": 0.5, "tags": [None, True]},
    )
    assert request.to_json() == body


def test_null_is_the_same_as_left_out() -> None:
    """What may be left out may be null."""
    body = b'{"limit": null, "start_date": null, "end_date": null, "engine": null}'
    assert RunRequest.from_json(body) == RunRequest()


def test_a_full_load_can_be_asked_for() -> None:
    """`full_load` alone, or with what doesn't narrow it, is accepted."""
    assert RunRequest.from_json(b'{"full_load": true, "dry_run": true}').full_load


@pytest.mark.parametrize(
    "body",
    [b'{"start_date": "2018-01-01"}', b'{"start_date": "2026-01-01", "end_date": "2026-01-01"}'],
    ids=["start alone", "one day"],
)
def test_the_first_day_and_a_single_day_are_accepted(body: bytes) -> None:
    """They are dates like any other."""
    RunRequest.from_json(body)


def test_a_start_alone_leaves_the_end_open() -> None:
    """A start without an end runs to the day of the run, which a request doesn't know."""
    assert RunRequest.from_json(b'{"start_date": "2026-01-01"}').end_date is None


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ('{"limit": 0}', "limit must be a whole number of sessions, at least 1;"),
        ('{"limit": 9223372036854775808}', "limit must be a whole number of sessions, at least 1;"),
        ('{"limit": true}', "limit must be a whole number, or left out."),
        ('{"limit": "5"}', "limit must be a whole number, or left out."),
        ('{"limit": 5.0}', "limit must be a whole number, or left out."),
        ('{"full_load": 1}', "full_load must be true or false."),
        ('{"full_load": null}', "full_load must be true or false."),
        ('{"force": "true"}', "force must be true or false."),
        ('{"dry_run": []}', "dry_run must be true or false."),
        ('{"start_date": 20260101}', "start_date must be a day, like 2026-01-31, or left out."),
        ('{"start_date": "20260101"}', "start_date must be a day, like 2026-01-31, or left out."),
        ('{"start_date": "2026-02-31"}', "start_date must be a day, like 2026-01-31,"),
        ('{"end_date": "today"}', "end_date must be a day, like 2026-01-31, or left out."),
        ('{"start_date": "2017-12-31"}', "start_date must not be before 2018-01-01:"),
        ('{"end_date": "2026-01-01"}', "end_date needs a start_date: add one, or leave both out."),
        (
            '{"start_date": "2026-01-02", "end_date": "2026-01-01"}',
            "end_date must not be before start_date: swap them.",
        ),
        ('{"full_load": true, "limit": 1}', "full_load takes every session: leave out limit,"),
        (
            '{"full_load": true, "start_date": "2026-01-01"}',
            "full_load takes every session: leave out limit, start_date and end_date.",
        ),
        ('{"engine": "duckdb"}', "engine must be pandas or bigquery, or left out for the default."),
        ('{"engine": 1}', "engine must be a text."),
        ('{"job": null}', "job must be a text."),
        ('{"job": "a`b"}', "job must be the name of a job, like sessions, or left out."),
        ('{"job": ""}', "job must be the name of a job, like sessions, or left out."),
        ('{"params": []}', "params must be a JSON object, or left out."),
        (
            '{"params": {"a": ' + "[" * 1200 + "]" * 1200 + "}}",
            "params must not be nested more than 20 levels deep: make it flatter.",
        ),
        ('{"params": {"\\ud800": 1}}', "params must not hold half a character"),
        ('{"fullLoad": true}', f"There is no field 'fullLoad': use {FIELDS}."),
        ('{"limit": 1, "limit": 2}', "'limit' stands twice in one object: leave one out."),
        ('{"params": {"a": 1, "a": 1}}', "'a' stands twice in one object: leave one out."),
        ('{"params": {"a": NaN}}', "NaN is not a JSON number: send a finite one, or null."),
        ('{"params": {"a": 1e999}}', "'1e999' is not a JSON number: send a finite one, or null."),
        ("[]", 'The body must be a JSON object: send an object like {} or {"limit": 100}.'),
        ("null", "The body must be a JSON object: send"),
        ("limit=5", "The body is not JSON (line 1, column 1): send an object like {}"),
        ('{"limit": 5,}', "The body is not JSON (line 1, column 12): send an object like {}"),
        ('{"limit": ' + "9" * 5000 + "}", "The body is not JSON: send an object like {}"),
        ('{"params": ' + "[" * 60_000, "The body is not JSON: send an object like {}"),
    ],
    ids=lambda text: text[:40],
)
def test_an_invalid_request_is_refused(body: str, sentence: str) -> None:
    """The error is one sentence that names the field and the remedy."""
    with pytest.raises(RequestError) as caught:
        RunRequest.from_json(body.encode())
    assert str(caught.value).startswith(sentence)
    assert str(caught.value).endswith(".")


def test_twenty_levels_of_params_are_accepted() -> None:
    """They are shown without their values."""
    body = '{"params": {"a": ' + "[" * 19 + "]" * 19 + "}}"
    assert RunRequest.from_json(body.encode()).shown()["params"] == {"a": "(not shown)"}


def test_bytes_that_are_no_text_are_refused() -> None:
    """A body in no encoding of JSON is a bad request, not a bug."""
    with pytest.raises(RequestError, match="The body is not JSON"):
        RunRequest.from_json(b'{"job": "\xff"}')


def test_a_long_name_is_not_sent_back_whole() -> None:
    """A message stays a sentence, whatever was sent."""
    with pytest.raises(RequestError) as caught:
        RunRequest.from_json(json.dumps({"x" * 60_000: 1}).encode())
    assert len(str(caught.value)) < 200


def test_a_request_made_in_code_is_checked_too() -> None:
    """The command line can't ask for what the service would refuse."""
    with pytest.raises(RequestError, match="full_load takes every session"):
        RunRequest(full_load=True, limit=1)


def test_a_request_keeps_its_parameters() -> None:
    """Whoever made it may change the dictionary afterwards, without effect."""
    params: dict[str, object] = {"days": 7}
    request = RunRequest(params=params)
    params["days"] = 8
    assert request.params == {"days": 7}


def test_a_report_is_plain_json() -> None:
    """It has times in UTC and the seconds that the run took."""
    started = datetime(2026, 1, 1, 4, tzinfo=timezone(timedelta(hours=2)))
    report = SessionsReport(
        run_id="r1",
        status="succeeded",
        request=RunRequest(start_date=date(2026, 1, 1), params={"token": "a secret"}),
        engine="pandas",
        kind="dates",
        started_at=started,
        finished_at=started + timedelta(seconds=90.5),
        changed_days=1,
        read_days=3,
        counts={"total": 10, "aggregated": 10},
        sessions={"staged": 2},
        steps=(StepReport(name="aggregate", seconds=1.5, bytes=2048, parts={"download": 1.0}),),
        newest_event_at=datetime(2026, 1, 1, 1, tzinfo=UTC),
        warnings=("old",),
        metrics_version="abc",
    )
    assert json.loads(json.dumps(report.to_json())) == {
        "run_id": "r1",
        "job": "sessions",
        "status": "succeeded",
        "request": {
            "full_load": False,
            "limit": None,
            "start_date": "2026-01-01",
            "end_date": None,
            "engine": None,
            "force": False,
            "dry_run": False,
            "job": "sessions",
            "params": {"token": "(not shown)"},
        },
        "engine": "pandas",
        "kind": "dates",
        "reason": None,
        "announcement": None,
        "columns": {},
        "started_at": "2026-01-01T02:00:00+00:00",
        "finished_at": "2026-01-01T02:01:30.500000+00:00",
        "changed_days": 1,
        "read_days": 3,
        "counts": {"total": 10, "aggregated": 10},
        "sessions": {"staged": 2},
        "firebase": {},
        "persons": {},
        "steps": [{"name": "aggregate", "seconds": 1.5, "bytes": 2048, "parts": {"download": 1.0}}],
        "peak_memory_bytes": 0,
        "bytes_processed": 0,
        "cost_usd": 0.0,
        "newest_event_at": "2026-01-01T01:00:00+00:00",
        "warnings": ["old"],
        "error": None,
        "dry_run": False,
        "metrics_version": "abc",
        "version": "0.1.0",
        "seconds": 90.5,
    }


def test_a_run_in_progress_has_taken_no_time_yet() -> None:
    """Without an end there are no seconds."""
    report = SessionsReport(
        run_id="r1",
        status="running",
        request=RunRequest(),
        engine="pandas",
        started_at=datetime(2026, 1, 1, tzinfo=UTC),
    )
    assert report.to_json()["finished_at"] is None
    assert report.seconds is None
