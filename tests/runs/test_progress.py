"""The runs of a process: who makes room for whom."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from runs.errors import LeaseHeldError
from runs.progress import IN_PROGRESS, RunInProgress, check_room

if TYPE_CHECKING:
    from collections.abc import Iterator

NOW = datetime(2026, 10, 5, 12, tzinfo=UTC)


@pytest.fixture
def _no_runs() -> Iterator[None]:
    """None before and after."""
    assert IN_PROGRESS.all() == []
    yield
    for run in IN_PROGRESS.all():
        IN_PROGRESS.remove(run.run_id)


def put(number: int, step: str | None, job: str = "sessions") -> None:
    """Another run of this process."""
    started_at = NOW + timedelta(seconds=number)
    IN_PROGRESS.put(RunInProgress(run_id=f"r{number}", job=job, started_at=started_at, step=step))


@pytest.mark.usefixtures("_no_runs")
def test_a_run_that_would_be_refused_does_not_ask_bigquery() -> None:
    """One at work holds the lease; one of another job does not matter, and who may wait does."""
    put(0, "extract", job="dog_breeds")
    put(1, "lease")
    check_room("sessions", waits=False)
    put(2, "extract")
    check_room("sessions", waits=True)
    with pytest.raises(LeaseHeldError, match="Run r2 holds the lease"):
        check_room("sessions", waits=False)


@pytest.mark.usefixtures("_no_runs")
def test_few_runs_wait_at_a_time() -> None:
    """Each occupies one of eight threads, and the others are to answer /health."""
    for number in range(3):
        put(number, "lease")
    check_room("sessions", waits=True)
    put(3, None)
    with pytest.raises(LeaseHeldError, match="Run r0 holds the lease, or comes first"):
        check_room("sessions", waits=True)
