"""Verification of stored sessions: it agrees with right ones, and names what is wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from bigquery.warehouse import Warehouse
from jobs.sessions import VERIFY
from sessions.samples import VerifyRequest
from tests.case_files import load_cases
from tests.scenario import Scenario
from tests.test_oracle import TESTS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bigquery.clients import Clients
    from jobs.sessions_verification import Reading
    from oracle.comparison import Verification


@pytest.fixture(scope="module", params=["string", "json"])
def scenario(request: pytest.FixtureRequest, clients: Clients) -> Iterator[Scenario]:
    """All case folders, loaded by one run."""
    cases = load_cases(TESTS / "cases")
    with Scenario(clients=clients, properties=request.param) as found:
        found.arrive("posthog_events", cases.events)
        found.arrive("firebase_users", cases.users)
        found.arrive("firebase_events", cases.documents)
        found.arrive("posthog_sessions", cases.posthog_sessions)
        found.run()
        yield found


def verify(scenario: Scenario, request: VerifyRequest, told: list[Reading]) -> Verification:
    """What a verification finds; `told` receives what it was about to read."""
    settings = scenario.make_settings()
    warehouse = Warehouse(clients=scenario.clients, settings=settings, run_id="verify")
    return VERIFY(warehouse, request, told.append)


def test_right_sessions_are_right_in_every_cell(scenario: Scenario) -> None:
    """Two hundred sessions of all kinds of rows: every cell as a third implementation has it."""
    told: list[Reading] = []
    found = verify(scenario, VerifyRequest(seed="1", size=200), told)
    assert [v.session_id for v in found.of("changed")] == []
    assert [d for v in found.of("wrong") for d in v.differences] == []
    assert len(found.verdicts) > 150
    assert found.unchecked == ()
    assert told[0].days == found.days
