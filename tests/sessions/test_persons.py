"""Persons, identities and daily activity: what each column means.

The rows of each test stand right above it and have ids of their own. One run loads all of them, at
the last second of a UTC day.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from oracle.rows import ties
from sessions.persons import IDENTITIES, daily_activity_schema, persons_schema
from tests.clock import starting_at
from tests.persons_oracle import COUNTED, MEASURED, Derived, expected_derived, nobodys
from tests.scenario import Row, Scenario, derived_differences
from tests.shipped import METRIC_TABLE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bigquery.clients import Clients
    from bigquery.tables import TableSchema
    from sessions.report import SessionsReport

TODAY = date(2026, 9, 30)
NOW = datetime(2026, 9, 30, 23, 59, 59, tzinfo=UTC)


def ago(days: int, hour: int = 12, minute: int = 0) -> datetime:
    """A time on the UTC day that is this many days before the run's."""
    return datetime(2026, 9, 30, hour, minute, tzinfo=UTC) - timedelta(days=days)


@dataclass(frozen=True, kw_only=True)
class SourceRows:
    """Rows of the sources, which tests add one by one."""

    events: list[Row] = field(default_factory=list)
    users: list[Row] = field(default_factory=list)
    documents: list[Row] = field(default_factory=list)

    def add_event(
        self,
        session_id: str,
        distinct_id: str | None,
        at: datetime,
        event: str = "$pageview",
        **properties: object,
    ) -> None:
        """Add an event of a session."""
        self.events.append(
            {
                "uuid": f"{session_id} {event} {at.isoformat()}",
                "event": event,
                "distinct_id": distinct_id,
                "timestamp": at.isoformat(),
                "properties": json.dumps({"$session_id": session_id, **properties}),
            }
        )

    def add_identify(
        self, session_id: str, anonymous_id: str, distinct_id: str, at: datetime
    ) -> None:
        """Add the event of a sign-in, which names the anonymous id from before."""
        self.add_event(
            session_id, distinct_id, at, "$identify", **{"$anon_distinct_id": anonymous_id}
        )

    def add_user(self, user_id: str, **columns: object) -> None:
        """Add a Firebase user."""
        self.users.append({"user_id": user_id, **columns})

    def add_document(
        self, document_id: str, user_id: str | None, at: datetime | None, kind: str = "base"
    ) -> None:
        """Add a Firebase document: an event, or a check-in."""
        created_at = at.isoformat() if at else None
        self.documents.append(
            {
                "document_id": document_id,
                "user_id": user_id,
                "createdAt": created_at,
                "type": kind,
            }
        )

    def arrive(self, scenario: Scenario) -> None:
        """Append the rows to the sources."""
        scenario.arrive("posthog_events", self.events)
        scenario.arrive("firebase_users", self.users)
        scenario.arrive("firebase_events", self.documents)


ROWS = SourceRows()


@dataclass(frozen=True, kw_only=True)
class Published:
    """What a run over all rows published."""

    report: SessionsReport
    sessions: dict[str, Row]
    derived: Derived
    view_modified_at: datetime

    def user(self, user_id: str) -> Row:
        """The person who is this user."""
        return self.derived.persons[f"user {user_id}"]

    def anonymous(self, distinct_id: str) -> Row:
        """The person of whom only this id is known."""
        return self.derived.persons[f"anonymous {distinct_id}"]

    def days(self, person_id: str) -> dict[int, Row]:
        """The person's rows of `daily_activity`, by the number of days before the run."""
        rows = self.derived.daily_activity.values()
        return {
            (TODAY - row["activity_date"]).days: row
            for row in rows
            if row["person_id"] == person_id
        }


@pytest.fixture(scope="module")
def scenario(clients: Clients) -> Iterator[Scenario]:
    """A scenario with all rows of this module."""
    with Scenario(clients=clients) as scenario:
        ROWS.arrive(scenario)
        yield scenario


@pytest.fixture(scope="module")
def published(scenario: Scenario) -> Published:
    """What is published by a run in the last second of the day."""
    return run_at(NOW, scenario)


