"""What each kind of request reads, publishes and leaves alone."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from runs.errors import DestinationError, RequestError
from tests.scenario import Row, Scenario, differences

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bigquery.clients import Clients
    from sessions.report import SessionsReport

MIDNIGHT = datetime(2026, 10, 5, tzinfo=UTC)


def event(session: str, at: datetime, **columns: object) -> Row:
    """An event of a session, ingested a minute later."""
    return {
        "uuid": f"{session}@{at.isoformat()}",
        "event": "$pageview",
        "distinct_id": f"visitor of {session}",
        "properties": json.dumps({"$session_id": session}),
        "timestamp": at.isoformat(),
        "bq_ingested_timestamp": (at + timedelta(minutes=1)).isoformat(),
        **columns,
    }


def day_of_sessions(day: int, count: int) -> list[Row]:
    """Sessions of two events each; every third one crosses midnight into the next day."""
    rows = []
    for number in range(count):
        start = MIDNIGHT + timedelta(days=day, hours=23, minutes=number)
        gap = timedelta(hours=1 if number % 3 == 0 else 0, seconds=5)
        rows += [event(f"d{day}-{number}", start), event(f"d{day}-{number}", start + gap)]
    return rows


FOUR_DAYS = [row for day in range(4) for row in day_of_sessions(day, 10)]


# Rows that a full load counts as bad, as duplicates or as without a session.
ROWS_SET_ASIDE = [
    event("late", MIDNIGHT, properties=None),
    event("old", datetime(2017, 1, 1, tzinfo=UTC)),
    event("never", MIDNIGHT, timestamp=None),
    event("d0-1", MIDNIGHT, bq_ingested_timestamp=(MIDNIGHT - timedelta(days=3)).isoformat()),
    *day_of_sessions(0, 2),
]
# SDKs cut texts in the middle of a surrogate pair.
HALF = r'{"$session_id": "emoji", "$lib": "web", "title": "cut here \ud83e"}'
WHOLE = r'{"$session_id": "emoji", "$geoip_city_name": "\ud83e\udd8a", "title": "\udd8a"}'
EMOJI = [
    event("emoji", MIDNIGHT + timedelta(seconds=second), properties=properties)
    for second, properties in enumerate([HALF, WHOLE])
]
HARD_CODED = [event("hard-coded", MIDNIGHT + timedelta(days=day)) for day in (0, 2, 4, 9)]


@pytest.fixture(scope="module")
def four_days(clients: Clients) -> Iterator[Scenario]:
    """Four days of ten sessions each."""
    with Scenario(clients=clients) as scenario:
        scenario.arrive("posthog_events", FOUR_DAYS)
        yield scenario


@pytest.fixture
def unloaded(four_days: Scenario) -> Scenario:
    """The four days, without the tables of earlier runs."""
    four_days.query("CREATE SCHEMA IF NOT EXISTS {d}")
    for table in ("sessions", "etl_state_sessions"):
        four_days.query(f"DROP TABLE IF EXISTS {{d}}.{table}")
    return four_days


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstLoad:
    """A full load, and what was published then."""

    scenario: Scenario
    report: SessionsReport
    rows: int
    sessions: dict[str, Row]
    expected: dict[str, Row]


@pytest.fixture(scope="module")
def first_load(clients: Clients) -> Iterator[FirstLoad]:
    """The four days and rows of other kinds, loaded in batches of a few rows."""
    with Scenario(clients=clients) as scenario:
        scenario.arrive("posthog_events", [*FOUR_DAYS, *ROWS_SET_ASIDE, *EMOJI, *HARD_CODED[:2]])
        scenario.settings["max_batch_events"] = 7
        report = scenario.run()
        scenario.settings.clear()
        yield FirstLoad(
            scenario=scenario,
            report=report,
            rows=len(scenario.arrived["posthog_events"]),
            sessions=scenario.sessions(),
            expected=scenario.expected(),
        )


@pytest.fixture
def loaded(first_load: FirstLoad) -> Iterator[Scenario]:
    """The scenario of the first load; after each test its table must be exact."""
    yield first_load.scenario
    assert differences(first_load.scenario.sessions(), first_load.scenario.expected()) == []


def latest(scenario: Scenario, count: int) -> set[str]:
    """The ids of the sessions that start last."""
    rows = scenario.expected()
    return set(sorted(rows, key=lambda key: rows[key]["started_at"])[-count:])


def days_projected(scenario: Scenario, run_id: str) -> list[date]:
    """The days whose `properties` a run's statements read; each day once per statement."""
    days: list[date] = []
    for job in scenario.clients.bigquery.list_jobs(max_results=100):
        sql = getattr(job, "query", "")
        if run_id in job.job_id and "has_properties" in sql:
            for first, end in re.findall(r">= TIMESTAMP '(\S+) .*? < TIMESTAMP '(\S+) ", sql):
                day = date.fromisoformat(first)
                while day < date.fromisoformat(end):
                    days.append(day)
                    day += timedelta(days=1)
    return days


