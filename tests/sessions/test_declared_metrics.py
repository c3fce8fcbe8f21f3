"""Random declarations over random events: both engines and the oracle agree on every column."""

from __future__ import annotations

import itertools
import json
import os
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st

from jobs.metrics_file import metric_table
from oracle.sessions import expected_sessions
from sessions.declarations import AGGREGATIONS
from tests import histories
from tests.scenario import Row, Scenario, differences

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from bigquery.clients import Clients

type Entry = dict[str, Any]

EXAMPLES = int(os.environ.get("SOAK_HISTORIES", "1"))
PROPERTIES = [
    {"name": "a_text", "names": ["utm_source", "$event_type"]},
    {"name": "a_number", "names": ["touch_y", "$touch_y"], "type": "number"},
    {"name": "a_share", "names": ["$screen_height", "touch_y"], "type": "fraction"},
]
TEXTS, NUMBERS = ("a_text", "distinct_id"), ("a_number", "a_share")
EVENT_NAMES = ["$pageview", "$screen", "$autocapture", "scroll", "start_quiz", "Contacts_Enabled"]
READ: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("sum", "min", "max"), NUMBERS),
    **dict.fromkeys(("distinct_count", "list"), TEXTS),
    **dict.fromkeys(("first", "last"), (*TEXTS, *NUMBERS)),
}


@st.composite
def filters(draw: st.DrawFn) -> list[Entry]:
    """One of each kind of filter, with names and values of the histories."""
    names = st.lists(st.sampled_from(EVENT_NAMES), min_size=1, max_size=4, unique=True)
    parts = st.lists(st.sampled_from(["a", "SCR", "_"]), min_size=1, max_size=2, unique=True)
    values = st.lists(
        st.sampled_from(["a", "Discover", "swipe", "7", "é"]), min_size=1, unique=True
    )
    any_value = {"property": draw(st.sampled_from(["a_text", "a_number", "a_share"]))}
    return [
        {},
        {"events": draw(names)},
        {"name_contains": draw(parts)},
        {"where": any_value},
        {"events": draw(names), "where": {"property": "a_text", "values": draw(values)}},
    ]


def entries(chosen: list[Entry], clocks: list[list[str]]) -> Iterator[Entry]:
    """A metric of every aggregation, filter and type of value."""
    for word, condition in itertools.product(AGGREGATIONS, chosen):
        if word in {"count", "any"} and (condition or word == "count"):
            yield {"aggregation": word, **condition}
        for name in READ.get(word, ()):
            yield {"aggregation": word, "property": name, **condition}
    for start, stop in itertools.pairwise(clocks):
        yield {"aggregation": "seconds_between", "from": start, "to": stop}


def declaration(chosen: list[Entry], clocks: list[list[str]]) -> str:
    """The text of the file."""
    metrics = [
        {"name": f"m{number}", "description": "A column.", **entry}
        for number, entry in enumerate(entries(chosen, clocks))
    ]
    return json.dumps({"properties": PROPERTIES, "metrics": metrics})  # which is YAML, too


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the files of declarations are."""
    return tmp_path_factory.mktemp("declared")


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
@given(
    st.lists(histories.events(days=2), min_size=100, max_size=120),
    filters(),
    st.lists(
        st.lists(st.sampled_from(EVENT_NAMES), min_size=1, max_size=3, unique=True),
        min_size=3,
        max_size=3,
    ),
)
def test_engines_and_oracle_agree_on_any_declaration(
    clients: Clients,
    folder: Path,
    events: list[Row],
    chosen: list[Entry],
    clocks: list[list[str]],
) -> None:
    """Every aggregation over every kind of filter and value that the file can declare."""
    # Hypothesis tries the dullest history first.
    assume(len({(row["distinct_id"], row["event"]) for row in events}) > len(events) / 2)
    file = folder / f"{len(list(folder.iterdir()))}.yaml"
    file.write_text(declaration(chosen, clocks), "utf-8")
    table = metric_table(file)
    assert {metric.aggregation for metric in table.metrics if metric.name in table.declared} == {
        *AGGREGATIONS.values()
    }
    expected = expected_sessions(table, events, [], [], [])
    with Scenario(clients=clients, settings={"metrics_file": file}) as scenario:
        scenario.arrive("posthog_events", events)
        for engine in ("pandas", "bigquery"):
            scenario.run(full_load=True, engine=engine)
            assert differences(scenario.sessions(), expected) == []