@pytest.fixture(scope="module")
def next_day(scenario: Scenario, published: Published) -> Published:
    """What is published a second later, on the next UTC day, by a run with other CHURN_DAYS."""
    assert published.report.kind == "full_load"
    scenario.settings["churn_days"] = 3
    return run_at(NOW + timedelta(seconds=1), scenario)


def run_at(moment: datetime, scenario: Scenario) -> Published:
    """Run at this moment; what is published then."""
    with starting_at(moment):
        report = scenario.run()
    view = scenario.clients.bigquery.get_table(f"{scenario.destination}.daily_activity")
    return Published(
        report=report,
        sessions=scenario.sessions(),
        derived=scenario.derived(),
        view_modified_at=view.modified,
    )


def test_all_rows_are_the_oracles(published: Published, next_day: Published) -> None:
    """Every row and column of the three tables is what plain Python makes of the sessions."""
    for each, today, churn_days in (
        (published, TODAY, 14),
        (next_day, TODAY + timedelta(days=1), 3),
    ):
        expected = expected_derived(
            each.sessions,
            ROWS.users,
            ROWS.documents,
            ties=ties(METRIC_TABLE, ROWS.events),
            today=today,
            churn_days=churn_days,
        )
        assert derived_differences(each.derived, expected) == []


# Which user an anonymous id belongs to ------------------------------------------------------------

ROWS.add_user("ann")
ROWS.add_event("ann before", "anon-ann", ago(5))
ROWS.add_identify("ann signs in", "anon-ann", "ann", ago(3))
ROWS.add_event("ann after", "anon-ann", ago(1))


def test_an_id_tied_to_one_user_is_that_users_in_every_session(published: Published) -> None:
    """Sessions before and after the sign-in are the user's, and there is one person."""
    assert published.derived.identities["anon-ann"] == "ann"
    person = published.user("ann")
    assert (person["person_id"], person["session_count"]) == ("ann", 3)
    assert (person["first_seen_at"], person["last_seen_at"]) == (ago(5), ago(1))
    assert "anonymous anon-ann" not in published.derived.persons
    assert {days: row["user_id"] for days, row in published.days("ann").items()} == {
        5: "ann",
        3: "ann",
        1: "ann",
    }


def test_sessions_keep_direct_evidence_only(published: Published) -> None:
    """Ties from other sessions do not change the rows of `sessions`."""
    users = {name: published.sessions[f"ann {name}"]["user_id"] for name in ("before", "after")}
    assert users == {"before": None, "after": None}
    assert published.sessions["ann signs in"]["user_id"] == "ann"


ROWS.add_user("bea")
ROWS.add_user("cal")
ROWS.add_event("shared", "anon-shared", ago(4))
ROWS.add_identify("bea signs in", "anon-shared", "bea", ago(3))
ROWS.add_identify("cal signs in", "anon-shared", "cal", ago(2))


def test_an_id_that_is_tied_to_two_users_stays_anonymous(published: Published) -> None:
    """A phone that two people sign in on is nobody's."""
    assert "anon-shared" not in published.derived.identities
    assert published.anonymous("anon-shared")["session_count"] == 1
    assert published.user("bea")["session_count"] == published.user("cal")["session_count"] == 1


ROWS.add_user("dan", email="dan@example.com", phoneNumber="+1 555 010 0100")
ROWS.add_identify("dan by mail", "anon-dan", "DAN@example.com", ago(3))
ROWS.add_identify("dan by phone", "anon-dan", "+15550100100", ago(3))
ROWS.add_identify("dan by nothing", "anon-dan", "no user of ours", ago(3))


def test_ids_that_mean_one_user_tie_to_one_user(published: Published) -> None:
    """E-mail and phone mean the same user here; an id that means nobody is ignored."""
    assert published.derived.identities["anon-dan"] == "dan"


ROWS.add_user("eve")
ROWS.add_identify("eve on dan's phone", "dan", "eve", ago(3))


def test_the_id_of_a_user_is_never_tied_to_another(published: Published) -> None:
    """An id that is a user's is not anonymous, whatever $identify says."""
    assert "dan" not in published.derived.identities
    assert published.user("eve")["session_count"] == 1


