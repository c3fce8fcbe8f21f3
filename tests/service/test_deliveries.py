"""The name of a scheduled delivery: the same for its attempts, and good for nothing else."""

from __future__ import annotations

from datetime import UTC, date, datetime

import pytest

from runs.request import RunRequest
from service.deliveries import delivery

NOW = datetime(2026, 11, 26, 2, 0, 1, tzinfo=UTC)
AT = "2026-11-26T02:00:00Z"
TOMORROW = "2026-11-27T02:00:00Z"


def test_the_nightly_delivery_has_one_name() -> None:
    """Every attempt at it sends the same headers and the same body, whatever the time."""
    later = datetime(2026, 11, 26, 4, 0, tzinfo=UTC)
    names = {delivery("nightly", AT, RunRequest(), now) for now in (NOW, later)}
    assert names == {"nightly 2026-11-26T02:00:00Z"}


@pytest.mark.parametrize(
    "request_",
    [
        RunRequest(limit=1),
        RunRequest(start_date=date(2026, 1, 1)),
        RunRequest(dry_run=True),
    ],
    ids=str,
)
def test_what_leaves_something_to_be_done_is_no_delivery(request_: RunRequest) -> None:
    """A run with a limit under the name of a delivery must not stand for it."""
    assert delivery("nightly", AT, request_, NOW) is None


def test_another_request_is_another_delivery() -> None:
    """A full load is not done because an ordinary run under the same name was, nor for params."""
    run_requests = [
        RunRequest(),
        RunRequest(full_load=True),
        RunRequest(engine="bigquery"),
        RunRequest(params={"a": 1}),
        RunRequest(params={"a": 2}),
    ]
    assert len({delivery("nightly", AT, each, NOW) for each in run_requests}) == len(run_requests)


@pytest.mark.parametrize(
    ("name", "scheduled"),
    [
        ("nightly", TOMORROW),
        ("nightly", "2026-11-26T04:00:00+01:00"),
        ("nightly", "2026-11-26T02:00:00"),
        ("nightly", "tomorrow"),
        ("nightly", None),
        (None, AT),
        ("", AT),
    ],
    ids=str,
)
def test_a_time_ahead_or_half_a_name_is_none(name: str | None, scheduled: str | None) -> None:
    """Nobody can name tomorrow's delivery today, and so make it a duplicate."""
    assert delivery(name, scheduled, RunRequest(), NOW) is None
