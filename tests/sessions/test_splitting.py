"""Session ids that span too long: how they are split, run after run, on both engines."""

from __future__ import annotations

import itertools
import json
import os
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

import main
from bigquery.warehouse import Warehouse
from jobs.sessions import VERIFY
from runs.request import RunRequest
from sessions.samples import VerifyRequest
from tests.runs.test_lease import ActAtStep
from tests.scenario import Row, Scenario, derived_differences, differences

if TYPE_CHECKING:
    from bigquery.clients import Clients
    from runs.settings import Engine

MIDNIGHT = datetime(2026, 10, 5, tzinfo=UTC)
LIKE_A_PIECE = "hard/2026-10-05/ann"  # anybody can send such an id
IS_SOAK = os.environ.get("SOAK") == "1"
TURNS: list[tuple[Engine, Engine]] = [("pandas", "bigquery"), ("bigquery", "pandas")]
FREE_LEASE = "UPDATE {d}.etl_lease_sessions SET run_id = NULL WHERE TRUE"


class SimulatedKill(BaseException):
    """Ends a run at once: the product never catches it."""


def kill() -> None:
    """End the run that calls it."""
    raise SimulatedKill


def event(session: str, who: str, day: int, **properties: str) -> Row:
    """An event at noon of a day, with the person and the day as its uuid."""
    at = (MIDNIGHT + timedelta(days=day, hours=12)).isoformat()
    return {
        "uuid": f"{who}-{day}",
        "event": "$identify" if properties else "$pageview",
        "distinct_id": who,
        "properties": json.dumps({"$session_id": session, **properties}),
        "timestamp": at,
        "bq_ingested_timestamp": at,
    }


SHORT = [event("hard", "ann", 0), event("hard", "bob", 0), event("hard", "ann", 2)]
LATER = [
    event("hard", "eve", 4, **{"$anon_distinct_id": "anon-eve"}),
    event(LIKE_A_PIECE, "mallory", 0),
    event(LIKE_A_PIECE, "mallory", 1),
]


def run_killed(scenario: Scenario, step: str, **request: Any) -> None:  # noqa: ANN401
    """Kill a run as a step begins, and free its lease."""
    with pytest.raises(SimulatedKill):
        main.main(
            RunRequest(**request),
            scenario.make_settings(),
            scenario.clients,
            progress=ActAtStep(step, kill),
        )
    scenario.query(FREE_LEASE)


# Ids are split before an engine aggregates, so it is enough that the engines take turns.
@pytest.mark.parametrize("turns", TURNS if IS_SOAK else TURNS[:1])
def test_a_split_id_is_exact_after_kills_late_rows_and_deletions(
    clients: Clients, turns: tuple[Engine, Engine]
) -> None:
    """A killed run leaves the row or its pieces; only a full load may undo the split."""
    engines = itertools.cycle(turns)
    with Scenario(clients=clients) as scenario:
        scenario.arrive("posthog_events", SHORT)
        scenario.run(engine=next(engines))
        before = scenario.sessions()
        assert before.keys() == {"hard"}

        scenario.arrive("posthog_events", LATER)
        run_killed(scenario, "publish", engine=next(engines))
        assert scenario.sessions() == before
        assert scenario.query("SELECT session_id FROM {d}.split_ids") == []
        run_killed(scenario, "persons", engine=next(engines))
        report = scenario.run(engine=next(engines))
        found = scenario.sessions()
        assert differences(found, scenario.expected()) == []
        assert all(row["is_split"] for row in found.values())
        derived = scenario.expected_derived(report, found)
        assert derived_differences(scenario.derived(), derived) == []

        scenario.arrive("posthog_events", [event("hard", "bob", 0) | {"uuid": "late"}])
        report = scenario.run(engine=next(engines))
        assert (report.read_days, report.sessions["staged"]) == (1, 1)
        assert differences(scenario.sessions(), scenario.expected()) == []

        scenario.vanish("posthog_events", "uuid", "eve-4")
        report = scenario.run(engine=next(engines))
        assert (report.sessions["deleted"], report.sessions["staged"]) == (1, 0)
        left = {key for key in scenario.sessions() if not key.startswith(f"{LIKE_A_PIECE}/")}
        assert left == {f"hard/2026-10-0{each}" for each in ("5/ann", "5/bob", "7/ann")}

        # A full load undoes the split, since the id's span is short by now.
        scenario.run(full_load=True, engine=next(engines))
        assert "hard" in scenario.sessions()
        assert differences(scenario.sessions(), scenario.expected()) == []
        assert scenario.query("SELECT session_id FROM {d}.split_ids") == []


def test_an_id_that_is_spelled_like_a_piece_does_not_fail_a_run(clients: Clients) -> None:
    """It is split by itself, also in the run that splits the other id; all verify as right."""
    shared = "hard/2026-10-05/b/2026-10-06/c"  # a piece of either id below
    colliding = [event("hard", "b/2026-10-06/c", 0), event("hard/2026-10-05/b", "c", 1)]
    ordinary = [event("plain", "zoe", 0), event("plain/2026-10-05/zoe", "mallory", 0)]
    with Scenario(clients=clients) as scenario:
        scenario.arrive("posthog_events", [*SHORT, *LATER, *colliding, *ordinary])
        scenario.run()
        warehouse = Warehouse(
            clients=clients, settings=scenario.make_settings(), run_id="verification"
        )
        verified = VERIFY(warehouse, VerifyRequest(seed="1", size=100), lambda _: None)
        statuses = {each.session_id: each.status for each in verified.verdicts}
        assert {key for key in statuses if statuses[key] != "right"} <= {shared}
        found, expected = scenario.sessions(), scenario.expected()
        assert found.pop(shared)["event_count"] == 2
        del expected[shared]
        assert differences(found, expected) == []
        mallory_pieces = {key for key in found if key.startswith(f"{LIKE_A_PIECE}/")}
        assert mallory_pieces == {f"{LIKE_A_PIECE}/2026-10-0{day}/mallory" for day in (5, 6)}
