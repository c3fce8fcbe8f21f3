"""Persons, identities and daily activity: what each column means, and when they are rebuilt.

Every scenario has ids of its own, and stands above the test that is about it; one run takes all of
them in, at the last second of a UTC day.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

import main
from bigquery.refusals import StatementError
from oracle.rows import ties
from runs.errors import LeaseLostError
from runs.lease_row import LeaseRow
from runs.request import RunRequest
from sessions.persons import IDENTITIES, daily_activity_schema, persons_schema
from tests.clock import starting_at
from tests.persons_oracle import COUNTED, MEASURED, Derived, expected_derived, nobodys
from tests.runs.test_lease import At
from tests.scenario import Row, Scenario, derived_differences, differences
from tests.shipped import METRIC_TABLE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from bigquery.clients import Clients
    from bigquery.tables import TableSchema
    from runs.progress import Progress
    from runs.report import RunReport
    from sessions.report import SessionsReport

TODAY = date(2026, 9, 30)
NOW = datetime(2026, 9, 30, 23, 59, 59, tzinfo=UTC)


def ago(days: int, hour: int = 12, minute: int = 0) -> datetime:
    """A time of the UTC day that is so many days before the run's."""
    return datetime(2026, 9, 30, hour, minute, tzinfo=UTC) - timedelta(days=days)


@dataclass(frozen=True, kw_only=True)
class Story:
    """Source rows, told in a few words each."""

    events: list[Row] = field(default_factory=list)
    users: list[Row] = field(default_factory=list)
    documents: list[Row] = field(default_factory=list)

    def saw(
        self,
        session_id: str,
        distinct_id: str | None,
        at: datetime,
        event: str = "$pageview",
        **properties: object,
    ) -> None:
        """Somebody did something within a session."""
        self.events.append(
            {
                "uuid": f"{session_id} {event} {at.isoformat()}",
                "event": event,
                "distinct_id": distinct_id,
                "timestamp": at.isoformat(),
                "properties": json.dumps({"$session_id": session_id, **properties}),
            }
        )

    def identified(
        self, session_id: str, anonymous_id: str, distinct_id: str, at: datetime
    ) -> None:
        """Somebody signed in, and PostHog was told who it was before."""
        self.saw(session_id, distinct_id, at, "$identify", **{"$anon_distinct_id": anonymous_id})

    def user(self, user_id: str, **columns: object) -> None:
        """A Firebase user."""
        self.users.append({"user_id": user_id, **columns})

    def created(
        self, document_id: str, user_id: str | None, at: datetime | None, kind: str = "base"
    ) -> None:
        """A Firebase event, or a check-in."""
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
        """Put the rows into the sources."""
        scenario.arrive("posthog_events", self.events)
        scenario.arrive("firebase_users", self.users)
        scenario.arrive("firebase_events", self.documents)


STORY = Story()


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a run of the whole story published."""

    report: SessionsReport
    sessions: dict[str, Row]
    derived: Derived
    view_modified_at: datetime

    def user(self, user_id: str) -> Row:
        """The person who is this user."""
        return self.derived.persons[f"user {user_id}"]

    def anonymous(self, distinct_id: str) -> Row:
        """The person of whom nothing is known but this id."""
        return self.derived.persons[f"anonymous {distinct_id}"]

    def days(self, person_id: str) -> dict[int, Row]:
        """The person's rows of `daily_activity`, by how many days ago that was."""
        rows = self.derived.daily_activity.values()
        return {
            (TODAY - row["activity_date"]).days: row
            for row in rows
            if row["person_id"] == person_id
        }


@pytest.fixture(scope="module")
def scenario(clients: Clients) -> Iterator[Scenario]:
    """A scenario in which the whole story has happened."""
    with Scenario(clients=clients) as made:
        STORY.arrive(made)
        yield made


@pytest.fixture(scope="module")
def found(scenario: Scenario) -> Found:
    """What is published at the end of the day."""
    return run_at(NOW, scenario)


@pytest.fixture(scope="module")
def next_day(scenario: Scenario, found: Found) -> Found:
    """What is published a second later, on the next UTC day, by a run with other CHURN_DAYS."""
    assert found.report.kind == "full_load"
    scenario.settings["churn_days"] = 3
    return run_at(NOW + timedelta(seconds=1), scenario)


