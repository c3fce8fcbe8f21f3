"""Promise 3: a run killed anywhere leaves the old table or the new one, and the next completes it.

SOAK_KILLS: how many kills at random moments, instead of one. SOAK_SEED: the seed of the moments.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import IO, TYPE_CHECKING

import pytest

from jobs.sessions import JOB
from tests.scenario import Row, Scenario, differences
from tests.sessions.test_requests_on_data import MIDNIGHT, day_of_sessions, event

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from bigquery.clients import Clients
    from tests.conftest import Count
    from tests.forks import Child, Forks

IS_SOAK = "SOAK_KILLS" in os.environ
KILLS = int(os.environ.get("SOAK_KILLS", "1"))
SEED = int(os.environ.get("SOAK_SEED", "1"))
# Only killed runs have a lease this short; the runs after them wait for it to expire.
KILLED_LEASE_SECONDS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """What readers see, and the rows by day that the state says they were built from."""

    state_run_id: str
    days: dict[str, int]
    sessions: dict[str, Row]


def read_published(scenario: Scenario) -> Published:
    """Read it consistently: a statement of the killed run may still be at work."""
    while True:
        run_id = state_run_id(scenario)
        days = scenario.query(
            "SELECT d.partition_id, d.row_count FROM {d}.etl_state_sessions, UNNEST(days) AS d"
        )
        sessions = scenario.sessions()
        if run_id == state_run_id(scenario):
            return Published(
                state_run_id=run_id,
                days={day["partition_id"]: day["row_count"] for day in days},
                sessions=sessions,
            )


def state_run_id(scenario: Scenario) -> str:
    """The id of the run that wrote the state."""
    (row,) = scenario.query("SELECT run_id FROM {d}.etl_state_sessions")
    return str(row["run_id"])


@dataclass(kw_only=True)
class KillHarness:
    """A scenario over which the command line runs, in processes that can be killed."""

    folder: Path
    forks: Forks
    scenario: Scenario
    seconds: float  # what an undisturbed run takes
    known: Published  # when it was last read
    numbers: Iterator[int] = field(default_factory=itertools.count)

    @contextmanager
    def running(self) -> Iterator[Child]:
        """`python main.py --local --json`; killed at the end of the block."""
        settings = self.scenario.make_settings()
        environ = {
            "PATH": os.environ["PATH"],
            "HOME": os.environ["HOME"],
            "SANDBOX_DIR": str(self.folder),
            "POSTHOG_DATASET_ID": settings.posthog_dataset_id,
            "FIREBASE_DATASET_ID": settings.firebase_dataset_id,
            "POSTHOG_AGGREGATED_DATASET_ID": settings.aggregated_dataset_id,
            "LEASE_SECONDS": str(KILLED_LEASE_SECONDS),
            "LEASE_WAIT_SECONDS": "30",
        }
        with self.forks.running(["--local", "--json"], environ) as child:
            yield child

    def expire_lease(self) -> None:
        """Let the lease of a run that was killed expire now."""
        self.scenario.query(
            "UPDATE {d}.etl_lease_sessions SET expires_at = TIMESTAMP '2020-01-01' WHERE TRUE"
        )

    def arrive(self) -> None:
        """New rows: one for a session that is published already, and one of a new session."""
        number = next(self.numbers)
        at = MIDNIGHT + timedelta(hours=12, seconds=number)
        rows = [event(f"d0-{number % 6}", at), event(f"new-{number}", at)]
        self.scenario.arrive("posthog_events", rows)

    def check_old_or_new(self) -> None:
        """Check that readers see the old table or the new one, and the state that belongs to it."""
        before, self.known = self.known, read_published(self.scenario)
        if self.known.state_run_id == before.state_run_id:
            assert self.known == before
        else:
            self.check_exact()

    def check_exact(self) -> None:
        """Check that the table is the oracle's, and that the state counts all rows that arrived."""
        assert differences(self.known.sessions, self.scenario.expected()) == []
        assert self.known.days == self.arrived_days()

    def check_completed(self) -> None:
        """Check that the next run needs no full load and leaves exactly the oracle's table."""
        assert self.scenario.run().kind in {"incremental", "nothing_new"}
        self.known = read_published(self.scenario)
        self.check_exact()
        self.drop_staging()

    def drop_staging(self) -> None:
        """Drop the staging tables of killed runs, since many tables slow the emulator down."""
        client = self.scenario.clients.bigquery
        for table in client.list_tables(self.scenario.destination):
            if table.table_id.startswith("staging_"):
                client.delete_table(table, not_found_ok=True)

    def arrived_days(self) -> dict[str, int]:
        """How many rows of each day have arrived."""
        rows = self.scenario.arrived["posthog_events"]
        times = (datetime.fromisoformat(row["timestamp"]) for row in rows)
        return dict(Counter(f"{at:%Y%m%d}" for at in times))


def wait_for_step(log: IO[str], step: str) -> None:
    """Return as soon as the log says that the step begins."""
    lines = []
    for line in log:
        lines.append(line)
        if json.loads(line).get("step") == step:
            return
    pytest.fail(f"the run ended before {step}: {''.join(lines)}")


@pytest.fixture(scope="module")
def harness(forks: Forks, sandbox_dir: Path, clients: Clients) -> Iterator[KillHarness]:
    """A day of sessions, run once."""
    with Scenario(clients=clients, settings={"lease_wait_seconds": 30}) as scenario:
        scenario.arrive("posthog_events", day_of_sessions(0, 6))
        started = time.monotonic()
        scenario.run()
        seconds = time.monotonic() - started
        yield KillHarness(
            folder=sandbox_dir,
            forks=forks,
            scenario=scenario,
            seconds=seconds,
            known=read_published(scenario),
        )


@pytest.mark.parametrize("step", JOB.step_names)
def test_a_run_killed_as_a_step_begins_is_completed_by_the_next(
    harness: KillHarness, step: str, count: Count
) -> None:
    """Readers see the old table or the new one with its state, and the next run completes it.

    In CI most killed runs are followed by another one that is killed a step later.
    """
    harness.arrive()
    with harness.running() as child:
        wait_for_step(child.log, step)
        count("kills survived", child.kill())
    harness.check_old_or_new()
    if IS_SOAK or step == "publish":
        harness.check_completed()
    else:
        harness.expire_lease()


def test_a_run_killed_right_after_its_commit_has_published(
    harness: KillHarness, count: Count
) -> None:
    """A run killed before it can log its commit leaves the whole new table."""
    harness.arrive()
    before = harness.known
    with harness.running() as child:
        wait_for_step(child.log, "publish")
        end = time.monotonic() + 60
        while state_run_id(harness.scenario) == before.state_run_id:
            assert time.monotonic() < end, "nothing was published"
        count("kills survived", child.kill())
    harness.check_old_or_new()
    assert harness.known.state_run_id != before.state_run_id
    harness.check_completed()


@pytest.mark.parametrize("number", range(KILLS))
def test_a_run_killed_at_a_random_moment_is_completed_by_the_next(
    harness: KillHarness, number: int, count: Count
) -> None:
    """The moment may lie within a step, and the next run may be killed as well."""
    rng = random.Random(f"{SEED} {number}")  # noqa: S311 - moments, not secrets
    for _ in range(rng.choice([1, 1, 2]) if IS_SOAK else 1):
        harness.arrive()
        with harness.running() as child:
            wait_for_step(child.log, JOB.step_names[0])
            child.wait(rng.uniform(0, harness.seconds))
            count("kills survived", child.kill())
        harness.check_old_or_new()
    harness.check_completed()
