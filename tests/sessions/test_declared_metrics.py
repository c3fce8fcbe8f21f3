"""Random declarations over random rows: both engines and the oracle agree on every column."""

from __future__ import annotations

import itertools
import json
import os
import re
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from config.metrics_file import metric_table
from oracle.people import read_documents
from oracle.sessions import expected_sessions
from runs.errors import SettingsError
from sessions.metric_declarations import AGGREGATIONS, KINDS
from sessions.metric_types import EVENT_COLUMNS
from tests import histories
from tests.scenario import Row, Scenario, differences

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from bigquery.clients import Clients
    from sessions.metric_types import Filter, MetricTable

type Entry = dict[str, Any]

EXAMPLES = int(os.environ.get("SOAK_HISTORIES", "1"))
PROPERTIES = [
    {"name": "a_text", "names": ["utm_source", "$event_type"]},
    {"name": "a_number", "names": ["touch_y", "$touch_y"], "type": "number"},
    {"name": "a_share", "names": ["$screen_height", "touch_y"], "type": "fraction"},
]
TEXTS, NUMBERS = ("a_text", "distinct_id"), ("a_number", "a_share")
# Each rule differs from the shipped one, so that it has an effect.
RULES: Entry = {
    "creation": {"checkins": ["base", "ticketed"], "ignored": ["checkin"]},
    "sessions": {"id_properties": ["sessionId", "$session_id"], "ignored_events": ["view_event"]},
}
TYPES = ("base", "checkin", "fundraising", "ticketed", None)
EVENT_NAMES = ["$pageview", "$screen", "$autocapture", "scroll", "start_quiz", "Contacts_Enabled"]
READABLE_PROPERTIES: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("sum", "min", "max"), NUMBERS),
    **dict.fromkeys(("distinct_count", "list"), TEXTS),
    **dict.fromkeys(("first", "last"), (*TEXTS, *NUMBERS)),
}


@st.composite
def filters(draw: st.DrawFn) -> list[Entry]:
    """One of each kind of filter, and all together, with names and values of the histories."""
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
        {"where": {"property": "a_text", "values": draw(values)}},
        {"events": draw(names), "name_contains": draw(parts), "where": any_value},
    ]


def entries(chosen: list[Entry], clocks: list[list[str]]) -> Iterator[Entry]:
    """A metric of every aggregation, filter and type of value."""
    for aggregation, condition in itertools.product(AGGREGATIONS, chosen):
        if aggregation in {"count", "any"} and (condition or aggregation == "count"):
            yield {"aggregation": aggregation, **condition}
        for name in READABLE_PROPERTIES.get(aggregation, ()):
            yield {"aggregation": aggregation, "property": name, **condition}
    for start, stop in itertools.pairwise(clocks):
        yield {"aggregation": "seconds_between", "from": start, "to": stop}


def declaration(chosen: list[Entry], clocks: list[list[str]]) -> str:
    """The text of a metrics file."""
    metrics = [
        {"name": f"m{number}", "description": "A column.", **entry}
        for number, entry in enumerate(entries(chosen, clocks))
    ]
    file = {"properties": PROPERTIES, "metrics": metrics, **RULES}
    return json.dumps(file)  # which is YAML, too