def run_at(moment: datetime, scenario: Scenario) -> Found:
    """A run, and what it leaves."""
    with starting_at(moment):
        report = scenario.run()
    view = scenario.clients.bigquery.get_table(f"{scenario.destination}.daily_activity")
    return Found(
        report=report,
        sessions=scenario.sessions(),
        derived=scenario.derived(),
        view_modified_at=view.modified,
    )


def test_all_rows_are_the_oracles(found: Found, next_day: Found) -> None:
    """Every row and column of the three tables is what plain Python makes of the sessions."""
    for each, today, churn_days in (
        (found, TODAY, 14),
        (next_day, TODAY + timedelta(days=1), 3),
    ):
        expected = expected_derived(
            each.sessions,
            STORY.users,
            STORY.documents,
            ties=ties(METRIC_TABLE, STORY.events),
            today=today,
            churn_days=churn_days,
        )
        assert derived_differences(each.derived, expected) == []


# Whose an anonymous id is ------------------------------------------------------------------------

STORY.user("ann")
STORY.saw("ann before", "anon-ann", ago(5))
STORY.identified("ann signs in", "anon-ann", "ann", ago(3))
STORY.saw("ann after", "anon-ann", ago(1))


def test_an_id_that_identify_ties_to_one_user_is_theirs_in_every_session(found: Found) -> None:
    """Sessions before and after the one that signed in are the user's, and there is one person."""
    assert found.derived.identities["anon-ann"] == "ann"
    person = found.user("ann")
    assert (person["person_id"], person["session_count"]) == ("ann", 3)
    assert (person["first_seen_at"], person["last_seen_at"]) == (ago(5), ago(1))
    assert "anonymous anon-ann" not in found.derived.persons
    assert {days: row["user_id"] for days, row in found.days("ann").items()} == {
        5: "ann",
        3: "ann",
        1: "ann",
    }


def test_sessions_keep_direct_evidence_only(found: Found) -> None:
    """What other sessions tell of an anonymous id does not change `sessions`."""
    users = {name: found.sessions[f"ann {name}"]["user_id"] for name in ("before", "after")}
    assert users == {"before": None, "after": None}
    assert found.sessions["ann signs in"]["user_id"] == "ann"


STORY.user("bea")
STORY.user("cal")
STORY.saw("shared", "anon-shared", ago(4))
STORY.identified("bea signs in", "anon-shared", "bea", ago(3))
STORY.identified("cal signs in", "anon-shared", "cal", ago(2))


def test_an_id_that_is_tied_to_two_users_stays_anonymous(found: Found) -> None:
    """A phone that two people sign in on is nobody's."""
    assert "anon-shared" not in found.derived.identities
    assert found.anonymous("anon-shared")["session_count"] == 1
    assert found.user("bea")["session_count"] == found.user("cal")["session_count"] == 1


STORY.user("dan", email="dan@example.com", phoneNumber="+1 555 010 0100")
STORY.identified("dan by mail", "anon-dan", "DAN@example.com", ago(3))
STORY.identified("dan by phone", "anon-dan", "+15550100100", ago(3))
STORY.identified("dan by nothing", "anon-dan", "no user of ours", ago(3))


def test_ids_that_mean_one_user_tie_to_one_user(found: Found) -> None:
    """By e-mail and by phone it is one user; an id that means nobody says nothing."""
    assert found.derived.identities["anon-dan"] == "dan"


STORY.user("eve")
STORY.identified("eve on dan's phone", "dan", "eve", ago(3))


def test_an_id_that_means_a_user_by_itself_is_never_tied_to_another(found: Found) -> None:
    """An id that is a user's is not anonymous, whatever $identify says."""
    assert "dan" not in found.derived.identities
    assert found.user("eve")["session_count"] == 1


STORY.user("fay")
STORY.user("guest")  # an app may have such a user; the id of that name means nobody
STORY.identified("fay signs in", "Guest", "fay", ago(3))
STORY.identified("fay signs out", "anon-fay", "guest", ago(2))
STORY.saw("a guest", "Guest", ago(1))


def test_junk_ids_are_tied_to_nobody(found: Found) -> None:
    """Neither is a junk id an anonymous one that could be tied, nor does it mean a user."""
    assert not {"Guest", "anon-fay"} & found.derived.identities.keys()
    assert found.user("fay")["session_count"] == 1
    assert "anonymous Guest" not in found.derived.persons


