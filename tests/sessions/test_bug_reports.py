"""Inputs from public bug reports; each folder's README names its source and what is expected.

All but one are loaded into one scenario, in the order of their folders: they share no id.
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
    """Append the rows of a report's folder, or of a part of it, to the sources."""
    (report,) = FOLDER.glob(f"{number}-*")
    for table in TABLES:
        file = report / part / f"{table}.jsonl"
        if file.exists():
            text = file.read_text("utf-8")
            scenario.arrive(table, [json.loads(line) for line in text.splitlines()])


def run(scenario: Scenario, **request: object) -> SessionsReport:
    """Run the job in the night after the events."""
    with starting_at(NOW):
        return scenario.run(**request)


@pytest.fixture(scope="module")
def scenario(clients: Clients) -> Iterator[Scenario]:
    """The rows that arrive first, loaded by one run."""
    with Scenario(clients=clients) as scenario:
        for number, part in (("01", ""), ("03", ""), ("17", ""), ("28", ""), ("31", "first")):
            arrive(scenario, number, part)
        run(scenario)
        yield scenario


@pytest.fixture(scope="module")
def first_sessions(scenario: Scenario) -> dict[str, Row]:
    """The sessions of the first run."""
    return scenario.sessions()


def sessions_with_prefix(sessions: dict[str, Row], prefix: str) -> dict[str, Row]:
    """The sessions whose distinct id has this prefix."""
    return {
        key: row for key, row in sessions.items() if (row["distinct_id"] or "").startswith(prefix)
    }


def test_a_session_id_in_upper_case_is_the_same_session(first_sessions: dict[str, Row]) -> None:
    """01: two sessions with their channels, in whatever case an SDK sends their ids."""
    found = sessions_with_prefix(first_sessions, "u01")
    assert sorted((row["event_count"], row["channel_type"]) for row in found.values()) == [
        (1, "Paid Search"),
        (3, "Email"),
    ]
    assert all(key == key.lower() for key in found)


def test_a_junk_session_id_makes_no_session(first_sessions: dict[str, Row]) -> None:
    """03: only the good id makes a session, so no session mixes several people."""
    assert len(sessions_with_prefix(first_sessions, "u03")) == 1


def test_a_junk_id_is_no_person(scenario: Scenario, first_sessions: dict[str, Row]) -> None:
    """28: sessions of the id `undefined` belong to nobody, like those without an id."""
    assert {key for key in first_sessions if key.startswith("g28")} == {
        "g28-0",
        "g28-1",
        "g28-2",
        "g28-x",
    }
    persons = scenario.query("SELECT person_id FROM {d}.persons")
    assert "undefined" not in {row["person_id"] for row in persons}


def test_an_emptied_users_table_ends_the_run(
    scenario: Scenario, first_sessions: dict[str, Row]
) -> None:
    """17: the error names the table; once the users are loaded again, the run changes nothing.

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
    assert scenario.sessions() == first_sessions
    arrive(scenario, "17", "again")
    run(scenario)
    assert scenario.sessions() == first_sessions
    assert first_sessions["g17-a"]["user_id"] == "u17-a"
    assert first_sessions["g17-b"]["user_match"] == "phone"


def test_a_deletion_is_noticed_when_as_many_rows_arrive(scenario: Scenario) -> None:
    """31, and the rest of 03: the day has as many rows as before, and the deleted person is gone.

    Both engines make the oracle's table.
    """
    scenario.vanish("posthog_events", "distinct_id", "u31-gone")
    arrive(scenario, "31", "second")
    arrive(scenario, "03", "later")
    report = run(scenario)
    found = scenario.sessions()
    assert report.kind == "incremental"
    assert [row["event_count"] for row in sessions_with_prefix(found, "u31").values()] == [5]
    assert len(sessions_with_prefix(found, "u03")) == 1
    expected = scenario.expected()
    assert differences(found, expected) == []
    twin = scenario.twin()
    report = run(twin, full_load=True, engine="bigquery")
    assert differences(twin.sessions(), expected) == []
    assert report.counts["no_session"] == 8  # of 03
    assert report.persons["sessions_without_person"] == 4  # of 28


def test_a_clock_that_is_ahead_does_not_hide_a_stopped_export(clients: Clients) -> None:
    """08: rows with an impossible time do not prove that the export still runs."""
    with Scenario(clients=clients) as scenario:
        arrive(scenario, "08")
        with starting_at(datetime(2026, 11, 25, 21, tzinfo=UTC)):
            report = scenario.run()
        assert report.counts["bad_timestamp"] == 2
        assert "The newest event is 240 hours old: is the export running?" in report.warnings
        assert differences(scenario.sessions(), scenario.expected()) == []