ROWS.add_user("fay")
ROWS.add_user("guest")  # an app may have such a user; the id of that name means nobody
ROWS.add_identify("fay signs in", "Guest", "fay", ago(3))
ROWS.add_identify("fay signs out", "anon-fay", "guest", ago(2))
ROWS.add_event("a guest", "Guest", ago(1))


def test_junk_ids_are_tied_to_nobody(published: Published) -> None:
    """A junk id is neither an anonymous id that can be tied nor the id of a user."""
    assert not {"Guest", "anon-fay"} & published.derived.identities.keys()
    assert published.user("fay")["session_count"] == 1
    assert "anonymous Guest" not in published.derived.persons


ROWS.add_event("an undefined one", "undefined", ago(2))
ROWS.add_event("an undefined one again", "undefined", ago(1))
ROWS.add_event("becomes undefined", "anon-known", ago(2))
ROWS.add_event("becomes undefined", "undefined", ago(2) + timedelta(seconds=1))


def test_a_junk_id_is_no_person(published: Published) -> None:
    """Its sessions belong to nobody; one that had another id before belongs to that id."""
    assert "anonymous undefined" not in published.derived.persons
    assert published.anonymous("anon-known")["session_count"] == 1


ROWS.add_user("gil")
ROWS.add_user("hal")
ROWS.add_identify("gil signs in", "anon-gil", "gil", ago(9))
ROWS.add_identify("hal signs in", "anon-hal", "hal", ago(9))
ROWS.add_event("gil then hal", "anon-hal", ago(6, 10))
ROWS.add_event("gil then hal", "anon-gil", ago(6, 11))
ROWS.add_event("gil then hal", "anon-hal", ago(6, 12))
ROWS.add_event("gil then hal", "anon-nobody", ago(6, 13))
ROWS.add_event("gil signed in", "gil", ago(5, 10))
ROWS.add_event("gil signed in", "anon-hal", ago(5, 11))


def test_the_tied_id_that_was_used_last_decides(published: Published) -> None:
    """A session with several tied ids belongs to the user of the last; other ids don't count."""
    assert sorted(published.days("hal")) == [6, 9]
    assert published.user("hal")["session_count"] == 2
    assert "anonymous anon-nobody" not in published.derived.persons


def test_a_sessions_own_user_takes_precedence_over_a_tied_id(published: Published) -> None:
    """Direct evidence wins, even where the tied id was used later."""
    assert sorted(published.days("gil")) == [5, 9]
    assert published.user("gil")["session_count"] == 2


ROWS.add_user("ira")
ROWS.add_event("ira before", "anon-ira", ago(5))
ROWS.add_event("ira aliases", "anon-ira", ago(4), "$create_alias", alias="ira")
ROWS.add_event("ira merges", "ira", ago(3), "$merge_dangerously", alias="other-ira")
ROWS.add_event("ira elsewhere", "other-ira", ago(2))
ROWS.add_event("ira looks", "ira", ago(2), "$pageview", alias="somebody-else")
ROWS.add_event("ira as junk", "ira", ago(2), "$create_alias", alias="undefined")


def test_aliases_and_merges_tie_ids_in_both_directions(published: Published) -> None:
    """Either id may be the user's; in other events the property `alias` ties nothing."""
    assert {each for each, user in published.derived.identities.items() if user == "ira"} == {
        "anon-ira",
        "other-ira",
    }
    assert sorted(published.days("ira")) == [2, 3, 4, 5]


ROWS.add_user("joe")
ROWS.add_event("joe before", "anon-joe", ago(4))
ROWS.add_event("", "joe", ago(3), "$identify", **{"$anon_distinct_id": " anon-joe "})


def test_an_event_without_a_session_ties_ids_too(published: Published) -> None:
    """A server may identify somebody without a session."""
    assert published.derived.identities["anon-joe"] == "joe"
    assert published.user("joe")["session_count"] == 1


ROWS.add_event("nobody's 1", None, ago(2))
ROWS.add_event("nobody's 2", "", ago(2))