STORY.saw("an undefined one", "undefined", ago(2))
STORY.saw("an undefined one again", "undefined", ago(1))
STORY.saw("becomes undefined", "anon-known", ago(2))
STORY.saw("becomes undefined", "undefined", ago(2) + timedelta(seconds=1))


def test_a_junk_id_is_no_person(found: Found) -> None:
    """Its sessions are nobody's, and one that had an id before is that id's."""
    assert "anonymous undefined" not in found.derived.persons
    assert found.anonymous("anon-known")["session_count"] == 1


STORY.user("gil")
STORY.user("hal")
STORY.identified("gil signs in", "anon-gil", "gil", ago(9))
STORY.identified("hal signs in", "anon-hal", "hal", ago(9))
STORY.saw("gil then hal", "anon-hal", ago(6, 10))
STORY.saw("gil then hal", "anon-gil", ago(6, 11))
STORY.saw("gil then hal", "anon-hal", ago(6, 12))
STORY.saw("gil then hal", "anon-nobody", ago(6, 13))
STORY.saw("gil signed in", "gil", ago(5, 10))
STORY.saw("gil signed in", "anon-hal", ago(5, 11))


def test_the_tied_id_that_was_used_last_decides(found: Found) -> None:
    """Among the ids of a session that are tied to users; ids that are not do not count."""
    assert sorted(found.days("hal")) == [6, 9]
    assert found.user("hal")["session_count"] == 2
    assert "anonymous anon-nobody" not in found.derived.persons


def test_a_sessions_own_user_goes_before_a_tied_id(found: Found) -> None:
    """Direct evidence wins, even where the tied id was used later."""
    assert sorted(found.days("gil")) == [5, 9]
    assert found.user("gil")["session_count"] == 2


STORY.user("ira")
STORY.saw("ira before", "anon-ira", ago(5))
STORY.saw("ira aliases", "anon-ira", ago(4), "$create_alias", alias="ira")
STORY.saw("ira merges", "ira", ago(3), "$merge_dangerously", alias="other-ira")
STORY.saw("ira elsewhere", "other-ira", ago(2))
STORY.saw("ira looks", "ira", ago(2), "$pageview", alias="somebody-else")
STORY.saw("ira as junk", "ira", ago(2), "$create_alias", alias="undefined")


def test_aliases_and_merges_tie_ids_in_both_directions(found: Found) -> None:
    """Whichever of the two ids is the user's; an alias is none of any other event."""
    assert {each for each, user in found.derived.identities.items() if user == "ira"} == {
        "anon-ira",
        "other-ira",
    }
    assert sorted(found.days("ira")) == [2, 3, 4, 5]


STORY.user("joe")
STORY.saw("joe before", "anon-joe", ago(4))
STORY.saw("", "joe", ago(3), "$identify", **{"$anon_distinct_id": " anon-joe "})


def test_an_event_without_a_session_ties_ids_too(found: Found) -> None:
    """A server tells who somebody is, and has no session: identities concern persons."""
    assert found.derived.identities["anon-joe"] == "joe"
    assert found.user("joe")["session_count"] == 1


STORY.saw("nobody's 1", None, ago(2))
STORY.saw("nobody's 2", "", ago(2))


def test_sessions_without_user_and_distinct_id_are_counted_and_nobodys(found: Found) -> None:
    """They are in no person's row, and the report says how many they are."""
    assert found.report.persons == {
        "persons": len(found.derived.persons),
        "identities": len(found.derived.identities),
        "sessions_without_person": nobodys(found.sessions),
    }
    # Two without an id, one that signs out, a guest's, and two of somebody undefined.
    assert nobodys(found.sessions) == 6
    with_person = sum(row["session_count"] for row in found.derived.persons.values())
    assert with_person == len(found.sessions) - 6


# What they created -------------------------------------------------------------------------------

STORY.user("ida", createdAt=ago(100).isoformat())
STORY.saw("ida 1", "ida", ago(4, 12, 0))
STORY.saw("ida 2", "ida", ago(4, 12, 1))
STORY.created("within reach of both", "ida", ago(4, 12, 0) + timedelta(seconds=30))
STORY.created("in no session", "users/ida", ago(8))
STORY.created("after the last one", "ida", ago(2))
STORY.created("a check-in", "ida", ago(2), "checkin")
STORY.created("at no time", "ida", None)
STORY.created("of nobody", None, ago(4))
STORY.user("jon")
STORY.saw("jon", "jon", ago(4))
STORY.created("jon's check-in", "jon", ago(4), "checkin")
STORY.user("kay")
STORY.created("of a user without a session", "kay", ago(4))


