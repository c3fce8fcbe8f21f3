"""Verification of stored sessions: it agrees with right ones, and names what is wrong."""

from __future__ import annotations

from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from bigquery.warehouse import Warehouse
from jobs.sessions import EXPLAIN, VERIFY, VERIFY_AND_RECORD
from oracle.comparison import verification_text
from runs.errors import AbsentError, RequestError
from runs.ledger_row import last_successes
from sessions.samples import VerifyRequest
from tests.case_files import load_cases
from tests.paths import TESTS
from tests.scenario import Scenario
from tests.sessions.test_requests_on_data import event

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bigquery.clients import Clients
    from jobs.sessions_verification import Reading
    from oracle.comparison import Verification
    from oracle.story import Story
    from sandbox.tables import PropertiesType


@contextmanager
def loaded(clients: Clients, properties: PropertiesType) -> Iterator[Scenario]:
    """All case folders, loaded by one run."""
    cases = load_cases(TESTS / "cases")
    with Scenario(clients=clients, properties=properties) as found:
        found.arrive("posthog_events", cases.events)
        found.arrive("firebase_users", cases.users)
        found.arrive("firebase_events", cases.documents)
        found.arrive("posthog_sessions", cases.posthog_sessions)
        found.run()
        yield found


@pytest.fixture(scope="module")
def scenario(clients: Clients) -> Iterator[Scenario]:
    """All case folders, with `properties` as STRING."""
    with loaded(clients, "string") as found:
        yield found


def verify(scenario: Scenario, request: VerifyRequest, readings: list[Reading]) -> Verification:
    """What a verification finds; `readings` receives what it was about to read."""
    settings = scenario.make_settings()
    warehouse = Warehouse(clients=scenario.clients, settings=settings, run_id="verify")
    return VERIFY(warehouse, request, readings.append)


def test_right_sessions_are_right_in_every_cell(scenario: Scenario, clients: Clients) -> None:
    """A third implementation agrees in every cell of two hundred sessions of all kinds.

    `properties` are STRING, and then JSON: nothing else is read in different ways.
    """
    check_all(scenario)
    with loaded(clients, "json") as other:
        check_all(other)
        split_id = other.query("SELECT session_id FROM {d}.split_ids")[0]["session_id"]
        piece = next(key for key in other.sessions() if key.startswith(f"{split_id}/"))
        assert explain(other, piece).status == "right"


def check_all(scenario: Scenario) -> None:
    """Verify two hundred sessions."""
    readings: list[Reading] = []
    found = verify(scenario, VerifyRequest(seed="1", size=200), readings)
    assert [v.session_id for v in found.of("changed")] == []
    assert [d for v in found.of("wrong") for d in v.differences] == []
    assert len(found.verdicts) > 150
    assert found.unchecked == ()
    assert readings[0].days == found.days


def test_a_wrong_stored_value_is_named(scenario: Scenario) -> None:
    """A value planted in the table is found by session, column, both values and its events."""
    session_id = "bla-4"
    scenario.query(f"UPDATE {{d}}.sessions SET event_count = 99 WHERE session_id = '{session_id}'")
    found = verify(scenario, VerifyRequest(seed="1", session_id=session_id), [])
    (difference,) = found.of("wrong")[0].differences
    assert (difference.session_id, difference.column) == (session_id, "event_count")
    assert (difference.stored, difference.computed) == (99, len(difference.events))
    assert not found.is_right
    assert f"{session_id}.event_count is 99 and should be" in verification_text(found)


def test_a_session_whose_rows_changed_is_no_error(scenario: Scenario) -> None:
    """Rows that arrived after the run, or were rewritten in place, are reported as changed."""
    rows = [row for row in scenario.arrived["posthog_events"] if row["uuid"] == "bla-4.01"]
    scenario.arrive("posthog_events", [row | {"uuid": "bla-4.new"} for row in rows])
    found = verify(scenario, VerifyRequest(seed="1", session_id="bla-4"), [])
    assert [v.session_id for v in found.of("changed")] == ["bla-4"]
    assert found.is_right