def test_sessions_without_user_and_distinct_id_are_counted_and_belong_to_nobody(
    published: Published,
) -> None:
    """They are in no person's row, and the report says how many they are."""
    assert published.report.persons == {
        "persons": len(published.derived.persons),
        "identities": len(published.derived.identities),
        "sessions_without_person": nobodys(published.sessions),
    }
    # Two without an id, a sign-out, one of a guest, and two of the id `undefined`.
    assert nobodys(published.sessions) == 6
    with_person = sum(row["session_count"] for row in published.derived.persons.values())
    assert with_person == len(published.sessions) - 6


# What persons created -----------------------------------------------------------------------------

ROWS.add_user("ida", createdAt=ago(100).isoformat())
ROWS.add_event("ida 1", "ida", ago(4, 12, 0))
ROWS.add_event("ida 2", "ida", ago(4, 12, 1))
ROWS.add_document("within reach of both", "ida", ago(4, 12, 0) + timedelta(seconds=30))
ROWS.add_document("in no session", "users/ida", ago(8))
ROWS.add_document("after the last one", "ida", ago(2))
ROWS.add_document("a check-in", "ida", ago(2), "checkin")
ROWS.add_document("at no time", "ida", None)
ROWS.add_document("of nobody", None, ago(4))
ROWS.add_user("jon")
ROWS.add_event("jon", "jon", ago(4))
ROWS.add_document("jon's check-in", "jon", ago(4), "checkin")
ROWS.add_user("kay")
ROWS.add_document("of a user without a session", "kay", ago(4))


def test_creations_are_counted_from_the_documents(published: Published) -> None:
    """A document within reach of two sessions counts once, and one outside of any counts, too."""
    assert [published.sessions[name]["events_created"] for name in ("ida 1", "ida 2")] == [1, 1]
    person = published.user("ida")
    assert (person["events_created"], person["checkins_created"]) == (3, 1)
    assert person["creation_days"] == [
        {"day": TODAY - timedelta(days=8), "events_created": 1, "checkins_created": 0},
        {"day": TODAY - timedelta(days=4), "events_created": 1, "checkins_created": 0},
        {"day": TODAY - timedelta(days=2), "events_created": 1, "checkins_created": 1},
    ]
    assert person["user_signed_up_at"] == ago(100)


def test_a_check_in_is_no_created_event(published: Published) -> None:
    """Whether somebody ever created an event follows from `events_created` alone."""
    person = published.user("jon")
    assert (person["checkins_created"], person["events_created"]) == (1, 0)
    assert person["created_event"] is False
    assert published.user("ida")["created_event"] is True
    assert published.anonymous("anon-shared")["created_event"] is False


def test_a_user_without_a_session_is_no_person(published: Published) -> None:
    """A user who was never seen is no person, whatever they created."""
    assert "user kay" not in published.derived.persons


def test_a_day_may_have_creations_and_no_session(published: Published) -> None:
    """Such a day has its row, in which the sessions' counts are 0 and their times null."""
    days = published.days("ida")
    assert sorted(days) == [2, 4, 8]
    assert (days[2]["events_created"], days[2]["checkins_created"]) == (1, 1)
    assert {days[2][name] for name in ("session_count", *COUNTED)} == {0}
    assert {days[2][name] for name in MEASURED} == {None}
    assert (days[4]["session_count"], days[4]["events_created"]) == (2, 1)


# When persons return ------------------------------------------------------------------------------

RETURNS: dict[str, tuple[tuple[int, ...], tuple[bool | None, ...]]] = {
    "today for the first time": ((0,), (None, None, None)),
    "yesterday and never since": ((1,), (None, None, None)),
    "yesterday and today": ((1, 0), (True, None, None)),
    "two days ago and never since": ((2,), (False, None, None)),
    "two days ago, twice": ((2, 2), (False, None, None)),
    "two days ago and today": ((2, 0), (False, None, None)),
    "a week ago": ((7,), (False, None, None)),
    "a week ago and today": ((7, 0), (False, True, None)),
    "eight days ago": ((8,), (False, False, None)),
    "eight days ago, and the day before the week was over": ((8, 2), (False, False, None)),
    "thirty days ago": ((30,), (False, False, None)),
    "thirty days ago and each day that counts": ((30, 29, 23, 0), (True, True, True)),
    "thirty-one days ago": ((31,), (False, False, False)),
    "thirty-one days ago, a day too late each time": ((31, 29, 23, 0), (False, False, False)),
}
for name, (days_ago, _) in RETURNS.items():
    for number, days in enumerate(days_ago):
        ROWS.add_event(f"{name} {number}", name, ago(days, hour=10 + number))