def test_creations_are_counted_from_the_documents(found: Found) -> None:
    """A document within reach of two sessions counts once, and one outside of any counts too."""
    assert [found.sessions[name]["events_created"] for name in ("ida 1", "ida 2")] == [1, 1]
    person = found.user("ida")
    assert (person["events_created"], person["checkins_created"]) == (3, 1)
    assert person["creation_days"] == [
        {"day": TODAY - timedelta(days=8), "events_created": 1, "checkins_created": 0},
        {"day": TODAY - timedelta(days=4), "events_created": 1, "checkins_created": 0},
        {"day": TODAY - timedelta(days=2), "events_created": 1, "checkins_created": 1},
    ]
    assert person["user_signed_up_at"] == ago(100)


def test_a_check_in_is_no_created_event(found: Found) -> None:
    """Whether somebody ever created an event follows from `events_created` alone."""
    person = found.user("jon")
    assert (person["checkins_created"], person["events_created"]) == (1, 0)
    assert person["created_event"] is False
    assert found.user("ida")["created_event"] is True
    assert found.anonymous("anon-shared")["created_event"] is False


def test_a_user_without_a_session_is_no_person(found: Found) -> None:
    """Nobody is a person who has never been seen, whatever they created."""
    assert "user kay" not in found.derived.persons


def test_a_day_may_have_creations_and_no_session(found: Found) -> None:
    """Such a day has its row, in which the sessions' counts are 0 and their times null."""
    days = found.days("ida")
    assert sorted(days) == [2, 4, 8]
    assert (days[2]["events_created"], days[2]["checkins_created"]) == (1, 1)
    assert {days[2][name] for name in ("session_count", *COUNTED)} == {0}
    assert {days[2][name] for name in MEASURED} == {None}
    assert (days[4]["session_count"], days[4]["events_created"]) == (2, 1)


# When they come back -----------------------------------------------------------------------------

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
        STORY.saw(f"{name} {number}", name, ago(days, hour=10 + number))


@pytest.mark.parametrize("name", RETURNS)
def test_somebody_returns_on_the_day_so_many_after_the_first(name: str, found: Found) -> None:
    """True once a session starts on that UTC day; else false, and null until that day is over."""
    person = found.anonymous(name)
    _, returned = RETURNS[name]
    assert tuple(person[f"returned_day_{number}"] for number in (1, 7, 30)) == returned


STORY.saw("over midnight", "night owl", ago(3, 23, 59))
STORY.saw("over midnight", "night owl", ago(2, 0, 1))
STORY.saw("before midnight", "early bird", ago(3, 23, 59))
STORY.saw("after midnight", "early bird", ago(2, 0, 1))


def test_only_a_session_that_starts_is_a_return(found: Found) -> None:
    """One that lasts over midnight is of its first day; two minutes may lie between two days."""
    owl, bird = found.anonymous("night owl"), found.anonymous("early bird")
    assert (owl["returned_day_1"], owl["active_days"], owl["session_count"]) == (False, 1, 1)
    assert (owl["first_seen_at"], owl["last_seen_at"]) == (ago(3, 23, 59), ago(2, 0, 1))
    assert (sorted(found.days("night owl")), sorted(found.days("early bird"))) == ([3], [2, 3])
    assert (bird["returned_day_1"], bird["active_days"], bird["session_count"]) == (True, 2, 2)
    assert found.anonymous("two days ago, twice")["active_days"] == 1


def test_somebody_was_seen_last_when_the_last_session_ended(found: Found) -> None:
    """Days since then are UTC days, and never fewer than none."""
    assert found.anonymous("night owl")["days_since_last_seen"] == 2
    assert found.anonymous("today for the first time")["days_since_last_seen"] == 0
    assert found.anonymous("clock ahead")["days_since_last_seen"] == 0


STORY.saw("clock ahead", "clock ahead", ago(-1, 9))
STORY.saw("away 13", "away 13", ago(13, 0))
STORY.saw("away 14", "away 14", ago(14, 23))


