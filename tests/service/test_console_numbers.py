"""The console's SQL gives the right numbers: three weeks of a few people, counted by hand."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import pytest

from service.console import explore_sql, overview_sql, people_sql
from service.console.explore_sql import NEW_OR_RETURNING, PEOPLE, SESSIONS, Trend
from service.console.person_sessions_sql import Days, Tables
from tests.scenario import Scenario
from tests.sessions.test_requests_on_data import event
from tests.shipped import METRIC_TABLE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bigquery.clients import Clients

MONDAY: Final = datetime(2026, 9, 7, 10, tzinfo=UTC)
WEEKS: Final = tuple((MONDAY + timedelta(days=7 * week)).date() for week in range(3))
SECONDS: Final = {"$pageview": 5, "$identify": 9, "view_event": 11, "join_event": 13}
DAYS: Final = Days(first=WEEKS[0], last=(MONDAY + timedelta(days=20)).date())

SAME_MOMENT: Final = MONDAY + timedelta(days=25)  # after the days that are counted


def event_of(session: str, day: int, distinct_id: str, name: str = "$pageview") -> dict[str, Any]:
    """An event of a session on a day."""
    at = MONDAY + timedelta(days=day, seconds=SECONDS[name])
    properties: dict[str, Any] = {"$session_id": session, "$lib": "web" if day else "ios"}
    if name == "$identify":
        properties["$anon_distinct_id"] = "device"
    return event(session, at, event=name, distinct_id=distinct_id) | {
        "properties": json.dumps(properties)
    }


EVENTS: Final = [
    event_of("signs in", 0, "device"),
    event_of("signs in", 0, "user", "$identify"),
    event_of("visits", 1, "visitor"),
    event_of("visits", 1, "visitor", "view_event"),
    event_of("is back, not signed in", 8, "device"),
    event_of("is back, not signed in", 8, "device", "join_event"),
    event_of("is back, not signed in", 8, "device", "view_event"),
    event_of("is new", 15, "another"),
    event_of("is nobody", 16, "null"),
    event("no session", MONDAY + timedelta(days=1), event="$create_alias", distinct_id="user")
    | {"properties": json.dumps({"alias": "tablet"})},
    *(event(name, SAME_MOMENT) for name in ("a", "b", "c")),
]


@pytest.fixture(scope="module")
def scenario(clients: Clients) -> Iterator[Scenario]:
    """A user whose device comes back, a visitor, somebody new and somebody without an id."""
    with Scenario(clients=clients) as found:
        found.arrive("posthog_events", EVENTS)
        found.arrive("firebase_users", [{"user_id": "user", "createdAt": MONDAY.isoformat()}])
        found.run()
        yield found


@pytest.fixture(scope="module")
def tables(scenario: Scenario) -> Tables:
    """The published tables."""
    names = ("sessions", "persons", "identities", "ties")
    return Tables(**{name: f"`local`.`{scenario.destination}`.`{name}`" for name in names})


def trend(scenario: Scenario, tables: Tables, column: str, **fields: Any) -> list[tuple[Any, ...]]:  # noqa: ANN401
    """The rows of a column by week: the period, the split and the value."""
    request = Trend(**{"column": column, "measure": "count", "step": "week", **fields})
    rows = scenario.query(explore_sql.trend_sql(METRIC_TABLE, tables, DAYS, request))
    return [(row["period"], row["split"], row["value"]) for row in rows]


def test_sessions_and_people_are_counted_by_week(scenario: Scenario, tables: Tables) -> None:
    """A device that returns counts as its user; a session without an id counts for no person."""
    weeks = list(zip(WEEKS, ("", "", ""), strict=True))
    expected = {SESSIONS: (2, 1, 2), PEOPLE: (2, 1, 1)}
    for column, values in expected.items():
        rows = [(*week, value) for week, value in zip(weeks, values, strict=True)]
        assert trend(scenario, tables, column) == rows


def test_sessions_are_split_into_new_and_returning(scenario: Scenario, tables: Tables) -> None:
    """A person is new on the day of their first event."""
    assert sorted(trend(scenario, tables, SESSIONS, split=NEW_OR_RETURNING)) == [
        (WEEKS[0], "new", 2),
        (WEEKS[1], "returning", 1),
        (WEEKS[2], "new", 1),
        (WEEKS[2], "nobody", 1),
    ]


def test_measures_are_computed_by_week(scenario: Scenario, tables: Tables) -> None:
    """Sums, means, medians, shares, and numbers of distinct values."""
    measured = {
        ("event_count", "sum"): [4, 3, 2],
        ("event_count", "average"): [2, 3, 1],
        ("viewed_event", "share"): [0.5, 1, 0],
        ("viewed_event", "count"): [1, 1, 0],
        ("lib", "distinct"): [2, 1, 1],
    }
    for (column, measure), values in measured.items():
        rows = trend(scenario, tables, column, measure=measure)
        assert [value for _, _, value in rows] == values, (column, measure)
    assert [v for _, _, v in trend(scenario, tables, "event_count", measure="median")][1:] == [3, 1]


def test_rare_values_of_a_split_are_grouped(
    scenario: Scenario, tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With room for one value, the most frequent one is shown and the others are summed up."""
    monkeypatch.setattr(explore_sql, "MOST_SPLITS", 1)
    rows = trend(scenario, tables, SESSIONS, split="lib", step="month")
    assert [(split, value) for _, split, value in rows] == [("web", 4), ("other", 1)]


def test_a_funnel_counts_sessions_or_people(scenario: Scenario, tables: Tables) -> None:
    """A person has a flag if any of their sessions has it."""
    steps = ("viewed_event", "joined_event")
    for people, counts in ((False, [5, 2, 1]), (True, [3, 2, 1])):
        sql = explore_sql.funnel_sql(METRIC_TABLE, tables, DAYS, steps, people=people)
        (row,) = scenario.query(sql)
        assert list(row.values()) == counts


