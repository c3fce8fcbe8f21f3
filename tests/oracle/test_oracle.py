"""The oracle and the case folders agree: each checks the other, without an engine."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from oracle import rows as oracle
from oracle.ids import is_junk
from oracle.rows import Exclusions, quarantined, reasons, split_ids
from oracle.sessions import expected_sessions
from tests.case_files import load_case, load_cases
from tests.paths import TESTS
from tests.shipped import METRIC_TABLE

type Row = dict[str, Any]

FOLDERS = sorted(folder for folder in (TESTS / "cases").iterdir() if folder.is_dir())
CASES = load_cases(TESTS / "cases")
BOOKKEEPING = {"_loaded_at", "_run_id", "_metrics_version"}  # which run wrote a row, not what
COLUMN_NAMES = {column.name for column in METRIC_TABLE.columns} - BOOKKEEPING
AT = datetime(2026, 9, 2, 10, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)

CASE_NAMES = sorted(CASES.cases)


def _event(session_id: str, at: datetime = AT, properties: Row | None = None) -> Row:
    return {
        "uuid": "u",
        "event": "ping",
        "distinct_id": "somebody",
        "timestamp": at,
        "bq_ingested_timestamp": None,
        "properties": {"$session_id": session_id} | (properties or {}),
    }


@pytest.fixture(scope="module")
def table() -> dict[str, Row]:
    """Return the sessions of all cases loaded together."""
    return expected_sessions(
        METRIC_TABLE, CASES.events, CASES.users, CASES.documents, CASES.posthog_sessions
    )


@pytest.mark.parametrize("name", CASE_NAMES)
def test_a_case_expects_what_the_oracle_computes(name: str, table: dict[str, Row]) -> None:
    """The expected columns of every case are those of the oracle over all cases together."""
    case = CASES.cases[name]
    picked = {
        session_id: {column: table[session_id][column] for column in columns}
        for session_id, columns in case.expected.items()
    }
    assert picked == dict(case.expected)
    assert not set(case.absent) & set(table)


def test_the_cases_name_every_session(table: dict[str, Row]) -> None:
    """Every session of the table is expected by a case."""
    assert {key for case in CASES.cases.values() for key in case.expected} == set(table)


def test_every_column_is_the_subject_of_a_case(table: dict[str, Row]) -> None:
    """Every column of the metric table is expected with at least two different values."""
    assert {column for row in table.values() for column in row} == COLUMN_NAMES
    values: dict[str, set[str]] = {column: set() for column in COLUMN_NAMES}
    for case in CASES.cases.values():
        for row in case.expected.values():
            for column, value in row.items():
                values[column].add(repr(value))
    assert [column for column, texts in values.items() if len(texts) <= 1] == []


def test_cases_share_no_id() -> None:
    """No id, phone or e-mail of one case occurs in another, so that all can be loaded together."""
    owners: Counter[tuple[str, str]] = Counter()
    for folder in FOLDERS:
        cases = load_case(folder)
        keys = {("uuid", row["uuid"]) for row in cases.events}
        keys |= {("person", row["distinct_id"]) for row in cases.events}
        keys |= {("person", row[column]) for row in cases.users for column in ("user_id", "email")}
        keys |= {("phone", row["phoneNumber"]) for row in cases.users}
        keys |= {("document", row["document_id"]) for row in cases.documents}
        keys |= {("session", row["session_id"]) for row in cases.posthog_sessions}
        case = cases.cases[folder.name]
        keys |= {("session", key) for key in {*case.expected, *case.absent}}
        meant = ((kind, value) for kind, value in keys if value)
        owners.update(key for key in meant if not is_junk(key[1]))
    assert [key for key, count in owners.items() if count > 1] == []


def test_the_order_of_rows_does_not_matter(table: dict[str, Row]) -> None:
    """Every input read backwards gives the same table."""
    assert table == expected_sessions(
        METRIC_TABLE,
        CASES.events[::-1],
        CASES.users[::-1],
        CASES.documents[::-1],
        CASES.posthog_sessions[::-1],
    )


def test_every_row_falls_under_one_reason(table: dict[str, Row]) -> None:
    """The reasons partition the rows, and the aggregated rows are the events of the table."""
    counted = reasons(METRIC_TABLE, CASES.events)
    assert sum(counted.values()) == len(CASES.events)
    assert {reason for reason, count in counted.items() if not count} == {"excluded", "quarantined"}
    assert counted["aggregated"] == sum(row["event_count"] for row in table.values())
    valid = sum(day["row_count"] for row in table.values() for day in row["_days"])
    assert counted["aggregated"] + counted["duplicate"] == valid


def test_the_first_reason_that_holds_counts() -> None:
    """A row is counted as bad before it is counted as without session, then as excluded."""
    nobody = Exclusions(exclude_distinct_ids=frozenset({"somebody"}))
    rows = [
        _event("", at=datetime(2017, 12, 31, tzinfo=UTC)),
        _event(""),
        _event("excluded"),
        _event("kept") | {"distinct_id": "somebody else"},
        _event("kept") | {"distinct_id": "somebody else"},
    ]
    assert reasons(METRIC_TABLE, rows, exclusions=nobody) == {
        "bad_timestamp": 1,
        "malformed": 0,
        "no_session": 1,
        "excluded": 1,
        "quarantined": 0,
        "duplicate": 1,
        "aggregated": 1,
    }


def test_times_are_credible_from_2018_on() -> None:
    """The first moment of 2018 counts, the microsecond before it does not."""
    start = datetime(2018, 1, 1, tzinfo=UTC)
    assert reasons(METRIC_TABLE, [_event("s", start)])["aggregated"] == 1
    assert reasons(METRIC_TABLE, [_event("s", start - MICROSECOND)])["bad_timestamp"] == 1


@pytest.mark.parametrize(
    ("exclusions", "properties", "excluded"),
    [
        pytest.param({}, {"$browser_type": "bot", "$is_emulator": True}, 0, id="nothing"),
        pytest.param({"exclude_bots": True}, {"$browser_type": "bot"}, 1, id="bot"),
        pytest.param({"exclude_bots": True}, {"$browser_type": "Bot"}, 0, id="no-bot"),
        pytest.param({"exclude_emulators": True}, {"$is_emulator": True}, 1, id="emulator"),
        pytest.param({"exclude_emulators": True}, {"$is_emulator": "TRUE"}, 1, id="emulator-text"),
        pytest.param({"exclude_emulators": True}, {"$is_emulator": 1}, 1, id="emulator-number"),
        pytest.param({"exclude_emulators": True}, {"$is_emulator": False}, 0, id="device"),
        pytest.param({"exclude_libs": frozenset({"web"})}, {"$lib": "web"}, 1, id="lib"),
        pytest.param({"exclude_libs": frozenset({"web"})}, {"$lib": "Web"}, 0, id="other-lib"),
        pytest.param({"exclude_distinct_ids": frozenset({"somebody"})}, {}, 1, id="distinct-id"),
        pytest.param({"exclude_distinct_ids": frozenset({"Somebody"})}, {}, 0, id="other-id"),
    ],
)
def test_exclusions_set_rows_aside(
    exclusions: dict[str, Any], properties: Row, excluded: int
) -> None:
    """Rows are excluded by exact distinct id, exact library, emulator and bot, if so set."""
    rows = [_event("s", properties=properties)]
    settings = Exclusions(**exclusions)
    assert reasons(METRIC_TABLE, rows, exclusions=settings)["excluded"] == excluded
    assert (
        len(expected_sessions(METRIC_TABLE, rows, [], [], [], exclusions=settings)) == 1 - excluded
    )


def test_a_session_has_at_most_a_hundred_thousand_rows() -> None:
    """The oracle has the number by itself, and it is that of the product."""
    assert oracle.MOST_ROWS == METRIC_TABLE.most_session_rows == 100_000


def test_a_piece_of_too_many_rows_is_quarantined(monkeypatch: pytest.MonkeyPatch) -> None:
    """Up to the limit, valid rows are a session, repeats included; one more row splits it.

    Of its pieces, those that exceed the limit are quarantined, and the others stay.
    """
    monkeypatch.setattr(oracle, "MOST_ROWS", 100)  # the real limit would take long
    rows = [_event("s")] * 100
    assert (split_ids(METRIC_TABLE, rows), quarantined(METRIC_TABLE, rows)) == ({}, {})
    other = _event("s") | {"distinct_id": "another"}
    assert split_ids(METRIC_TABLE, [*rows, other]) == {"s": (AT, AT, 101)}
    assert quarantined(METRIC_TABLE, [*rows, other]) == {}
    more = [*rows, rows[0], other]
    piece = f"s/{AT.date()}/somebody"
    assert quarantined(METRIC_TABLE, more) == {piece: (AT, AT, 101)}
    assert reasons(METRIC_TABLE, more)["quarantined"] == 101
    assert expected_sessions(METRIC_TABLE, more, [], [], []).keys() == {f"s/{AT.date()}/another"}


def test_an_id_that_spans_too_long_is_split() -> None:
    """An id that spans three days is a session; one that spans a microsecond more is split."""
    end = AT + timedelta(days=3)
    assert split_ids(METRIC_TABLE, [_event("s"), _event("s", end)]) == {}
    longer = [_event("s", end + MICROSECOND), _event("s")]
    assert split_ids(METRIC_TABLE, longer) == {"s": (AT, end + MICROSECOND, 2)}
    assert expected_sessions(METRIC_TABLE, longer, [], [], []).keys() == {
        f"s/{AT.date()}/somebody",
        f"s/{end.date()}/somebody",
    }


def test_rows_that_count_nowhere_are_reported() -> None:
    """Users without id, and documents without id, creator or creation time, are counted."""
    bad: dict[str, int] = {}
    expected_sessions(
        METRIC_TABLE,
        [],
        [{"user_id": None}, {"user_id": ""}, {"user_id": "u"}],
        [
            {"document_id": None, "user_id": "u", "createdAt": AT},
            {"document_id": "a", "user_id": "users/", "createdAt": AT},
            {"document_id": "b", "user_id": "u", "createdAt": None},
            {"document_id": "c", "user_id": "u", "createdAt": AT},
        ],
        [],
        bad=bad,
    )
    assert bad == {"users": 2, "documents": 3}


# Recorded in a real browser ----------------------------------------------------------------------

RECORDED = TESTS / "recorded_web"
TRUTH: list[Row] = json.loads((RECORDED / "truth.json").read_text("utf-8"))


def _recorded(name: str) -> list[Row]:
    path = RECORDED / name
    data = path.read_bytes()
    text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode()
    return [json.loads(line) for line in text.split("\n") if line]


@pytest.fixture(scope="module")
def recorded() -> dict[str, Row]:
    """Return the sessions of the recorded robots."""
    return expected_sessions(
        METRIC_TABLE,
        _recorded("posthog_events.jsonl.gz"),
        _recorded("firebase_users.jsonl"),
        _recorded("firebase_events.jsonl"),
        [],
    )


def test_every_robot_has_one_session(recorded: dict[str, Row]) -> None:
    """The sessions are those of the robots, no more and no fewer."""
    assert set(recorded) == {robot["session_id"] for robot in TRUTH}


@pytest.mark.parametrize("robot", TRUTH, ids=lambda robot: str(robot["uid"]))
def test_a_robots_session_shows_what_it_did(robot: Row, recorded: dict[str, Row]) -> None:
    """The session counts what its robot did, and belongs to the user that it signed in as."""
    row = recorded[robot["session_id"]]
    counted: Counter[str] = Counter({pair["event"]: pair["count"] for pair in row["event_counts"]})
    did = {key: robot[key] for key in ("pageviews", "created", "viewed", "joined", "rage")}
    assert did == {
        "pageviews": row["pageview_count"],
        "created": counted["create_event"],
        "viewed": row["events_viewed"],
        "joined": row["events_joined"],
        "rage": row["rageclick_count"],
    }
    assert counted["start_quiz"] == robot["quiz_started"]
    assert counted["finish_quiz"] == robot["quiz_completed"]
    assert row["started_quiz"] == (robot["quiz_started"] > 0)
    assert row["completed_quiz"] == (robot["quiz_completed"] > 0)
    assert row["distinct_id"] == robot["distinct_id"]
    if robot["identified"]:
        anonymous_id, uid = row["distinct_ids"]
        assert uid == robot["uid"] == row["user_id"]
        assert row["user_match"] == "uid"
        assert row["identified"] == [{"anonymous_id": anonymous_id, "distinct_id": uid}]
        assert row["events_created"] == robot["created"]
    else:
        assert row["user_id"] is None
        assert row["identified"] == []
        assert row["events_created"] == 0


def test_web_sessions_have_scroll_depths(recorded: dict[str, Row]) -> None:
    """Sessions of the web SDK fill both depths, within 0..1, and no touch column."""
    for row in recorded.values():
        assert 0 <= row["max_scroll_depth"] <= 1
        assert 0 < row["max_content_depth"] <= 1
        assert row["lib"] == "web"
        assert (row["touch_count"], row["touch_reach"]) == (0, None)
        assert row["scrolled"] == (row["max_scroll_depth"] > 0)