def test_somebody_has_churned_after_churn_days(found: Found, next_day: Found) -> None:
    """14 days without a session, or as many as CHURN_DAYS says, and not one fewer."""
    churned = {name: found.anonymous(name)["is_churned"] for name in ("away 13", "away 14")}
    assert churned == {"away 13": False, "away 14": True}
    names = ("yesterday and never since", "two days ago and never since")
    away = [next_day.anonymous(name) for name in names]
    assert [row["days_since_last_seen"] for row in away] == [2, 3]
    assert [row["is_churned"] for row in away] == [False, True]


def test_the_day_moves_persons_on_when_nothing_is_new(found: Found, next_day: Found) -> None:
    """A run that has nothing to do rebuilds them, by the UTC day on which it starts."""
    assert next_day.report.kind == "nothing_new"
    assert next_day.sessions == found.sessions
    before, after = (each.anonymous("yesterday and never since") for each in (found, next_day))
    assert (before["returned_day_1"], after["returned_day_1"]) == (None, False)
    assert (before["days_since_last_seen"], after["days_since_last_seen"]) == (1, 2)


# How sessions add up -----------------------------------------------------------------------------

STORY.saw("lea 1", "lea", ago(6, 10), "$screen", **{"$screen_name": "Home"})
STORY.saw("lea 2", "lea", ago(5, 10), "view_event", **{"$os": "iOS", "$device_type": "Mobile"})
STORY.saw("lea 2", "lea", ago(5, 11), "start_quiz", **{"$os": "Android"})
STORY.saw("lea 2", "lea", ago(5, 11, 1), "finish_quiz")
for screen in ("Home", "Discover", "Profile"):
    STORY.saw("lea 3", "lea", ago(4, 10), f"seen {screen}", **{"$screen_name": screen})
STORY.saw("lea 3", "lea", ago(4, 10), "view_event", **{"$os": "Web"})
STORY.saw("lea 3", "lea", ago(4, 10), "left", **{"$prev_pageview_max_scroll_percentage": 0.75})
STORY.saw("lea 5", "lea", ago(3, 10), "left", **{"$os": "Linux"})
STORY.saw("lea 4", "lea", ago(3, 10), "left", **{"$prev_pageview_max_scroll_percentage": 0.5})


def test_counts_add_flags_are_ever_and_maxima_are_the_greatest(found: Found) -> None:
    """Each column of a session becomes a person's by its own rule; null values are left out."""
    person = found.anonymous("lea")
    assert person["session_count"] == 5
    assert (person["event_count"], person["events_viewed"], person["screen_count"]) == (11, 2, 1)
    assert (person["duration_seconds"], person["engaged_seconds"]) == (3660.0, 60.0)
    assert person["quiz_seconds"] == 60.0
    assert (person["viewed_event"], person["joined_event"]) == (True, False)
    assert (person["completed_quiz"], person["visited_discover"]) == (True, True)
    assert person["max_unique_screens"] == 3
    assert (person["max_scroll_depth"], person["max_touch_reach"]) == (0.75, None)
    assert found.anonymous("away 13")["quiz_seconds"] is None


def test_the_first_and_the_last_device_are_the_first_and_last_known(found: Found) -> None:
    """By the sessions' starts, then their ids; sessions that know none don't count."""
    person = found.anonymous("lea")
    assert (person["first_os"], person["last_os"]) == ("iOS", "Linux")
    assert (person["first_device_type"], person["last_device_type"]) == ("Mobile", "Mobile")
    assert (person["first_entry_screen"], person["last_exit_screen"]) == ("Home", "Profile")


