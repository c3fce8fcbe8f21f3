"""What each kind of request reads, publishes and leaves alone."""

from __future__ import annotations

import json
import re
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from runs.errors import DestinationError, RequestError
from tests.world import Row, World, differences

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bigquery.clients import Clients

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


@pytest.fixture
def four_days(clients: Clients) -> Iterator[World]:
    """Four days of ten sessions each, nothing run yet."""
    with World(clients=clients) as world:
        world.arrive("posthog_events", FOUR_DAYS)
        yield world


@pytest.fixture(scope="module")
def shared(clients: Clients) -> Iterator[World]:
    """Four days of ten sessions each, run once."""
    with World(clients=clients) as world:
        world.arrive("posthog_events", FOUR_DAYS)
        world.run()
        yield world


@pytest.fixture
def loaded(shared: World) -> Iterator[World]:
    """The same for tests that leave it with an exact table, and nothing new to load."""
    yield shared
    assert differences(shared.sessions(), shared.expected()) == []


def latest(world: World, count: int) -> set[str]:
    """The ids of the sessions that start last."""
    rows = world.expected().items()
    return set(
        sorted((key for key, _ in rows), key=lambda k: world.expected()[k]["started_at"])[-count:]
    )


def test_a_limit_loads_whole_sessions_and_leaves_the_state(four_days: World) -> None:
    """The sessions with the latest start, complete, from few days; the next run loads the rest."""
    report = four_days.run(limit=7)
    assert report.kind == "limit"
    assert report.sessions["staged"] == 7
    expected = four_days.expected()
    wanted = {key: expected[key] for key in latest(four_days, 7)}
    assert differences(four_days.sessions(), wanted) == []
    assert report.changed_days == 5
    assert report.read_days <= 5
    assert four_days.query("SELECT * FROM {d}.etl_state_sessions") == []
    assert four_days.run(limit=7).sessions["staged"] == 7  # the same ones, not the next
    assert four_days.sessions().keys() == wanted.keys()
    assert four_days.run().kind == "full_load"
    assert differences(four_days.sessions(), expected) == []


def test_a_limit_above_all_sessions_loads_them_all(four_days: World) -> None:
    """A limit that nothing meets reads every changed day and stops."""
    four_days.run(limit=1000)
    assert differences(four_days.sessions(), four_days.expected()) == []


def test_dates_load_the_sessions_of_those_days_whole(four_days: World) -> None:
    """Sessions with a row on the days named, complete, and no others; the state stays."""
    day = MIDNIGHT.date() + timedelta(days=1)
    report = four_days.run(start_date=day, end_date=day)
    assert report.kind == "dates"
    expected = four_days.expected()
    wanted = {
        key: row for key, row in expected.items() if day in {each["day"] for each in row["_days"]}
    }
    assert 10 < len(wanted) < 20
    assert differences(four_days.sessions(), wanted) == []
    assert four_days.query("SELECT * FROM {d}.etl_state_sessions") == []


def test_a_start_date_alone_runs_to_today(four_days: World) -> None:
    """Every session with rows from that day on."""
    four_days.run(start_date=MIDNIGHT.date() + timedelta(days=3))
    assert {key[:2] for key in four_days.sessions()} == {"d2", "d3"}


def test_a_dry_run_publishes_nothing(four_days: World) -> None:
    """It tells what it would do, and leaves sessions, state and staging tables as they were."""
    report = four_days.run(dry_run=True)
    assert report.dry_run
    assert report.sessions["staged"] == 40
    assert four_days.sessions() == {}
    assert four_days.query("SELECT * FROM {d}.etl_state_sessions") == []
    tables = four_days.query("SELECT table_name FROM {d}.INFORMATION_SCHEMA.TABLES")
    assert not [row for row in tables if row["table_name"].startswith("staging")]


def test_an_ordinary_run_touches_only_what_changed(loaded: World) -> None:
    """A late row of one session redoes that session alone, and reads its days alone."""
    before = loaded.query("SELECT session_id, _run_id FROM {d}.sessions")
    late = MIDNIGHT + timedelta(days=1, hours=22)
    loaded.arrive("posthog_events", [event("d1-3", late)])
    report = loaded.run()
    assert (report.kind, report.changed_days, report.read_days) == ("incremental", 1, 2)
    assert report.sessions["staged"] == 1
    after = loaded.query("SELECT session_id, _run_id FROM {d}.sessions")
    assert {row["session_id"] for row in after if row not in before} == {"d1-3"}