def check_read_once(scenario: Scenario, report: SessionsReport) -> None:
    """Check that the run read the `properties` of no day twice, and of as many as it reports."""
    days = days_projected(scenario, report.run_id)
    assert len(days) == report.read_days > 0
    assert len(set(days)) == len(days)


def test_a_limit_loads_whole_sessions_and_leaves_the_state(unloaded: Scenario) -> None:
    """The sessions with the latest start, complete, from few days; the next run loads the rest."""
    report = unloaded.run(limit=7)
    check_read_once(unloaded, report)
    assert report.kind == "limit"
    assert report.sessions["staged"] == 7
    expected = unloaded.expected()
    wanted = {key: expected[key] for key in latest(unloaded, 7)}
    assert differences(unloaded.sessions(), wanted) == []
    assert report.changed_days == 5
    assert report.read_days <= 5
    assert unloaded.query("SELECT * FROM {d}.etl_state_sessions") == []
    again = unloaded.run(limit=7)
    check_read_once(unloaded, again)
    assert again.sessions["staged"] == 7  # the same ones, not the next
    assert unloaded.sessions().keys() == wanted.keys()
    unloaded.query("DROP TABLE {d}.etl_state_sessions")  # a missing state counts as an empty one
    full = unloaded.run()
    assert full.kind == "full_load"
    assert "no run has succeeded before" in (full.reason or "")
    assert differences(unloaded.sessions(), expected) == []
    assert unloaded.run().kind == "nothing_new"


def test_a_limit_above_all_sessions_loads_them_all(unloaded: Scenario) -> None:
    """A limit that is never reached reads every changed day."""
    unloaded.run(limit=1000)
    assert differences(unloaded.sessions(), unloaded.expected()) == []


def test_dates_load_whole_sessions_of_those_days(unloaded: Scenario) -> None:
    """Sessions with a row on the days named, complete, and no others; the state stays."""
    day = MIDNIGHT.date() + timedelta(days=1)
    report = unloaded.run(start_date=day, end_date=day)
    check_read_once(unloaded, report)
    assert report.kind == "dates"
    expected = unloaded.expected()
    wanted = {
        key: row for key, row in expected.items() if day in {each["day"] for each in row["_days"]}
    }
    assert 10 < len(wanted) < 20
    assert differences(unloaded.sessions(), wanted) == []
    assert unloaded.query("SELECT * FROM {d}.etl_state_sessions") == []


def test_a_start_date_alone_runs_to_today(unloaded: Scenario) -> None:
    """Every session with rows from that day on."""
    unloaded.run(start_date=MIDNIGHT.date() + timedelta(days=3))
    assert {key[:2] for key in unloaded.sessions()} == {"d2", "d3"}


def test_a_dry_run_publishes_nothing(unloaded: Scenario) -> None:
    """It reports what it would do, and leaves sessions, state and staging tables as they were."""
    report = unloaded.run(dry_run=True)
    assert report.dry_run
    assert report.sessions["staged"] == 40
    assert (report.announcement or "").startswith("Full load of 5 days, up to 0.0 GB (0.00 USD) of")
    assert unloaded.sessions() == {}
    assert unloaded.query("SELECT * FROM {d}.etl_state_sessions") == []
    tables = unloaded.query("SELECT table_name FROM {d}.INFORMATION_SCHEMA.TABLES")
    prefix = f"staging_{report.run_id}"
    assert not [row for row in tables if row["table_name"].startswith(prefix)]