def test_the_days_of_a_person_add_up_to_the_person(found: Found) -> None:
    """Every summed column of `daily_activity` is that of `persons`, over all days."""
    summed = ("session_count", *COUNTED, *MEASURED, "events_created", "checkins_created")
    for person in found.derived.persons.values():
        days = [
            row
            for row in found.derived.daily_activity.values()
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
@pytest.mark.usefixtures("found")
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


def test_the_view_is_left_alone_while_it_is_as_it_should_be(found: Found, next_day: Found) -> None:
    """A run that would make the same view makes none."""
    assert next_day.view_modified_at == found.view_modified_at


# When they are rebuilt ---------------------------------------------------------------------------


@pytest.fixture
def small(clients: Clients) -> Iterator[Scenario]:
    """Ada, who looked around two days before she signed in, and has created something."""
    story = Story()
    story.user("ada", email="ada@example.com")
    story.saw("looks around", "anon-ada", ago(4))
    story.identified("signs in", "anon-ada", "ada@example.com", ago(2))
    story.created("hers", "ada", ago(2))
    with Scenario(clients=clients) as made:
        story.arrive(made)
        yield made


def test_every_kind_of_run_but_a_dry_one_rebuilds_them(small: Scenario, tmp_path: Path) -> None:
    """Whatever a run loads, they are functions of the sessions it leaves and of Firebase now.

    A dry run adds no column, either, though its file declares another metric.
    """
    first = small.run(limit=1)
    assert first.kind == "limit"
    check(small, first)
    assert small.derived().identities == {"anon-ada": "ada"}

    before = small.derived()
    small.vanish("firebase_users", "user_id", "ada")
    small.settings["metrics_file"] = tmp_path / "metrics.yaml"
    more = "metrics: [{name: more, aggregation: count, description: Events.}]"
    small.settings["metrics_file"].write_text(more, "utf-8")
    small.run(dry_run=True)
    small.settings.clear()
    assert small.derived() == before
    assert run_ids(small) == {first.run_id}

    report = small.run(start_date=ago(4).date(), end_date=ago(4).date())
    assert report.kind == "dates"  # it leaves Ada's session as it is
    check(small, report)
    assert small.derived().persons.keys() == {"anonymous anon-ada", "user ada"}
    assert small.derived().identities == {}


def check(scenario: Scenario, report: RunReport) -> None:
    """The three tables follow from the published sessions, and this run wrote all of their rows."""
    expected = scenario.expected_derived(report, scenario.sessions())
    assert derived_differences(scenario.derived(), expected) == []
    assert run_ids(scenario) == {report.run_id}


def run_ids(scenario: Scenario) -> set[str]:
    """The runs that wrote any row of the two tables."""
    rows = scenario.query(
        "SELECT _run_id FROM {d}.persons UNION DISTINCT SELECT _run_id FROM {d}.identities"
    )
    return {row["_run_id"] for row in rows}


class Killed(BaseException):
    """What ends a process: nothing in the product catches it."""


def kill() -> None:
    """End the run here."""
    raise Killed


def deliver(scenario: Scenario, trigger: str, progress: Progress | None = None) -> RunReport:
    """A run that a scheduler asks for."""
    settings = scenario.make_settings()
    return main.main(RunRequest(), settings, scenario.clients, trigger=trigger, progress=progress)


def test_a_delivery_is_done_only_when_the_persons_are(small: Scenario) -> None:
    """A run that is killed or fails after `publish` and before they are runs again if redelivered.

    The sessions it published stay. Once a run has rebuilt the persons, its delivery is a duplicate.
    """
    with pytest.raises(Killed):
        deliver(small, "tonight", At("persons", kill))
    assert differences(small.sessions(), small.expected()) == []
    assert run_ids(small) == set()
    drop = "ALTER TABLE {d}.persons DROP COLUMN active_days"  # the next run adds it anew
    with pytest.raises(StatementError):
        deliver(small, "tonight", At("persons", lambda: small.query(drop)))
    statuses = small.query("SELECT status FROM {d}.etl_runs ORDER BY started_at DESC LIMIT 1")
    assert statuses == [{"status": "failed"}]
    assert differences(small.sessions(), small.expected()) == []

    report = deliver(small, "tonight")
    assert (report.status, report.kind) == ("succeeded", "nothing_new")
    check(small, report)
    assert small.derived().identities == {"anon-ada": "ada"}
    again = deliver(small, "tonight")
    assert (again.status, again.run_id) == ("duplicate", report.run_id)


def test_the_fence_alone_keeps_a_zombie_from_the_persons(
    small: Scenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that believes to the end that the lease is its own rebuilds nothing once it is not."""
    monkeypatch.setattr(LeaseRow, "renew", lambda *_: True)
    steal = "UPDATE {d}.etl_lease_sessions SET fence = fence + 1 WHERE TRUE"
    with pytest.raises(LeaseLostError, match="at the step persons"):
        deliver(small, "tonight", At("persons", lambda: small.query(steal)))
    assert differences(small.sessions(), small.expected()) == []
    assert run_ids(small) == set()
    (lease,) = small.query("SELECT triggers FROM {d}.etl_lease_sessions")
    assert lease["triggers"] == []