def test_retention_is_counted_by_week_of_the_first_visit(
    scenario: Scenario, tables: Tables
) -> None:
    """Only people who were first seen within the requested days are in a cohort."""
    rows = scenario.query(explore_sql.retention_sql(METRIC_TABLE, tables, DAYS))
    assert [tuple(row.values()) for row in rows] == [
        (WEEKS[0], 0, 2),
        (WEEKS[0], 1, 1),
        (WEEKS[2], 0, 1),
    ]
    later = Days(first=WEEKS[1], last=DAYS.last)
    rows = scenario.query(explore_sql.retention_sql(METRIC_TABLE, tables, later))
    assert [tuple(row.values()) for row in rows] == [(WEEKS[2], 0, 1)]


def test_the_overview_counts_by_day_and_by_week(scenario: Scenario, tables: Tables) -> None:
    """Sessions, people and top values; week 0 ends with the last day."""
    daily = scenario.query(overview_sql.daily_sql(METRIC_TABLE, tables, DAYS))
    assert [row["sessions"] for row in daily] == [1, 1, 1, 1, 1]
    assert [row["joined_event"] for row in daily] == [0, 0, 1, 0, 0]
    people = scenario.query(overview_sql.people_sql(METRIC_TABLE, tables, DAYS))
    assert [(row["people"], row["new_people"]) for row in people] == [
        (1, 1),
        (1, 1),
        (1, 0),
        (1, 1),
        (0, 0),
    ]
    weeks = scenario.query(overview_sql.weeks_sql(METRIC_TABLE, tables, DAYS))
    assert [(row["week_no"], row["sessions"], row["people"]) for row in weeks] == [
        (0, 2, 1),
        (1, 1, 1),
        (2, 2, 2),
    ]
    tops = scenario.query(overview_sql.tops_sql(tables, DAYS, ("country", "lib")))
    assert [tuple(row.values()) for row in tops] == [
        ("country", "", 5),
        ("lib", "web", 4),
        ("lib", "ios", 1),
    ]


def test_a_person_has_the_sessions_of_all_tied_ids(scenario: Scenario, tables: Tables) -> None:
    """Each of these ids is listed with its own match to the user, if it has one."""
    sql = people_sql.person_sessions_sql(tables, DAYS, ("session_id",))
    rows = scenario.query(sql.replace("@id", "'user'"))
    assert [row["session_id"] for row in rows] == ["is back, not signed in", "signs in"]
    rows = scenario.query(people_sql.ids_sql(tables, DAYS).replace("@id", "'user'"))
    assert [(row["id"], row["session_count"], row["user_match"]) for row in rows] == [
        ("device", 2, None),
        ("user", 1, None),
    ]
    for id_, person_id in (("visitor", "visitor"), ("device", "user"), ("tablet", "user")):
        (row,) = scenario.query(people_sql.person_sql(tables).replace("@id", f"'{id_}'"))
        assert row["person_id"] == person_id


def test_the_events_that_tie_ids_are_listed(scenario: Scenario, tables: Tables) -> None:
    """With their day, and the session of a sign-in; an alias outside of a session has none."""

    def ties(id_: str, *, is_user: bool) -> list[tuple[Any, ...]]:
        sql = people_sql.ties_sql(tables, DAYS, is_user=is_user).replace("@id", f"'{id_}'")
        rows = scenario.query(sql)
        return [(r["id"], r["other_id"], r["first_day"], r["session_id"]) for r in rows]

    monday, tuesday = WEEKS[0], WEEKS[0] + timedelta(days=1)
    assert ties("user", is_user=True) == [
        ("device", "user", monday, "signs in"),
        ("tablet", "user", tuesday, None),
    ]
    assert ties("user", is_user=False)[0] == ("user", "device", monday, "signs in")
    assert ties("visitor", is_user=False) == []


def test_sessions_are_listed_by_id_and_flags(scenario: Scenario, tables: Tables) -> None:
    """They have all the flags; the id is of a user or a session, or a distinct id."""
    expected = {
        ("visitor", ()): ["visits"],
        ("device", ()): ["is back, not signed in", "signs in"],
        ("is new", ()): ["is new"],
        ("device", ("joined_event", "viewed_event")): ["is back, not signed in"],
    }
    for (key, flags), sessions in expected.items():
        sql = people_sql.list_sql(tables, DAYS, columns=("session_id",), flags=flags, by_id=True)
        statement = sql.replace("@until", "CAST(NULL AS TIMESTAMP)").replace("@id", f"'{key}'")
        statement = statement.replace("@after", "''")
        assert [row["session_id"] for row in scenario.query(statement)] == sessions


def test_a_list_continues_after_its_last_session(scenario: Scenario, tables: Tables) -> None:
    """Page by page each session is listed once, even those that started at the same moment."""
    days = Days(first=DAYS.first, last=SAME_MOMENT.date())
    sql = people_sql.list_sql(
        tables, days, columns=("session_id", "started_at"), flags=(), by_id=False
    ).replace(f"LIMIT {people_sql.PAGE}", "LIMIT 2")
    until, after, found = "CAST(NULL AS TIMESTAMP)", "", []
    while rows := scenario.query(sql.replace("@until", until).replace("@after", f"'{after}'")):
        found += [row["session_id"] for row in rows]
        until, after = f"TIMESTAMP '{rows[-1]['started_at'].isoformat()}'", found[-1]
    assert found[:6] == ["a", "b", "c", "is nobody", "is new", "is back, not signed in"]
    assert len(found) == len(set(found)) == 8
