"""Every case folder, loaded through the real clients: all of them together, by one run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.case_files import Cases, load_cases
from tests.paths import TESTS
from tests.scenario import Row, Scenario, differences

if TYPE_CHECKING:
    from bigquery.clients import Clients

FOLDER = TESTS / "cases"
NAMES = sorted(folder.name for folder in FOLDER.iterdir())


@pytest.fixture(scope="module")
def cases() -> Cases:
    """Every case."""
    return load_cases(FOLDER)


@pytest.fixture(scope="module", params=[("string", "pandas"), ("json", "bigquery")])
def sessions(request: pytest.FixtureRequest, clients: Clients, cases: Cases) -> dict[str, Row]:
    """What one run over all cases publishes, by the type of `properties` and the engine."""
    properties, engine = request.param
    with Scenario(clients=clients, properties=properties) as scenario:
        scenario.arrive("posthog_events", cases.events)
        scenario.arrive("firebase_users", cases.users)
        scenario.arrive("firebase_events", cases.documents)
        scenario.arrive("posthog_sessions", cases.posthog_sessions)
        report = scenario.run(engine=engine)
        assert sum(report.counts.values()) == len(cases.events)
        return scenario.sessions()


@pytest.mark.parametrize("name", NAMES)
def test_case(name: str, sessions: dict[str, Row], cases: Cases) -> None:
    """A folder's name is a rule of the specification; the sessions that it expects are found."""
    case = cases.cases[name]
    found = {key: row for key, row in sessions.items() if key in case.expected}
    assert differences(found, dict(case.expected)) == []
    assert not sessions.keys() & set(case.absent)