def test_firebase_redoes_the_sessions_it_concerns(loaded: World) -> None:
    """A user and a document that arrive after their session was stored, and then vanish."""
    user, at = "visitor of d1-4", MIDNIGHT + timedelta(days=1, hours=23, minutes=4)
    document = {"document_id": "hers", "user_id": user, "createdAt": at.isoformat()}
    loaded.arrive("firebase_users", [{"user_id": user, "createdAt": MIDNIGHT.isoformat()}])
    loaded.arrive("firebase_events", [document])
    report = loaded.run()
    assert (report.changed_days, report.sessions["concerned"]) == (0, 1)
    session = loaded.sessions()["d1-4"]
    assert (session["user_id"], session["events_created"]) == (user, 1)
    loaded.vanish("firebase_events", "document_id", "hers")
    loaded.vanish("firebase_users", "user_id", user)
    assert loaded.run().sessions["concerned"] == 1


def test_every_row_of_a_run_is_counted(four_days: World) -> None:
    """The reasons add up to the rows of the days that were read."""
    rows = [
        event("late", MIDNIGHT, properties=None),
        event("old", datetime(2017, 1, 1, tzinfo=UTC)),
        event("never", MIDNIGHT, timestamp=None),
        event("d0-1", MIDNIGHT, bq_ingested_timestamp=(MIDNIGHT - timedelta(days=3)).isoformat()),
        *day_of_sessions(0, 2),
    ]
    four_days.arrive("posthog_events", rows)
    report = four_days.run()
    assert sum(report.counts.values()) == len(four_days.arrived["posthog_events"])
    assert report.counts["no_session"] == 1
    assert report.counts["bad_timestamp"] == 3
    assert report.counts["duplicate"] == 4


def test_half_an_emoji_does_not_lose_its_event(four_days: World) -> None:
    """SDKs cut texts in the middle of a surrogate pair; whole pairs stay as they are."""
    cut = r'{"$session_id": "d0-1", "$lib": "web", "title": "cut here \ud83e"}'
    whole = r'{"$session_id": "d0-1", "$geoip_city_name": "\ud83e\udd8a", "title": "\udd8a"}'
    rows = [
        event("d0-1", MIDNIGHT + timedelta(seconds=second), properties=properties)
        for second, properties in enumerate([cut, whole])
    ]
    four_days.arrive("posthog_events", rows)
    assert four_days.run().counts.get("no_session", 0) == 0
    session = four_days.sessions()["d0-1"]
    assert (session["event_count"], session["lib"], session["city"]) == (4, "web", "🦊")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("DROP TABLE {d}.sessions", "the sessions table was missing"),
        ("DROP TABLE {d}.etl_state_sessions", "no run has succeeded before"),
        (
            "CREATE OR REPLACE TABLE {d}.sessions AS SELECT * FROM {d}.sessions",
            "the sessions table is not the one that the last run wrote",
        ),
        (
            "UPDATE {d}.etl_state_sessions SET metrics_version = 'older' WHERE TRUE",
            "the metrics changed",
        ),
    ],
    ids=["sessions missing", "state missing", "sessions replaced", "metrics changed"],
)
def test_what_forces_a_full_load(loaded: World, change: str, reason: str) -> None:
    """Without a state that belongs to the table, a full load; and the report says why."""
    loaded.query(change)
    report = loaded.run()
    assert report.kind == "full_load"
    assert reason in (report.reason or "")
    assert loaded.run().kind == "nothing_new"


def test_dates_and_limit_are_refused_on_rows_of_another_version(loaded: World) -> None:
    """Such a request never turns into a full load, and never mixes versions."""
    loaded.query("UPDATE {d}.sessions SET _metrics_version = 'older' WHERE session_id = 'd1-3'")
    for request in ({"limit": 3}, {"start_date": date(2026, 10, 5)}):
        with pytest.raises(RequestError, match="run a full load"):
            loaded.run(**request)
    assert differences(loaded.sessions(), loaded.expected()) == []
    loaded.run(full_load=True)
    rows = loaded.query("SELECT COUNT(DISTINCT _metrics_version) AS versions FROM {d}.sessions")
    assert rows == [{"versions": 1}]