def write_file(folder: Path, text: str) -> Path:
    """Write a new file with this text."""
    file = folder / f"{len(list(folder.iterdir()))}.yaml"
    file.write_text(text, "utf-8")
    return file


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of the metrics files."""
    return tmp_path_factory.mktemp("declared")


def kinds(table: MetricTable) -> set[tuple[str, ...]]:
    """Aggregation, kind of filter and kind of value of each declared metric."""
    types: dict[str, str] = {each.name: each.kind for each in table.properties}
    types |= dict.fromkeys(EVENT_COLUMNS, "event column")
    return {
        (
            metric.aggregation,
            *map(kind_of, metric.where),
            types[metric.value] if metric.value else "no value",
        )
        for metric in table.metrics
        if metric.name in table.declared
    }


def kind_of(condition: Filter) -> str:
    """Which parts of a filter are given."""
    parts = {
        "events": condition.events,
        "name_contains": condition.event_contains,
        "values": condition.among,
        "any value": condition.value and not condition.among,
    }
    return ", ".join(name for name, given in parts.items() if given)


FILTERS: tuple[Entry, ...] = (
    {},
    {"events": ["a"]},
    {"name_contains": ["a"]},
    {"where": {"property": "a_text"}},
    {"where": {"property": "a_text", "values": ["a"]}},
    {"events": ["a"], "name_contains": ["a"], "where": {"property": "a_text"}},
)
CLOCK = {"from": ["a"], "to": ["b"]}
VALUES: tuple[Entry, ...] = (
    {},
    *({"property": each["name"]} for each in PROPERTIES),
    {"property": "distinct_id"},
)


def every_combination() -> list[Entry]:
    """A metric of each combination, whether the file accepts it or not."""
    parts = [CLOCK, *(value | each for value, each in itertools.product(VALUES, FILTERS))]
    return [
        {"name": f"m{number}", "description": "A column.", "aggregation": aggregation} | each
        for number, (aggregation, each) in enumerate(itertools.product(AGGREGATIONS, parts))
    ]


@settings(histories.THE_SAME, max_examples=1)
@given(filters())
def test_every_aggregation_occurs_with_every_filter_and_type(
    folder: Path, chosen: list[Entry]
) -> None:
    """The random declarations contain each combination that the file accepts."""

    def text(metrics: Iterable[Entry]) -> str:
        lines = ",\n".join(map(json.dumps, metrics))
        return f'{{"properties": {json.dumps(PROPERTIES)}, "metrics": [\n{lines}]}}'

    tried = every_combination()
    with pytest.raises(SettingsError) as refused:
        metric_table(write_file(folder, text(tried)))
    bad = {int(each) for each in re.findall(r"yaml:([0-9]+):", str(refused.value))}
    good = text(entry for line, entry in enumerate(tried, 2) if line not in bad)
    wanted = kinds(metric_table(write_file(folder, good)))
    random = declaration(chosen, [CLOCK["from"], CLOCK["to"]])
    assert kinds(metric_table(write_file(folder, random))) == wanted
    assert {value for *_, value in wanted} == {"no value", "event column", *KINDS}
    assert {aggregation for aggregation, *_ in wanted} == {*AGGREGATIONS.values()}


@settings(histories.THE_SAME, max_examples=EXAMPLES)
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
    """Every aggregation over every kind of filter and value that the file can declare.

    The rules for sessions and documents differ from the shipped ones.
    """
    # Hypothesis tries the simplest history first.
    assume(len({(row["distinct_id"], row["event"]) for row in events}) > len(events) / 2)
    file = write_file(folder, declaration(chosen, clocks))
    table = metric_table(file)
    users: list[Row] = [{"user_id": "u1", "phoneNumber": "+15550100001", "email": "a@example.com"}]
    documents: list[Row] = [
        {"document_id": f"d{n}", "user_id": "u1", "createdAt": row["timestamp"], "type": kind}
        for n, (row, kind) in enumerate(zip(events, itertools.cycle(TYPES), strict=False))
    ]
    expected = expected_sessions(table, events, users, documents, [])
    with Scenario(clients=clients, settings={"metrics_file": file}) as scenario:
        scenario.arrive("posthog_events", events)
        scenario.arrive("firebase_users", users)
        scenario.arrive("firebase_events", documents)
        for engine in ("pandas", "bigquery"):
            report = scenario.run(full_load=True, engine=engine)
            assert differences(scenario.sessions(), expected) == []
        (person,) = scenario.query(
            "SELECT events_created, checkins_created FROM {d}.persons WHERE user_id = 'u1'"
        )
    checkins = [each for _, each in read_documents(table.creation, documents).by_creator["u1"]]
    assert (person["events_created"], person["checkins_created"]) == (
        checkins.count(False),
        checkins.count(True),
    )
    assert any(row["checkins_created"] and row["events_created"] for row in expected.values())
    assert report.firebase["ignored_documents"] > 0
    assert report.counts["excluded"] > 0
