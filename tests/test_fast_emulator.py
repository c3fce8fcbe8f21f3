"""The emulator of the tests is the sandbox's, only quicker: both come to the same tables."""

from __future__ import annotations

import os
import random
from collections import Counter
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from bigquery.clients import local_clients
from sandbox import emulator
from sandbox.server import FAST
from tests.test_requests_on_data import MIDNIGHT, day_of_sessions, event
from tests.world import World

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.world import Row

SEED = int(os.environ.get("SOAK_SEED", "1"))
# What no two runs have in common: when they ran, and under which name.
OF_THE_RUN = {"_loaded_at", "_run_id"}


@contextmanager
def world_of(folder: Path, *, is_fast: bool) -> Iterator[World]:
    """A world in an emulator of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(FAST, "1" if is_fast else "0")
        with emulator.attach(folder) as endpoints, closing(local_clients(endpoints)) as clients:
            yield World(clients=clients, prefix="parity")


def history() -> Iterator[tuple[list[Row], list[Row], dict[str, Any]]]:
    """Events and users that arrive, and the run that follows: in random order, some twice."""
    chance = random.Random(SEED)  # noqa: S311 - it makes rows, not keys
    rows = [row for day in range(4) for row in day_of_sessions(day, 6)]
    rows += [event("late", MIDNIGHT), event("late", MIDNIGHT), event("d1-1", MIDNIGHT)]
    chance.shuffle(rows)
    users = [{"user_id": f"visitor of d{day}-{day}", "createdAt": "2026-01-01"} for day in range(4)]
    yield rows[:12], users[:1], {"full_load": True, "engine": "bigquery"}
    yield rows[12:] + rows[:5], users[1:], {"limit": 3}
    yield [], [], {"engine": "pandas"}
    yield [], [], {"start_date": MIDNIGHT.date(), "end_date": MIDNIGHT.date()}


def published(world: World) -> dict[str, Counter[str]]:
    """The tables for readers as bags of rows, but for what tells which run it was.

    Not the state: the plain emulator's row count of a table keeps those that were deleted.
    """
    names = ("sessions", "persons", "identities", "daily_activity", "quarantined_sessions")
    return {
        name: Counter(
            repr(sorted((key, value) for key, value in row.items() if key not in OF_THE_RUN))
            for row in world.query(f"SELECT * FROM {{d}}.{name}")
        )
        for name in names
    }


def played(world: World) -> list[Any]:
    """What a reader sees after each run, and what the run reports of itself."""
    seen: list[Any] = []
    for events, users, request in history():
        world.arrive("posthog_events", events)
        world.arrive("firebase_users", users)
        report = world.run(**request)
        seen.append((report.kind, report.counts, report.sessions, report.persons))
        seen.append(published(world))
    world.vanish("posthog_events", "distinct_id", "visitor of d1-2")
    seen.append((world.run().kind, published(world)))
    return seen


def test_both_emulators_come_to_the_same_tables(tmp_path: Path) -> None:
    """Each statement of both engines, each kind of run, a deletion, and reads of the past."""
    with world_of(tmp_path / "fast", is_fast=True) as fast:
        quick = played(fast)
    with world_of(tmp_path / "plain", is_fast=False) as plain:
        assert played(plain) == quick
    assert any(bag["sessions"] for _, bag in zip(quick[::2], quick[1::2], strict=False))