def test_the_same_seed_chooses_the_same_sessions(scenario: Scenario) -> None:
    """A finding can be repeated by its seed; another seed chooses other sessions."""

    def chosen(seed: str) -> list[str]:
        found = verify(scenario, VerifyRequest(seed=seed, size=8), [])
        return [verdict.session_id for verdict in found.verdicts]

    assert chosen("a") == chosen("a") != chosen("b")
    assert len(chosen("a")) == 8


def explain(scenario: Scenario, session_id: str) -> Story:
    """The story of a session of the scenario."""
    settings = scenario.make_settings()
    warehouse = Warehouse(clients=scenario.clients, settings=settings, run_id="explain")
    return EXPLAIN(warehouse, session_id, lambda _: None)


def test_a_story_shows_copies_gaps_people_and_the_events_behind_columns(scenario: Scenario) -> None:
    """Events stand in order with their copies, and each column names the events behind it."""
    rows = {key: row for key, row in scenario.sessions().items() if key != "bla-4"}
    known = [key for key, row in rows.items() if row["user_id"]]
    busiest = max(known, key=lambda key: rows[key]["event_count"])
    story = explain(scenario, busiest)
    assert story.status == "right"
    assert len(story.events) == rows[busiest]["event_count"]
    assert sum(e.gap_seconds for e in story.events) == rows[busiest]["duration_seconds"]
    assert {i.user_id for i in story.distinct_ids} >= {rows[busiest]["user_id"]}
    columns = {column.name: column for column in story.columns}
    assert columns["started_at"].events == (1,)
    assert columns["event_count"].events == tuple(range(1, len(story.events) + 1))
    assert "phoneNumber" not in str(story.to_json())


def test_an_absent_session_is_explained(scenario: Scenario) -> None:
    """For an id that is not stored the answer says what the newest days of the source hold."""
    now = datetime.now(UTC)
    late = [
        event("not loaded", now),
        event("of a wrong clock", now, bq_ingested_timestamp=now - timedelta(days=3)),
        event("undefined", now),
    ]
    scenario.arrive("posthog_events", late)
    try:
        for session_id, why in (
            ("nobody's", "no row of the newest 7 days of the source has that id"),
            ("not loaded", "1 events of it are in the source and not loaded, so run main.py"),
            ("of a wrong clock", r"newest rows were set aside \(bad_timestamp 1\)"),
            ("undefined", r"newest rows were set aside \(no_session 1\)"),
        ):
            with pytest.raises(AbsentError, match=f"There is no session {session_id}.*{why}"):
                explain(scenario, session_id)
    finally:
        for row in late:
            scenario.vanish("posthog_events", "distinct_id", str(row["distinct_id"]))


def test_a_split_id_names_a_piece(scenario: Scenario) -> None:
    """The answer for a split id names its pieces, each of which can be explained."""
    session_id = scenario.query("SELECT session_id FROM {d}.split_ids")[0]["session_id"]
    with pytest.raises(AbsentError, match=rf"is split into \d+ pieces.*{session_id}/20"):
        explain(scenario, session_id)
    pieces = [key for key in scenario.sessions() if key.startswith(f"{session_id}/")]
    assert explain(scenario, pieces[0]).status == "right"


def test_a_recorded_verification_is_in_the_ledger(scenario: Scenario) -> None:
    """A weekly check leaves a row of kind verify, which is no success of the job."""
    settings = scenario.make_settings()
    warehouse = Warehouse(clients=scenario.clients, settings=settings, run_id="verify")
    before = last_successes(warehouse)
    VERIFY_AND_RECORD(warehouse, VerifyRequest(seed="1", session_id="bla-4"), datetime.now(UTC))
    rows = scenario.query("SELECT status, error FROM {d}.etl_runs WHERE kind = 'verify'")
    assert rows == [{"status": "succeeded", "error": None}]
    assert last_successes(warehouse) == before


def test_a_reading_can_be_refused_before_it_is_made(scenario: Scenario) -> None:
    """The days and the cost are reported first; after a refusal nothing is read."""

    def refuse(reading: Reading) -> None:
        raise RequestError(str(reading))

    settings = scenario.make_settings()
    warehouse = Warehouse(clients=scenario.clients, settings=settings, run_id="verify")
    with pytest.raises(RequestError, match=r"It reads \d+ days \(20"):
        VERIFY(warehouse, VerifyRequest(seed="1", size=1), refuse)
    assert {step for step, _ in warehouse.usage} == {"sample"}
