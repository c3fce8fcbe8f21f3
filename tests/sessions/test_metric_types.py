"""A metric table is a value: two of them make their own sessions in one process."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from jobs import registry
from sessions.data_dictionary import dictionary_text, null_rules, tables
from sessions.metric_types import Creation, MetricTable
from tests.reading_job import READING
from tests.scenario import Row, Scenario, differences
from tests.shipped import METRIC_TABLE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bigquery.clients import Clients
    from runs.settings import Engine

STARTED_AT = datetime(2026, 9, 1, 10, tzinfo=UTC)
OTHER_VALUES: dict[str, Any] = {
    "columns": METRIC_TABLE.columns[:-1],
    "properties": (*METRIC_TABLE.properties, READING.properties[0]),
    "session_id_names": READING.session_id_names,
    "ignored_events": ("push_received",),
    "creation": Creation(checkins=("visit",)),
    "junk_ids": READING.junk_ids,
    "ties": METRIC_TABLE.ties[:1],
}


def event(number: int, session: str, reading: str, who: str, **values: object) -> Row:
    """An event with a session id for either table, 20 s after the one with the number before."""
    at = STARTED_AT + timedelta(seconds=20 * number)
    return {
        "uuid": f"u{number}",
        "event": "$pageview",
        "distinct_id": who,
        "timestamp": at.isoformat(),
        "properties": json.dumps({"$session_id": session, "reading_id": reading, **values}),
    }


EVENTS = [
    event(0, "s1", "r1", "ann", pages=2, chapter="one"),
    event(1, "s1", "r1", "ann", pages=3, chapter="two"),
    event(3, "s1", "r2", "a reader", pages="many", chapter="two"),
    *(event(number, "s2", "r3", "ann", pages=1) for number in (4, 5, 6)),
]
READINGS: dict[str, Row] = {
    "r1": {
        "event_count": 2,
        "engaged_seconds": 5.0,  # a gap of 20 s, capped
        "pages_read": 5.0,
        "chapters": [{"chapter": "one", "count": 1}, {"chapter": "two", "count": 1}],
        "user_id": "ann",
    },
    "r2": {
        "event_count": 1,
        "engaged_seconds": 0.0,
        "pages_read": None,
        "chapters": [{"chapter": "two", "count": 1}],
        "user_id": None,  # of a junk id
    },
}


@pytest.fixture(scope="module")
def scenario(clients: Clients) -> Iterator[Scenario]:
    """Events and users that both jobs read; the second job is registered."""
    with pytest.MonkeyPatch.context() as patch, Scenario(clients=clients) as scenario:
        patch.setitem(registry.JOBS, "reading", "tests.reading_job")
        scenario.arrive("posthog_events", EVENTS)
        scenario.arrive("firebase_users", [{"user_id": "ann"}, {"user_id": "a reader"}])
        yield scenario


def columns(scenario: Scenario, table: str) -> list[str]:
    """The columns that a table of the destination has in BigQuery."""
    found = scenario.clients.bigquery.get_table(f"{scenario.destination}.{table}")
    return [column.name for column in found.schema]


@pytest.mark.parametrize("engine", ["pandas", "bigquery"])
def test_two_tables_are_used_in_one_process(scenario: Scenario, engine: Engine) -> None:
    """Runs that take turns give each table its own columns and values, by either engine."""
    shipped, reading = scenario, scenario.twin()
    shipped.run(full_load=True, engine=engine)
    reading.run(full_load=True, engine=engine, job="reading")
    shipped.run(full_load=True, engine=engine)
    assert differences(shipped.sessions(), shipped.expected()) == []
    assert differences(reading.sessions(), READINGS) == []
    (quarantined,) = reading.query("SELECT session_id FROM {d}.quarantined_sessions")
    assert quarantined["session_id"].startswith("r3/")
    (person,) = reading.query("SELECT pages_read FROM {d}.persons WHERE user_id = 'ann'")
    assert person["pages_read"] == 5.0
    for each, metric_table in ((shipped, METRIC_TABLE), (reading, READING)):
        for name in ("sessions", "persons", "daily_activity"):
            declared = tables(metric_table)[name].fields
            assert columns(each, name) == [field.name for field in declared]


def test_the_dictionary_describes_the_given_table() -> None:
    """Another table's page has its columns and their rules, and none of the shipped ones."""
    for name in ("sessions", "persons", "daily_activity"):
        rules = null_rules(READING, name)
        assert [*rules] == [field.name for field in tables(READING)[name].fields]
        assert "pages_read" in rules
        assert not any("scroll" in column for column in rules)


# Which columns stand in the metrics file changes no row.
NOT_IN_VERSION = {"declared"}


@pytest.mark.parametrize(
    "name", [field.name for field in fields(MetricTable) if field.name not in NOT_IN_VERSION]
)
def test_every_part_of_a_table_is_in_its_version(name: str) -> None:
    """Whatever changes what a row means makes another version, so that the next run loads all."""
    value = OTHER_VALUES.get(name) or getattr(METRIC_TABLE, name) + 1
    other = replace(METRIC_TABLE, **{name: value})
    assert other.version(()) != METRIC_TABLE.version(())


def test_the_dictionary_explains_the_rules() -> None:
    """Where a session's id is read from, what is set aside, and what a document counts as."""
    declared = replace(
        METRIC_TABLE,
        session_id_names=("visitId",),
        ignored_events=("push",),
        creation=Creation(checkins=("visit",), ignored=("draft", "test")),
    )
    text = " ".join(dictionary_text(declared).split())
    assert (
        "A session's id is read from the properties `visitId`. Events named `push` are of no"
        " session. Firebase's documents of type `visit` are check-ins, those of type `draft`,"
        " `test` count nowhere, and those of any other type, and of none, are events."
    ) in text


def test_derived_parts_of_a_table_are_computed_once() -> None:
    """Each batch asks for them again, which costs nothing."""
    for name in ("metrics", "repeated", "enriched", "derived"):
        assert getattr(READING, name)
        assert getattr(READING, name) is getattr(READING, name)
    assert READING.metrics != METRIC_TABLE.metrics
