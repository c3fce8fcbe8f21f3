"""A verification names exactly the cells that a planted error changes."""

from __future__ import annotations

from copy import deepcopy
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from oracle.comparison import SourceRows, compare, source_days
from oracle.rows import classify_rows
from oracle.sessions import expected_sessions
from tests.case_files import load_cases
from tests.paths import TESTS
from tests.shipped import METRIC_TABLE

if TYPE_CHECKING:
    from oracle.comparison import Verdict

type Row = dict[str, Any]

CASES = load_cases(TESTS / "cases")
SOURCE = SourceRows(
    events=CASES.events,
    users=CASES.users,
    documents=CASES.documents,
    posthog_sessions=CASES.posthog_sessions,
)
VALID = classify_rows(METRIC_TABLE, SOURCE.events, None).sessions
COLUMNS = [
    column.name
    for column in METRIC_TABLE.columns
    if not column.name.startswith("_") and column.name != "session_id"
]


def build_rows(events: list[Row], users: list[Row] | None = None) -> dict[str, Row]:
    """The rows that a run makes of these events, with the `_days` of the source."""
    source = (SOURCE.users if users is None else users, SOURCE.documents, SOURCE.posthog_sessions)
    rows = expected_sessions(METRIC_TABLE, events, *source)
    for session_id, row in rows.items():
        days = source_days(VALID[session_id])
        row["_days"] = [
            {"day": day, "row_count": count, "digest": digest}
            for day, (count, digest) in days.items()
        ]
    return rows


RIGHT = build_rows(SOURCE.events)
# Of the sessions with a user and one distinct id, the one with most events.
RICHEST = max(
    (key for key, row in RIGHT.items() if row["user_id"] and len(row["distinct_ids"]) == 1),
    key=lambda key: RIGHT[key]["event_count"],
)


def verdict(row: Row) -> Verdict:
    """The verdict on one stored row."""
    return compare(METRIC_TABLE, [row], SOURCE)[0]


def altered(value: object) -> object:
    """Another value of the same type, or a text instead of null."""
    match value:
        case bool():
            return not value
        case int() | float():
            return value + 1
        case datetime():
            return value + timedelta(microseconds=1)
        case date():
            return value + timedelta(days=1)
        case list():
            return value[1:] if value else ["planted"]
        case _:
            return f"{value}?"


def test_without_a_planted_error_every_session_is_right() -> None:
    """No session of the case folders is found wrong or changed."""
    found = compare(METRIC_TABLE, RIGHT.values(), SOURCE)
    assert {each.status for each in found} == {"right"}
    assert len(found) > 150


@pytest.mark.parametrize("column", COLUMNS)
def test_one_wrong_value_is_named(column: str) -> None:
    """A wrong stored value, of whatever column, is the one difference that is found."""
    row = deepcopy(RIGHT[RICHEST])
    row[column] = altered(row[column])
    found = verdict(row)
    assert found.status == "wrong"
    assert [(each.column, each.stored) for each in found.differences] == [(column, row[column])]
    assert found.differences[0].computed == RIGHT[RICHEST][column]


def changed_cells(row: Row) -> set[str]:
    """The columns in which a row differs from the right one."""
    right = RIGHT[row["session_id"]]
    return {name for name in COLUMNS if row[name] != right[name]}


def middle_event() -> Row:
    """An event in the middle of the session."""
    rows = VALID[RICHEST]
    uuid = sorted(rows, key=lambda each: each.at)[len(rows) // 2].uuid
    return next(row for row in SOURCE.events if row["uuid"] == uuid)


def test_a_lost_event_is_named_in_each_cell_that_it_changes() -> None:
    """A run left out a row that the source has."""
    lost = middle_event()
    row = build_rows([each for each in SOURCE.events if each is not lost])[RICHEST]
    found = verdict(row)
    assert {"event_count", "event_counts"} <= changed_cells(row)
    assert {each.column for each in found.differences} == changed_cells(row)
    events_behind = {each.column: each.events for each in found.differences}
    assert lost["uuid"] in events_behind["event_count"]


def test_a_duplicate_counted_twice_is_named() -> None:
    """A run took a copy for another event."""
    twice = middle_event()
    row = build_rows([*SOURCE.events, twice | {"uuid": f"{twice['uuid']}-again"}])[RICHEST]
    found = verdict(row)
    assert {"event_count", "event_counts"} <= changed_cells(row)
    assert {each.column for each in found.differences} == changed_cells(row)


def test_a_wrong_user_is_named() -> None:
    """A run gave the session to another user."""
    user_id = RIGHT[RICHEST]["user_id"]
    users = [
        each | {"user_id": "another"} if each["user_id"] == user_id else each
        for each in CASES.users
    ]
    row = build_rows(SOURCE.events, users)[RICHEST]
    found = verdict(row)
    assert "user_id" in changed_cells(row)
    assert {each.column for each in found.differences} == changed_cells(row)


def test_a_session_whose_source_rows_changed_is_reported_as_changed() -> None:
    """A row that arrived after the run, or was rewritten in place, makes it changed."""
    row = deepcopy(RIGHT[RICHEST])
    event = middle_event()
    later = [*SOURCE.events, event | {"uuid": "later"}]
    rewritten = [each | {"event": "renamed"} if each is event else each for each in SOURCE.events]
    for events in (later, rewritten):
        source = SourceRows(
            events=events,
            users=SOURCE.users,
            documents=SOURCE.documents,
            posthog_sessions=SOURCE.posthog_sessions,
        )
        assert compare(METRIC_TABLE, [row], source)[0].status == "changed"
