"""The questions of docs/queries.md, over a small known scenario, on a fixed day."""

from __future__ import annotations

import json
import re
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from etl_functions import destination_tables
from sessions.persons import daily_activity_schema
from tests.clock import starting_at
from tests.paths import ROOT
from tests.scenario import Row, Scenario
from tests.sessions.test_requests_on_data import event
from tests.shipped import METRIC_TABLE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from google.cloud import bigquery

    from bigquery.clients import Clients
    from bigquery.tables import Field

PAGE = (ROOT / "docs" / "queries.md").read_text("utf-8")
QUESTIONS = dict(re.findall(r"^## (.*?)\n.*?^```sql\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL))
DESCRIBED = {
    **destination_tables(METRIC_TABLE),
    "daily_activity": daily_activity_schema(METRIC_TABLE),
}
TODAY = datetime(2026, 10, 20, 3, tzinfo=UTC)  # a Tuesday


def at(day: str, seconds: int = 0) -> datetime:
    """Ten o'clock on a day of 2026, and so many seconds later."""
    return datetime.fromisoformat(f"2026-{day}T10:00:00+00:00") + timedelta(seconds=seconds)


def act(session: str, when: datetime, name: str, who: str, **properties: object) -> Row:
    """An event with properties."""
    text = json.dumps({"$session_id": session, "$device_type": "Desktop", **properties})
    return event(session, when, event=name, distinct_id=who, properties=text)


# Ana signs up on Monday the 12th, comes again on days 1 and 7, and then creates. Ben, a creator, is
# lost. A cat comes back. Dan starts the quiz alone. All are on Home or Feed but the cat.
EVENTS = [
    act("ana 1", at("10-12"), "$pageview", "ana", screen_name="Home", utm_source="letter"),
    act("ana 1", at("10-12", 10), "start_quiz", "ana"),
    act("ana 1", at("10-12", 40), "finish_quiz", "ana"),
    act(
        "ana 1", at("10-12", 50), "$pageleave", "ana", **{"$prev_pageview_max_scroll_percentage": 1}
    ),
    act("ana 2", at("10-13"), "$screen", "ana", screen_name="Home"),
    act("ana 3", at("10-19"), "$screen", "ana", screen_name="Feed"),
    act("ana 3", at("10-19", 5), "$screen", "ana", screen_name="Home"),
    act("ben 1", at("09-01"), "$screen", "ben", screen_name="Feed"),
    act("cat 1", at("09-20"), "$pageview", "cat", **{"$current_url": "https://a.example/b?c#d"}),
    act("cat 2", at("10-19"), "$pageview", "cat", **{"$current_url": "https://a.example/b#e"}),
    act(
        "cat 2", at("10-19", 9), "$pageleave", "cat",
        **{"$prev_pageview_max_scroll_percentage": 0.6},
    ),
    act("dan 1", at("10-15"), "start_quiz", "dan"),
]  # fmt: skip
USERS = [
    {"user_id": "ana", "createdAt": at("10-12", -3600).isoformat()},
    {"user_id": "ben", "createdAt": at("08-31").isoformat()},
    {"user_id": "nobody came", "createdAt": at("10-13").isoformat()},
]
DOCUMENTS = [
    {"document_id": name, "user_id": who, "createdAt": when.isoformat(), "type": type_}
    for name, who, when, type_ in (
        ("party", "ana", at("10-19", 3), "base"),
        ("here", "ana", at("10-19", 4), "checkin"),
        ("picnic", "ana", at("10-19", 30000), "ticketed"),
        ("concert", "ben", at("09-03"), "base"),
    )
]
CHANNELS = [
    {"session_id": "ana 1", "channel_type": "Email"},
    {"session_id": "cat 2", "channel_type": "Direct"},
]

ANSWERS: dict[str, list[tuple[object, ...]]] = {
    "Who created events yesterday?": [("ana", 2, 1, 1)],
    "How deep do people scroll?": [("Desktop", 2, 0.8, 1.0, 0.5)],
    "How many finish the quiz, and how long does it take?": [
        (date(2026, 10, 12), 2, 1, 0.5, 30.0, 30.0)
    ],
    "Who stays? Retention by cohort": [
        (date(2026, 8, 31), 1, 0.0, 0.0, 0.0),  # ben
        (date(2026, 9, 14), 1, 0.0, 0.0, None),  # the cat, on day 29
        (date(2026, 10, 12), 2, 0.5, 1.0, None),  # ana and dan, whose day 7 is to come
    ],
    "Which creators have we lost?": [("ben", 1, date(2026, 9, 1), 49)],
    "Who came back yesterday?": [("cat", date(2026, 9, 20), 29)],
    "Where do sessions begin, and which beginnings lose people?": [
        (None, 1, None),  # dan; null comes first
        ("Feed", 1, 0.0),
        ("Home", 1, 1.0),
        ("https://a.example/b", 1, 1.0),
    ],
    "Which channels bring engaged sessions?": [
        (None, None, 3, 1, 0.33, 1.7),
        ("Email", "letter", 1, 1, 1.0, 50.0),
        ("Direct", None, 1, 0, 0.0, 9.0),
    ],
    "How many users are new, and how soon do they create?": [
        (date(2026, 8, 31), 1, 1, 3.0),
        (date(2026, 10, 12), 1, 1, 7.0),
    ],
    "How many are active, and how sticky is it?": [
        (date(2026, 10, 13), 1, 1, 1.0),
        (date(2026, 10, 14), 0, 1, 0.0),
        (date(2026, 10, 15), 1, 2, 0.5),
        (date(2026, 10, 16), 0, 2, 0.0),
        (date(2026, 10, 17), 0, 2, 0.0),
        (date(2026, 10, 18), 0, 2, 0.0),
        (date(2026, 10, 19), 2, 3, 0.67),
    ],
}


@pytest.fixture(scope="module")
def scenario(clients: Clients) -> Iterator[Scenario]:
    """The rows above, after one run."""
    with Scenario(clients=clients) as scenario, starting_at(TODAY):
        scenario.arrive("posthog_events", EVENTS)
        scenario.arrive("firebase_users", USERS)
        scenario.arrive("firebase_events", DOCUMENTS)
        scenario.arrive("posthog_sessions", CHANNELS)
        scenario.run()
        yield scenario


def test_there_are_ten_questions() -> None:
    """Each has its expected answer above."""
    assert [*QUESTIONS] == [*ANSWERS]
    assert len(QUESTIONS) == 10


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_question_is_answered(scenario: Scenario, question: str) -> None:
    """The page's statement returns the rows that follow from the events above, in order."""
    sql = QUESTIONS[question].replace("posthog_aggregated", scenario.destination)
    sql = sql.replace("CURRENT_DATE()", f"DATE '{TODAY.date()}'")
    assert [tuple(row.values()) for row in scenario.query(sql)] == ANSWERS[question]


@pytest.mark.parametrize("table", DESCRIBED)
def test_bigquery_has_the_descriptions(scenario: Scenario, table: str) -> None:
    """Each table, column and field has the description of the data dictionary."""
    schema = DESCRIBED[table]
    found = scenario.clients.bigquery.get_table(f"local.{scenario.destination}.{table}")
    assert found.description == schema.description
    assert described(found.schema) == described(schema.fields)


def described(columns: Iterable[bigquery.SchemaField | Field]) -> dict[str, object]:
    """The description of each column, and of the fields within it."""
    return {each.name: (each.description, described(each.fields)) for each in columns}
