"""Inputs after public bug reports, each with its source and what is expected in its README.

All but one are loaded into one place, in the order of their folders; they share no id.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from runs.errors import AuditError
from tests.clock import starting_at
from tests.paths import TESTS
from tests.scenario import Row, Scenario, differences

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bigquery.clients import Clients
    from sandbox.tables import TableName
    from sessions.report import SessionsReport

FOLDER = TESTS / "bug_reports"
TABLES: tuple[TableName, ...] = (
    "posthog_events", "posthog_sessions", "firebase_users", "firebase_events",
)  # fmt: skip
NOW = datetime(2026, 11, 26, 2, tzinfo=UTC)


def arrive(scenario: Scenario, number: str, part: str = "") -> None:
    """Load a folder of a report, or a part of it."""
    (report,) = FOLDER.glob(f"{number}-*")
    for table in TABLES:
        file = report / part / f"{table}.jsonl"
        if file.exists():
            text = file.read_text("utf-8")
            scenario.arrive(table, [json.loads(line) for line in text.splitlines()])


def run(scenario: Scenario, **request: object) -> SessionsReport:
    """A run in the night after them."""
    with starting_at(NOW):
        return scenario.run(**request)


@pytest.fixture(scope="module")
def scenario(clients: Clients) -> Iterator[Scenario]:
    """What arrives first, loaded by one run."""
    with Scenario(clients=clients) as made:
        for number, part in (("01", ""), ("03", ""), ("17", ""), ("28", ""), ("31", "first")):
            arrive(made, number, part)
        run(made)
        yield made


@pytest.fixture(scope="module")
def first(scenario: Scenario) -> dict[str, Row]:
    """The sessions of the first run."""
    return scenario.sessions()


def ids(sessions: dict[str, Row], prefix: str) -> dict[str, Row]:
    """The sessions of the distinct ids that begin so."""
    return {
        key: row for key, row in sessions.items() if (row["distinct_id"] or "").startswith(prefix)
    }


def test_a_session_id_in_upper_case_is_the_same_session(first: dict[str, Row]) -> None:
    """01: two sessions with their channels, whatever the case that an SDK sends."""
    found = ids(first, "u01")
    assert sorted((row["event_count"], row["channel_type"]) for row in found.values()) == [
        (1, "Paid Search"),
        (3, "Email"),
    ]
    assert all(key == key.lower() for key in found)


def test_a_session_id_that_means_nothing_is_no_session(first: dict[str, Row]) -> None:
    """03: only the good session is one, so nobody's time spans that of other people."""
    assert len(ids(first, "u03")) == 1


def test_a_junk_id_is_no_person(scenario: Scenario, first: dict[str, Row]) -> None:
    """28: sessions of `undefined` are nobody's, like those without an id."""
    assert {key for key in first if key.startswith("g28")} == {"g28-0", "g28-1", "g28-2", "g28-x"}
    persons = scenario.query("SELECT person_id FROM {d}.persons")
    assert "undefined" not in {row["person_id"] for row in persons}


def test_an_emptied_users_table_takes_nobody_away(
    scenario: Scenario, first: dict[str, Row]
) -> None:
    """17: the run is refused, and names the table; after the load all is as it was.

    The report asks for a warning. A run that publishes sessions without their users would
    be wrong until the next night, so the audit ends it.
    """
    for table in ("firebase_users", "firebase_events"):
        name = scenario.datasets.table_id(scenario.clients.bigquery, table)
        scenario.query(f"TRUNCATE TABLE `{name}`")
        scenario.arrived[table] = []
    with pytest.raises(
        AuditError, match=r"users has 0 usable ids where the last run found 2.*--fo"
    ):
        run(scenario)
    assert scenario.sessions() == first
    arrive(scenario, "17", "again")
    run(scenario)
    assert scenario.sessions() == first
    assert first["g17-a"]["user_id"] == "u17-a"
    assert first["g17-b"]["user_match"] == "phone"


def test_a_deletion_is_seen_beside_as_many_arrivals(scenario: Scenario) -> None:
    """31, and the rest of 03: the count of the day is the same, and the person is gone.

    Both engines end in the oracle's table.
    """
    scenario.vanish("posthog_events", "distinct_id", "u31-gone")
    arrive(scenario, "31", "second")
    arrive(scenario, "03", "later")
    report = run(scenario)
    found = scenario.sessions()
    assert report.kind == "incremental"
    assert [row["event_count"] for row in ids(found, "u31").values()] == [5]
    assert len(ids(found, "u03")) == 1
    expected = scenario.expected()
    assert differences(found, expected) == []
    twin = scenario.twin()
    report = run(twin, full_load=True, engine="bigquery")
    assert differences(twin.sessions(), expected) == []
    assert report.counts["no_session"] == 8  # of 03
    assert report.persons["sessions_without_person"] == 4  # of 28


def test_a_clock_that_is_ahead_hides_no_dead_export(clients: Clients) -> None:
    """08: rows at an incredible time prove nothing about the export."""
    with Scenario(clients=clients) as scenario:
        arrive(scenario, "08")
        with starting_at(datetime(2026, 11, 25, 21, tzinfo=UTC)):
            report = scenario.run()
        assert report.counts["bad_timestamp"] == 2
        assert "The newest event is 240 hours old: is the export running?" in report.warnings
        assert differences(scenario.sessions(), scenario.expected()) == []