def test_the_columns_of_the_table_are_mended_or_refused(loaded: World) -> None:
    """One that an earlier version lacks is added before anything is published.

    One of another type can't hold the rows: it is named, and the table left as it is.
    """
    loaded.query("ALTER TABLE {d}.sessions DROP COLUMN touch_reach")
    loaded.query("ALTER TABLE {d}.sessions DROP COLUMN lib")
    loaded.query("ALTER TABLE {d}.sessions ADD COLUMN lib INT64")
    with pytest.raises(DestinationError, match=r"Column lib of table .* is INT"):
        loaded.run()
    loaded.query("ALTER TABLE {d}.sessions DROP COLUMN lib")
    loaded.run(full_load=True)


def test_quarantine_keeps_a_session_out_for_good(loaded: World) -> None:
    """A hard-coded id: out of sessions, in quarantine once, its later rows counted, no day read."""
    spread = [event("hard-coded", MIDNIGHT + timedelta(days=day)) for day in (0, 2, 4)]
    loaded.arrive("posthog_events", spread[:2])
    loaded.run()
    assert "hard-coded" in loaded.sessions()
    loaded.arrive("posthog_events", spread[2:])
    assert loaded.run().sessions["quarantined"] == 1
    assert "hard-coded" not in loaded.sessions()
    loaded.arrive("posthog_events", [event("hard-coded", MIDNIGHT + timedelta(days=9))])
    report = loaded.run()
    assert (report.counts["quarantined"], report.read_days) == (1, 1)
    loaded.run(full_load=True)  # looks again, and finds the same
    rows = loaded.query("SELECT session_id, row_count, reason FROM {d}.quarantined_sessions")
    assert rows == [{"session_id": "hard-coded", "row_count": 4, "reason": "span"}]


def test_batches_make_the_same_table(four_days: World) -> None:
    """However small the batches, every session is whole in one of them."""
    four_days.settings["max_batch_events"] = 7
    report = four_days.run()
    assert report.sessions["staged"] == 40
    assert differences(four_days.sessions(), four_days.expected()) == []


def test_dates_mend_rows_rewritten_in_place(shared: World) -> None:
    """A rewritten row that no count betrays is seen by a run that names its day."""
    events = f"{shared.prefix}_posthog.events"
    shared.query(f"UPDATE {events} SET event = 'view_event' WHERE distinct_id LIKE '%d0-1'")
    assert shared.run().kind == "nothing_new"
    shared.run(start_date=MIDNIGHT.date(), end_date=MIDNIGHT.date())
    assert shared.sessions()["d0-1"]["events_viewed"] == 2


def days_projected(world: World, run_id: str) -> list[date]:
    """Every day whose `properties` a run's statements read, as often as they read it."""
    days: list[date] = []
    for job in world.clients.bigquery.list_jobs(max_results=100):
        sql = getattr(job, "query", "")
        if run_id in job.job_id and "raw_properties" in sql:
            for first, end in re.findall(r">= TIMESTAMP '(\S+) .*? < TIMESTAMP '(\S+) ", sql):
                day = date.fromisoformat(first)
                while day < date.fromisoformat(end):
                    days.append(day)
                    day += timedelta(days=1)
    return days


@pytest.mark.parametrize("request_", [{}, {"limit": 3}, {"start_date": date(2026, 10, 7)}])
def test_properties_of_a_day_are_read_at_most_once(shared: World, request_: Row) -> None:
    """What costs is read once a run, neighbouring and stored days included, pruned by literals."""
    at = MIDNIGHT + timedelta(hours=22, minutes=len(shared.arrived["posthog_events"]))
    late = [event(f"d{day}-3", at + timedelta(days=day)) for day in (1, 2)]
    shared.arrive("posthog_events", late)
    report = shared.run(**request_)
    days = days_projected(shared, report.run_id)
    assert len(days) == report.read_days > 0
    assert len(set(days)) == len(days)


def test_a_changed_exclusion_is_another_metrics_version(shared: World) -> None:
    """Leaving rows out changes every session, so it forces a full load."""
    shared.settings["exclude_distinct_ids"] = ("visitor of d2-4",)
    report = shared.run()
    assert report.kind == "full_load"
    assert report.counts["excluded"] == 2
    assert "d2-4" not in shared.sessions()
