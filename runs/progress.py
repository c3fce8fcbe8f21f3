"""How far a run has come: as log lines, for other threads, and on a terminal."""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final, Protocol

from runs.errors import LeaseHeldError
from runs.log import LOG


class Progress(Protocol):
    """What a run reports its progress to."""

    def step(self, name: str) -> None:
        """A step begins."""

    def batch(self, done: int, total: int, events: int) -> None:
        """`done` of `total` batches are done; `events`: the events (or other units) in all."""

    def close(self) -> None:
        """The run is over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunInProgress:
    """How far a run of this process has come; None for a step or batch not yet begun."""

    run_id: str
    job: str
    started_at: datetime
    step: str | None = None
    batch: int | None = None
    batches: int | None = None
    events: int | None = None
    """Aggregated so far, or whatever the job counts."""
    unit: str = "events"
    """What the job counts, in log lines."""

    def to_json(self, now: datetime) -> dict[str, object]:
        """Every field and the seconds so far, JSON-ready."""
        return {
            "run_id": self.run_id,
            "job": self.job,
            "started_at": self.started_at.astimezone(UTC).isoformat(),
            "seconds": (now - self.started_at).total_seconds(),
            "step": self.step,
            "batch": self.batch,
            "batches": self.batches,
            "events": self.events,
        }


class RunsInProgress:
    """The runs of this process; safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._runs: dict[str, RunInProgress] = {}

    def put(self, run: RunInProgress) -> None:
        """Add a run or update its progress."""
        with self._lock:
            self._runs[run.run_id] = run

    def remove(self, run_id: str) -> None:
        """Remove a run that is over."""
        with self._lock:
            self._runs.pop(run_id, None)

    def all(self) -> list[RunInProgress]:
        """The runs in progress, by their start."""
        with self._lock:
            return sorted(self._runs.values(), key=lambda run: (run.started_at, run.run_id))


IN_PROGRESS: Final = RunsInProgress()
"""Every run of this process, written by `LogProgress`."""


_MOST_BEFORE: Final = 4  # each occupies a thread of the service, which has eight


def check_room(job: str, *, waits: bool) -> None:
    """Raise LeaseHeldError where runs of this process leave no room for another of the same job.

    So nobody asks BigQuery in vain, and `/health` is answered however many ask for a run. `waits`:
    whether a run may wait for the lease.
    """
    before = [run for run in IN_PROGRESS.all() if run.job == job]
    holder = next((run for run in before if run.step not in {None, "lease"}), None)
    if (holder and not waits) or len(before) >= _MOST_BEFORE:
        message = (
            f"Run {(holder or before[0]).run_id} holds the lease, or comes first: wait for it to"
            " end."
        )
        raise LeaseHeldError(message)


class LogProgress:
    """Progress as log lines and in IN_PROGRESS, for the service and without a terminal."""

    def __init__(self, run: RunInProgress) -> None:
        self._run = run
        IN_PROGRESS.put(run)

    def step(self, name: str) -> None:
        """Log the step."""
        self._tell(f"step {name}", step=name)

    def batch(self, done: int, total: int, events: int) -> None:
        """Log the batch."""
        message = f"batch {done} of {total}, {events} {self._run.unit}"
        self._tell(message, batch=done, batches=total, events=events)

    def close(self) -> None:
        """Forget the run."""
        IN_PROGRESS.remove(self._run.run_id)

    def _tell(self, message: str, **changed: Any) -> None:  # noqa: ANN401 - fields of the record
        self._run = replace(self._run, **changed)
        IN_PROGRESS.put(self._run)
        LOG.info("%s", message, extra={"fields": {"run_id": self._run.run_id, **changed}})


class TerminalProgress:
    """Progress bars on a terminal: one for the steps, one for the batches."""

    def __init__(self, steps: int, *, unit: str = "events") -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as Bars

        self._bars = Bars(
            TextColumn("{task.description:<24}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        self._steps = self._bars.add_task("starting", total=steps)
        self._batches = self._bars.add_task("batches", total=None, visible=False)
        self._unit = unit
        self._bars.start()

    def step(self, name: str) -> None:
        """Advance the first bar."""
        self._bars.update(self._steps, description=name, advance=1)

    def batch(self, done: int, total: int, events: int) -> None:
        """Advance the second bar."""
        text = f"{events:,} {self._unit}"
        self._bars.update(
            self._batches, completed=done, total=total, description=text, visible=True
        )

    def close(self) -> None:
        """Remove the bars."""
        self._bars.stop()