@pytest.mark.parametrize("name", RETURNS)
def test_a_person_returns_on_day_1_7_or_30_after_the_first(name: str, published: Published) -> None:
    """True once a session starts on that UTC day; else false, and null until that day is over."""
    person = published.anonymous(name)
    _, returned = RETURNS[name]
    assert tuple(person[f"returned_day_{number}"] for number in (1, 7, 30)) == returned


ROWS.add_event("over midnight", "night owl", ago(3, 23, 59))
ROWS.add_event("over midnight", "night owl", ago(2, 0, 1))
ROWS.add_event("before midnight", "early bird", ago(3, 23, 59))
ROWS.add_event("after midnight", "early bird", ago(2, 0, 1))


def test_only_a_session_that_starts_on_a_day_is_a_return(published: Published) -> None:
    """A session over midnight belongs to its first day; two days may be two minutes apart."""
    owl, bird = published.anonymous("night owl"), published.anonymous("early bird")
    assert (owl["returned_day_1"], owl["active_days"], owl["session_count"]) == (False, 1, 1)
    assert (owl["first_seen_at"], owl["last_seen_at"]) == (ago(3, 23, 59), ago(2, 0, 1))
    assert (sorted(published.days("night owl")), sorted(published.days("early bird"))) == (
        [3],
        [2, 3],
    )
    assert (bird["returned_day_1"], bird["active_days"], bird["session_count"]) == (True, 2, 2)
    assert published.anonymous("two days ago, twice")["active_days"] == 1


def test_a_person_was_last_seen_when_the_last_session_ended(published: Published) -> None:
    """The days since then are UTC days, and never negative."""
    assert published.anonymous("night owl")["days_since_last_seen"] == 2
    assert published.anonymous("today for the first time")["days_since_last_seen"] == 0
    assert published.anonymous("clock ahead")["days_since_last_seen"] == 0


ROWS.add_event("clock ahead", "clock ahead", ago(-1, 9))
ROWS.add_event("away 13", "away 13", ago(13, 0))
ROWS.add_event("away 14", "away 14", ago(14, 23))


def test_a_person_has_churned_after_churn_days(published: Published, next_day: Published) -> None:
    """14 days without a session, or as many as CHURN_DAYS says, and not one fewer."""
    churned = {name: published.anonymous(name)["is_churned"] for name in ("away 13", "away 14")}
    assert churned == {"away 13": False, "away 14": True}
    names = ("yesterday and never since", "two days ago and never since")
    away = [next_day.anonymous(name) for name in names]
    assert [row["days_since_last_seen"] for row in away] == [2, 3]
    assert [row["is_churned"] for row in away] == [False, True]


def test_a_new_day_changes_persons_even_without_new_rows(
    published: Published, next_day: Published
) -> None:
    """A run without new rows rebuilds them, as of the UTC day on which it starts."""
    assert next_day.report.kind == "nothing_new"
    assert next_day.sessions == published.sessions
    before, after = (each.anonymous("yesterday and never since") for each in (published, next_day))
    assert (before["returned_day_1"], after["returned_day_1"]) == (None, False)
    assert (before["days_since_last_seen"], after["days_since_last_seen"]) == (1, 2)


# How sessions add up -----------------------------------------------------------------------------