def test_every_row_of_a_run_is_counted(first_load: FirstLoad) -> None:
    """The reasons add up to the rows of the days that were read."""
    counts = first_load.report.counts
    assert sum(counts.values()) == first_load.rows
    assert counts["no_session"] == 1
    assert counts["bad_timestamp"] == 3
    assert counts["duplicate"] == 4


def test_batches_make_the_same_table(first_load: FirstLoad) -> None:
    """However small the batches, every session is whole in one of them."""
    assert first_load.report.sessions["staged"] == 42
    assert differences(first_load.sessions, first_load.expected) == []


def test_half_an_emoji_does_not_lose_its_event(first_load: FirstLoad) -> None:
    """Texts cut in the middle of a surrogate pair are read, and whole pairs stay as they are."""
    session = first_load.sessions["emoji"]
    assert (session["event_count"], session["lib"], session["city"]) == (2, "web", "🦊")


def test_an_ordinary_run_touches_only_what_changed(loaded: Scenario) -> None:
    """A late row of a session rebuilds that session alone, and reads its days alone."""
    before = loaded.query("SELECT session_id, _run_id FROM {d}.sessions")
    late = MIDNIGHT + timedelta(days=1, hours=22)
    loaded.arrive("posthog_events", [event("d1-3", late)])
    report = loaded.run()
    check_read_once(loaded, report)
    assert (report.kind, report.changed_days, report.read_days) == ("incremental", 1, 2)
    assert report.sessions["staged"] == 1
    after = loaded.query("SELECT session_id, _run_id FROM {d}.sessions")
    assert {row["session_id"] for row in after if row not in before} == {"d1-3"}


def test_changes_in_firebase_rebuild_the_sessions_concerned(loaded: Scenario) -> None:
    """A user and a document that arrive after their session was stored, and then vanish."""
    user, at = "visitor of d1-4", MIDNIGHT + timedelta(days=1, hours=23, minutes=4)
    document = {"document_id": "hers", "user_id": user, "createdAt": at.isoformat()}
    loaded.arrive("firebase_users", [{"user_id": user, "createdAt": MIDNIGHT.isoformat()}])
    loaded.arrive("firebase_events", [document])
    report = loaded.run()
    assert (report.changed_days, report.sessions["outdated"]) == (0, 1)
    session = loaded.sessions()["d1-4"]
    assert (session["user_id"], session["events_created"]) == (user, 1)
    loaded.vanish("firebase_events", "document_id", "hers")
    loaded.vanish("firebase_users", "user_id", user)
    assert loaded.run(force=True).sessions["outdated"] == 1  # forced, since no user is left


def test_a_channel_that_arrives_late_rebuilds_its_session(loaded: Scenario) -> None:
    """It does so though no event, user or document changed."""
    channel = {
        "session_id": "d1-4",
        "channel_type": "Direct",
        "start_timestamp": MIDNIGHT.isoformat(),
        "end_timestamp": MIDNIGHT.isoformat(),
    }
    assert loaded.run().kind == "nothing_new"
    loaded.arrive("posthog_sessions", [channel])
    report = loaded.run()
    assert (report.changed_days, report.sessions["outdated"]) == (0, 1)
    assert loaded.sessions()["d1-4"]["channel_type"] == "Direct"
    assert loaded.run().kind == "nothing_new"


def test_a_missing_sessions_table_forces_a_full_load(loaded: Scenario) -> None:
    """A state without its sessions table does not count, and the report says so."""
    loaded.query("DROP TABLE {d}.sessions")
    report = loaded.run()
    assert report.kind == "full_load"
    assert "the sessions table was missing" in (report.reason or "")
    assert loaded.run().kind == "nothing_new"


def test_missing_columns_are_added_and_columns_of_another_type_refused(loaded: Scenario) -> None:
    """A column that an earlier version lacks is added, and a full load follows.

    A column of another type can't hold the rows: it is named, and the table stays as it is.
    """
    columns = "* EXCEPT (touch_reach, lib), 1 AS lib"
    loaded.query(f"CREATE OR REPLACE TABLE {{d}}.sessions AS SELECT {columns} FROM {{d}}.sessions")
    with pytest.raises(DestinationError, match=r"Column lib of table .* is INT"):
        loaded.run()
    loaded.query("ALTER TABLE {d}.sessions DROP COLUMN lib")
    report = loaded.run()
    assert report.kind == "full_load"
    assert "the sessions table is not the one that the last run wrote" in (report.reason or "")
    assert loaded.run().kind == "nothing_new"


