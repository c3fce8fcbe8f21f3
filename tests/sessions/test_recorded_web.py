"""Events recorded from the real SDK, compared with what the robots that sent them did."""

from __future__ import annotations

import gzip
import json
from typing import TYPE_CHECKING, Any

import pytest

import main
from runs.request import RunRequest
from sessions import projection
from tests.paths import TESTS
from tests.scenario import Row, Scenario, differences
from tests.shipped import METRIC_TABLE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bigquery.clients import Clients

FOLDER = TESTS / "recorded_web"
TRUTH: list[Row] = json.loads((FOLDER / "truth.json").read_text())


def lines(name: str) -> list[Row]:
    """The rows of a recorded file."""
    text = (FOLDER / name).read_bytes()
    text = gzip.decompress(text) if name.endswith(".gz") else text
    return [json.loads(line) for line in text.split(b"\n") if line]


@pytest.fixture(scope="module")
def scenario(clients: Clients) -> Iterator[Scenario]:
    """The recorded data, loaded and aggregated."""
    with Scenario(clients=clients) as scenario:
        scenario.arrive("posthog_events", lines("posthog_events.jsonl.gz"))
        scenario.arrive("firebase_users", lines("firebase_users.jsonl"))
        scenario.arrive("firebase_events", lines("firebase_events.jsonl"))
        scenario.run()
        yield scenario


@pytest.fixture(scope="module")
def sessions(scenario: Scenario) -> dict[str, Row]:
    """The published sessions by id."""
    return scenario.sessions()


def test_every_cell_equals_the_oracle(scenario: Scenario, sessions: dict[str, Row]) -> None:
    """The recorded sessions are those that the oracle makes of the same rows."""
    assert differences(sessions, scenario.expected()) == []


class DownloadMeter:
    """Watches a run, and measures the events that an engine would download."""

    def __init__(self, scenario: Scenario) -> None:
        self._scenario = scenario
        self.downloaded_bytes = 0

    def step(self, name: str) -> None:
        """Measure the batches while they exist, as uncompressed Arrow."""
        if name == "enrich":
            client = self._scenario.clients.bigquery
            (batches,) = (
                table
                for table in client.list_tables(self._scenario.destination)
                if table.table_id.endswith("_batches")
            )
            name = f"{batches.dataset_id}.{batches.table_id}"
            (non_null,) = self._scenario.query(projection.non_null_sql(METRIC_TABLE, name))
            columns = projection.downloaded_columns(METRIC_TABLE)
            names = [column for column in columns if non_null.get(column, True)]
            rows = client.query(f"SELECT {', '.join(names)} FROM {name}").result()
            self.downloaded_bytes = rows.to_arrow(create_bqstorage_client=False).nbytes

    def batch(self, done: int, total: int, events: int) -> None:
        """Ignore batches."""

    def close(self) -> None:
        """There is nothing to close."""


@pytest.fixture(scope="module")
def twin(scenario: Scenario) -> tuple[Scenario, DownloadMeter]:
    """The same sources aggregated by BigQuery, and the meter of that run."""
    twin = scenario.twin()
    meter = DownloadMeter(twin)
    main.main(RunRequest(engine="bigquery"), twin.make_settings(), twin.clients, progress=meter)
    return twin, meter


def test_both_engines_make_the_same_sessions(
    twin: tuple[Scenario, DownloadMeter], sessions: dict[str, Row]
) -> None:
    """The other engine leaves the same table, cell by cell."""
    assert differences(twin[0].sessions(), sessions) == []


def test_less_than_a_twentieth_of_the_bytes_is_downloaded(
    scenario: Scenario, twin: tuple[Scenario, DownloadMeter]
) -> None:
    """Rows of kilobytes of JSON leave BigQuery as the few values that metrics need."""
    client = scenario.clients.bigquery
    rows = client.list_rows(scenario.datasets.table_id(client, "posthog_events"))
    raw = rows.to_arrow(create_bqstorage_client=False)
    assert 0 < twin[1].downloaded_bytes * 20 < raw.nbytes


@pytest.mark.parametrize("robot", TRUTH, ids=lambda robot: robot["session_id"][-4:])
def test_a_session_shows_what_its_robot_did(
    sessions: dict[str, Row],
    robot: Any,  # noqa: ANN401 - JSON
) -> None:
    """Page views, creations, quizzes, joins, views and the user are those of the robot."""
    session = sessions[robot["session_id"]]
    names = {each["event"]: each["count"] for each in session["event_counts"]}
    found = {
        "pageviews": session["pageview_count"],
        "created": names.get("create_event", 0),
        "quiz_started": names.get("start_quiz", 0),
        "quiz_completed": names.get("finish_quiz", 0),
        "joined": session["events_joined"],
        "viewed": session["events_viewed"],
    }
    assert found == {name: robot[name] for name in found}
    assert session["started_quiz"] == bool(robot["quiz_started"])
    assert session["completed_quiz"] == bool(robot["quiz_completed"])
    assert session["user_id"] == (robot["uid"] if robot["identified"] else None)
    created = session["events_created"] + session["checkins_created"]
    assert created == (robot["created"] if robot["identified"] else 0)


def test_identified_sessions_began_anonymous(sessions: dict[str, Row]) -> None:
    """A sign-in within a session attributes the whole of it, anonymous beginning included."""
    identified = {robot["session_id"]: robot["uid"] for robot in TRUTH if robot["identified"]}
    for key, user_id in identified.items():
        assert len(sessions[key]["distinct_ids"]) == 2
        assert sessions[key]["distinct_ids"][-1] == user_id
        assert sessions[key]["identified"][0]["distinct_id"] == user_id


def test_web_scroll_columns_are_filled(sessions: dict[str, Row]) -> None:
    """Sessions of more than one page have scroll depths between 0 and 1."""
    depths = [
        (row["max_scroll_depth"], row["max_content_depth"])
        for row in sessions.values()
        if row["pageview_count"] > 1
    ]
    assert len(depths) > 40
    assert all(0 <= scroll <= 1 and 0 < content <= 1 for scroll, content in depths)
