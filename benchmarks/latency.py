"""What a run waits for: its seconds and its jobs, where each job takes a second longer on the wire.

BigQuery takes that long for the smallest statement, and the emulator does not. Two runs on a small
history: one with nothing new, and an ordinary one after another day has arrived. `in_a_row` are the
most jobs of which each began when the last one's second was over; so it is exact only while the
emulator's own work on a job takes less than that.

`python -m benchmarks.latency [SECONDS]`; the last line is JSON.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import main as job
from benchmarks.history import History, fill_days, sandbox_endpoints
from bigquery.clients import local_clients
from runs.request import RunRequest
from runs.settings import Settings
from tests.fault_proxy import Fault, HttpProxy

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bigquery.clients import Clients


@dataclass(kw_only=True)
class Latency(Fault):
    """Holds up every job, and keeps the moment at which each was asked for."""

    asked_at: list[float] = field(default_factory=list)

    def befalls(self, method: str, path: str, body: str) -> bool:
        """Whether the request is one for a job."""
        is_job = super().befalls(method, path, body)
        if is_job:
            self.asked_at.append(time.monotonic())
        return is_job


def latency(seconds: float) -> Latency:
    """So many seconds for each job."""
    return Latency(
        kind="hang", method="POST", path=r"/jobs(\?|$)", times=sys.maxsize, seconds=seconds
    )


def in_a_row(asked_at: Iterable[float], seconds: float) -> int:
    """The most of these moments that are so many seconds apart."""
    count, free_at = 0, float("-inf")
    for moment in sorted(asked_at):
        if moment >= free_at:
            count, free_at = count + 1, moment + seconds
    return count


def measure(seconds: float, *, days: int = 3, events_per_day: int = 200) -> dict[str, Any]:
    """Both kinds of run on so many days of history."""
    history = History(days=days + 1, events_per_day=events_per_day)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        direct, endpoints = stack.enter_context(sandbox_endpoints(folder))
        proxy = stack.enter_context(HttpProxy(endpoints.rest))
        slow = local_clients(replace(endpoints, rest=proxy.address))
        stack.callback(slow.close)
        fill_days(direct, history, range(days))
        _run(direct)
        nothing_new = _measure_run(slow, proxy, seconds)
        fill_days(direct, history, range(days, days + 1))
        ordinary = _measure_run(slow, proxy, seconds)
    return {"latency_seconds": seconds, "nothing_new": nothing_new, "ordinary": ordinary}


def _run(clients: Clients) -> str | None:
    # The lease is held for so long that no renewal, which nobody waits for, is among the jobs.
    settings = Settings.from_environment({"LEASE_SECONDS": "3600"}, local=True)
    return job.main(RunRequest(), settings, clients).kind


def _measure_run(clients: Clients, proxy: HttpProxy, seconds: float) -> dict[str, Any]:
    slow = latency(seconds)
    started = time.monotonic()
    with proxy.faulty(slow):
        kind = _run(clients)
    return {
        "kind": kind,
        "seconds": round(time.monotonic() - started, 1),
        "jobs": len(slow.asked_at),
        "in_a_row": in_a_row(slow.asked_at, seconds),
    }


def main(seconds: float) -> None:
    """Measure, and print what was found."""
    sys.stdout.write(f"{json.dumps(measure(seconds))}\n")


if __name__ == "__main__":
    main(float(sys.argv[1]) if sys.argv[1:] else 1.0)
