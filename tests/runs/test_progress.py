"""The runs of a process: which one may start or wait, and which is refused at once."""

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
    """Check that no run is in progress before the test, and remove all after it."""
    assert IN_PROGRESS.all() == []
    yield
    for run in IN_PROGRESS.all():
        IN_PROGRESS.remove(run.run_id)


def register_run(number: int, step: str | None, job: str = "sessions") -> None:
    """Register a run of this process."""
    started_at = NOW + timedelta(seconds=number)
    IN_PROGRESS.put(RunInProgress(run_id=f"r{number}", job=job, started_at=started_at, step=step))


@pytest.mark.usefixtures("_no_runs")
def test_a_run_that_would_be_refused_does_not_ask_bigquery() -> None:
    """A run of the same job at work holds the lease, unless the new run may wait for it."""
    register_run(0, "extract", job="dog_breeds")
    register_run(1, "lease")
    check_room("sessions", waits=False)
    register_run(2, "extract")
    check_room("sessions", waits=True)
    with pytest.raises(LeaseHeldError, match="Run r2 holds the lease"):
        check_room("sessions", waits=False)


@pytest.mark.usefixtures("_no_runs")
def test_few_runs_wait_at_a_time() -> None:
    """Each occupies one of eight threads, and the others must answer /health."""
    for number in range(3):
        register_run(number, "lease")
    check_room("sessions", waits=True)
    register_run(3, None)
    with pytest.raises(LeaseHeldError, match="Run r0 holds the lease, or comes first"):
        check_room("sessions", waits=True)