def test_an_id_that_becomes_too_long_is_split_for_good(loaded: Scenario) -> None:
    """The row of a hard-coded id is replaced by pieces; a later row reads its own day alone."""
    assert "hard-coded" in loaded.sessions()
    loaded.arrive("posthog_events", HARD_CODED[2:3])
    report = loaded.run()
    assert (report.sessions["split"], report.sessions["staged"]) == (1, 3)
    pieces = {key for key, row in loaded.sessions().items() if row["is_split"]}
    assert "hard-coded" not in loaded.sessions()
    assert {key.split("/")[0] for key in pieces} == {"hard-coded"}
    loaded.arrive("posthog_events", HARD_CODED[3:])
    report = loaded.run()
    assert (report.sessions["split"], report.sessions["staged"], report.read_days) == (0, 1, 1)
    before = loaded.sessions()
    loaded.run(full_load=True)  # decides again, with the same result
    assert differences(loaded.sessions(), before) == []
    rows = loaded.query("SELECT session_id, row_count FROM {d}.split_ids")
    assert rows == [{"session_id": "hard-coded", "row_count": 4}]


def test_rows_rewritten_in_place_are_noticed(loaded: Scenario) -> None:
    """The day's stamp shows the change, though no count does; digests show the session."""
    events = f"{loaded.datasets.posthog}.events"
    loaded.query(f"UPDATE {events} SET event = 'view_event' WHERE distinct_id LIKE '%d0-1'")
    rewritten = [
        row | {"event": "view_event"} if row["distinct_id"].endswith("d0-1") else row
        for row in loaded.arrived["posthog_events"]
    ]
    loaded.arrived["posthog_events"] = rewritten
    report = loaded.run()
    check_read_once(loaded, report)
    assert (report.kind, report.changed_days, report.sessions["touched"]) == ("incremental", 1, 1)
    assert loaded.sessions()["d0-1"]["events_viewed"] == 2


def test_a_new_stamp_without_new_values_changes_no_session(loaded: Scenario) -> None:
    """Its day is read once more, and the state remembers the stamp."""
    events = f"{loaded.datasets.posthog}.events"
    blank = "properties = CONCAT(properties, ' ')"  # which changes no value
    loaded.query(f"UPDATE {events} SET {blank} WHERE distinct_id LIKE '%d0-1'")
    report = loaded.run()
    assert (report.kind, report.changed_days, report.sessions["staged"]) == ("nothing_new", 1, 0)
    assert loaded.run().changed_days == 0


def test_a_changed_exclusion_is_another_metrics_version(loaded: Scenario) -> None:
    """Leaving rows out changes every session, so it forces a full load, and the report says why.

    A run with dates or a limit neither becomes a full load nor mixes versions: it is refused, even
    if a single row is of another version.
    """
    loaded.query("UPDATE {d}.sessions SET _metrics_version = 'older' WHERE session_id = 'd1-3'")
    refused: tuple[Row, ...] = ({"limit": 3}, {"start_date": date(2026, 10, 5)})
    for request in refused:
        with pytest.raises(RequestError, match="run a full load"):
            loaded.run(**request)
    assert differences(loaded.sessions(), loaded.expected()) == []
    loaded.settings["exclude_distinct_ids"] = ("visitor of d2-4",)
    report = loaded.run()
    assert report.kind == "full_load"
    assert "the metrics changed" in (report.reason or "")
    assert (report.announcement or "").startswith("Metrics changed: full load of ")
    assert report.counts["excluded"] == 2
    assert "d2-4" not in loaded.sessions()
    rows = loaded.query("SELECT COUNT(DISTINCT _metrics_version) AS versions FROM {d}.sessions")
    assert rows == [{"versions": 1}]
    loaded.vanish("posthog_events", "distinct_id", "visitor of d2-4")
    loaded.settings.clear()
    assert loaded.run().kind == "full_load"
