"""The name of a scheduled delivery: the same for all its attempts, and for nothing else."""

from __future__ import annotations

from datetime import UTC, date, datetime

import pytest

from runs.request import RunRequest
from service.deliveries import delivery

NOW = datetime(2026, 11, 26, 2, 0, 1, tzinfo=UTC)
AT = "2026-11-26T02:00:00Z"
TOMORROW = "2026-11-27T02:00:00Z"


def test_the_nightly_delivery_has_one_name() -> None:
    """All its attempts send the same headers and the same body, whatever the time."""
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
def test_a_partial_or_dry_run_is_no_delivery(request_: RunRequest) -> None:
    """It must not count as the run that is scheduled."""
    assert delivery("nightly", AT, request_, NOW) is None


def test_another_request_is_another_delivery() -> None:
    """A full load, or other params, is not done because another run of the same name was."""
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
def test_a_future_or_incomplete_delivery_is_ignored(
    name: str | None, scheduled: str | None
) -> None:
    """Otherwise somebody could make tomorrow's delivery a duplicate today."""
    assert delivery(name, scheduled, RunRequest(), NOW) is None
