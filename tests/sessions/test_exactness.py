"""Promise 1: incremental runs leave exactly the tables that one full load would have built."""

from __future__ import annotations

import os
import random
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st

from oracle.rows import ties
from tests import histories, persons_oracle
from tests.clock import starting_at
from tests.scenario import Scenario, derived_differences, differences
from tests.shipped import METRIC_TABLE

if TYPE_CHECKING:
    from bigquery.clients import Clients
    from runs.report import RunReport

type Row = dict[str, Any]

HISTORIES = int(os.environ.get("SOAK_HISTORIES", "0"))
PARTS = 3 if HISTORIES else 2
HYPOTHESIS_SETTINGS = settings(
    max_examples=HISTORIES or 1,
    deadline=None,
    derandomize=not HISTORIES,
    database=None,
    # A run takes seconds: a failing history is read as it is, not shrunk.
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)


def _parts(rows: list[Row], count: int, rng: random.Random) -> list[list[Row]]:
    """The rows in random order, some of them twice, cut at random points."""
    rows = [*rows, *rng.sample(rows, len(rows) // 10)]
    rng.shuffle(rows)
    cuts = sorted(rng.randrange(len(rows) + 1) for _ in range(count - 1))
    return [rows[start:end] for start, end in zip([0, *cuts], [*cuts, len(rows)], strict=True)]


def check(scenario: Scenario, report: RunReport) -> None:
    """Check that the sessions and what is derived from them are the oracle's."""
    sessions = scenario.sessions()
    assert differences(sessions, scenario.expected()) == []
    derived = scenario.expected_derived(report, sessions)
    assert derived_differences(scenario.derived(), derived) == []


def any_tied(events: list[Row], users: list[Row]) -> bool:
    """Whether any anonymous id is tied to a user."""
    pairs = ties(METRIC_TABLE, events)
    today = histories.FIRST_DAY.date()
    found = persons_oracle.expected_derived({}, users, [], ties=pairs, today=today)
    return bool(found.identities)


@HYPOTHESIS_SETTINGS
@given(
    st.lists(histories.events(), min_size=60, max_size=150),
    st.lists(histories.identifications(), max_size=8),
    st.lists(histories.users(), max_size=10),
    st.lists(histories.documents(), max_size=14),
    st.lists(histories.posthog_sessions(), max_size=5),
    st.sampled_from(["string", "json"]),
    st.permutations(["pandas", "bigquery"]),
    st.integers(0, 45),
    st.integers(0, 2**32),
)
def test_any_split_into_runs_equals_the_oracle(  # noqa: PLR0913, PLR0917 - drawn, not called
    clients: Clients,
    events: list[Row],
    identifications: list[Row],
    users: list[Row],
    documents: list[Row],
    channels: list[Row],
    properties: Any,  # noqa: ANN401 - a literal of the sandbox
    engines: list[Any],
    day: int,
    seed: int,
) -> None:
    """Each run leaves the oracle's tables, in whatever order and however often rows arrive.

    A full load at the end, by the other engine, leaves the same tables.
    """
    # Hypothesis tries the simplest history first: where there is one only, it must have ties.
    assume(HISTORIES or any_tied([*events, *identifications], users))
    engine, other = engines
    rng = random.Random(seed)  # noqa: S311 - of a test
    now = histories.FIRST_DAY + timedelta(days=day)
    with Scenario(clients=clients, properties=properties) as scenario, starting_at(now):
        arriving: tuple[list[Row], ...] = ([*events, *identifications], users, documents, channels)
        parts = zip(*(_parts(rows, PARTS, rng) for rows in arriving), strict=True)
        for some_events, some_users, some_documents, some_channels in parts:
            scenario.arrive("posthog_events", some_events)
            scenario.arrive("firebase_users", some_users)
            scenario.arrive("firebase_events", some_documents)
            scenario.arrive("posthog_sessions", some_channels)
            check(scenario, scenario.run(engine=engine))
        scenario.rewrite(events[0]["uuid"], "view_event")
        if exchanged := events[-1]["uuid"]:
            scenario.exchange(exchanged, "$screen")
        check(scenario, scenario.run(engine=engine))
        if rng.random() < 0.5 and users:  # and a user vanishes
            scenario.vanish("firebase_users", "user_id", users[0]["user_id"])
            scenario.vanish("firebase_events", "document_id", "d1")
            report = scenario.run(engine=engine, force=True)  # the users may shrink below 80 %
            assert report.kind != "full_load"
            check(scenario, report)
        again = scenario.run()
        assert (again.kind, again.sessions["staged"]) == ("nothing_new", 0)
        check(scenario, again)
        twin = scenario.twin()
        twin.run(full_load=True, engine=other)
        assert differences(twin.sessions(), scenario.sessions()) == []
        assert derived_differences(twin.derived(), scenario.derived()) == []
