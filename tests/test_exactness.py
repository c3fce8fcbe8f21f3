"""Promise 1: incremental runs end in exactly the table that one full load would have built."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests import histories
from tests.world import World, differences

if TYPE_CHECKING:
    import random

    from warehouse import Clients

type Row = dict[str, Any]

EXACTLY = settings(
    max_examples=4,
    deadline=None,
    derandomize=True,
    database=None,
    # A run takes seconds: a failing history is read as it is, not shrunk.
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)


def _parts(rows: list[Row], count: int, chance: random.Random) -> list[list[Row]]:
    """The rows in random order, cut at random points, some of them coming twice."""
    rows = [*rows, *chance.sample(rows, len(rows) // 10)]
    chance.shuffle(rows)
    cuts = sorted(chance.randrange(len(rows) + 1) for _ in range(count - 1))
    return [rows[start:end] for start, end in zip([0, *cuts], [*cuts, len(rows)], strict=True)]


@EXACTLY
@given(
    st.lists(histories.events(), min_size=60, max_size=150),
    st.lists(histories.users(), max_size=10),
    st.lists(histories.documents(), max_size=14),
    st.lists(histories.posthog_sessions(), max_size=5),
    st.sampled_from(["string", "json"]),
    st.permutations(["pandas", "bigquery"]),
    st.randoms(use_true_random=False),
)
def test_any_split_into_runs_equals_the_oracle(  # noqa: PLR0913, PLR0917 - drawn, not called
    clients: Clients,
    events: list[Row],
    users: list[Row],
    documents: list[Row],
    channels: list[Row],
    properties: Any,  # noqa: ANN401 - a literal of the sandbox
    engines: list[Any],
    chance: random.Random,
) -> None:
    """Whatever arrives in whatever order and however often, each run leaves the oracle's table.

    The last full load, by the engine that did not run before, leaves the same.
    """
    engine, other = engines
    with World(clients=clients, properties=properties) as world:
        parts = zip(
            _parts(events, 3, chance),
            _parts(users, 3, chance),
            _parts(documents, 3, chance),
            _parts(channels, 3, chance),
            strict=True,
        )
        for some_events, some_users, some_documents, some_channels in parts:
            world.arrive("posthog_events", some_events)
            world.arrive("firebase_users", some_users)
            world.arrive("firebase_events", some_documents)
            world.arrive("posthog_sessions", some_channels)
            world.run(engine=engine)
            assert differences(world.sessions(), world.expected()) == []
        if chance.random() < 0.5 and users:  # and a user vanishes
            world.vanish("firebase_users", "user_id", users[0]["user_id"])
            world.vanish("firebase_events", "document_id", "d1")
            assert world.run(engine=engine).kind != "full_load"
            assert differences(world.sessions(), world.expected()) == []
        again = world.run()
        assert (again.kind, again.sessions["staged"]) == ("nothing_new", 0)
        assert differences(world.sessions(), world.expected()) == []
        twin = world.twin()
        twin.run(full_load=True, engine=other)
        assert differences(twin.sessions(), world.sessions()) == []