ROWS.add_event("lea 1", "lea", ago(6, 10), "$screen", **{"$screen_name": "Home"})
ROWS.add_event("lea 2", "lea", ago(5, 10), "view_event", **{"$os": "iOS", "$device_type": "Mobile"})
ROWS.add_event("lea 2", "lea", ago(5, 11), "start_quiz", **{"$os": "Android"})
ROWS.add_event("lea 2", "lea", ago(5, 11, 1), "finish_quiz")
for screen in ("Home", "Discover", "Profile"):
    ROWS.add_event("lea 3", "lea", ago(4, 10), f"seen {screen}", **{"$screen_name": screen})
ROWS.add_event("lea 3", "lea", ago(4, 10), "view_event", **{"$os": "Web"})
ROWS.add_event("lea 3", "lea", ago(4, 10), "left", **{"$prev_pageview_max_scroll_percentage": 0.75})
ROWS.add_event("lea 5", "lea", ago(3, 10), "left", **{"$os": "Linux"})
ROWS.add_event("lea 4", "lea", ago(3, 10), "left", **{"$prev_pageview_max_scroll_percentage": 0.5})


def test_counts_are_summed_flags_are_ever_true_and_maxima_are_the_greatest(
    published: Published,
) -> None:
    """Each column of a session becomes a person's by its own rule; null values are left out."""
    person = published.anonymous("lea")
    assert person["session_count"] == 5
    assert (person["event_count"], person["events_viewed"], person["screen_count"]) == (11, 2, 1)
    assert (person["duration_seconds"], person["engaged_seconds"]) == (3660.0, 60.0)
    assert person["quiz_seconds"] == 60.0
    assert (person["viewed_event"], person["joined_event"]) == (True, False)
    assert (person["completed_quiz"], person["visited_discover"]) == (True, True)
    assert person["max_unique_screens"] == 3
    assert (person["max_scroll_depth"], person["max_touch_reach"]) == (0.75, None)
    assert published.anonymous("away 13")["quiz_seconds"] is None


def test_first_and_last_columns_hold_the_first_and_last_known_value(published: Published) -> None:
    """In the order of the sessions' starts, then of their ids; null values are skipped."""
    person = published.anonymous("lea")
    assert (person["first_os"], person["last_os"]) == ("iOS", "Linux")
    assert (person["first_device_type"], person["last_device_type"]) == ("Mobile", "Mobile")
    assert (person["first_entry_screen"], person["last_exit_screen"]) == ("Home", "Profile")


def test_the_days_of_a_person_add_up_to_the_person(published: Published) -> None:
    """Every summed column of `daily_activity` is that of `persons`, over all days."""
    summed = ("session_count", *COUNTED, *MEASURED, "events_created", "checkins_created")
    for person in published.derived.persons.values():
        days = [
            row
            for row in published.derived.daily_activity.values()
            if (row["person_id"], row["user_id"]) == (person["person_id"], person["user_id"])
        ]
        for column in summed:
            known = [row[column] for row in days if row[column] is not None]
            assert (sum(known) if known else None) == pytest.approx(person[column]), column


@pytest.mark.parametrize(
    ("name", "schema"),
    [
        ("persons", persons_schema(METRIC_TABLE)),
        ("identities", IDENTITIES),
        ("daily_activity", daily_activity_schema(METRIC_TABLE)),
    ],
    ids=["persons", "identities", "daily_activity"],
)
@pytest.mark.usefixtures("published")
def test_the_tables_are_described_in_bigquery(
    scenario: Scenario, name: str, schema: TableSchema
) -> None:
    """Columns, their types, their order, and a sentence about each and about the table."""
    table = scenario.clients.bigquery.get_table(f"{scenario.destination}.{name}")
    assert table.description == schema.description
    legacy = {"INTEGER": "INT64", "FLOAT": "FLOAT64", "BOOLEAN": "BOOL"}
    columns = [
        (column.name, legacy.get(column.field_type, column.field_type), column.description)
        for column in table.schema
    ]
    assert columns == [(each.name, each.type, each.description) for each in schema.fields]
    assert all(each.description for each in schema.fields)


def test_an_unchanged_view_is_not_replaced(published: Published, next_day: Published) -> None:
    """A run that would make the same view leaves it as it is."""
    assert next_day.view_modified_at == published.view_modified_at
