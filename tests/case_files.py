"""The case folders as rows: inputs of all cases together, expectations case by case.

A folder holds `posthog_events.jsonl`, `expected.jsonl` and, where the case needs them,
`posthog_sessions.jsonl`, `firebase_users.jsonl`, `firebase_events.jsonl` and `absent.json`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import date, datetime
from typing import TYPE_CHECKING, Any

from oracle.rows import properties_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

type Row = dict[str, Any]

EVENT_COLUMNS = (
    "uuid", "event", "properties", "elements", "set", "set_once", "distinct_id", "team_id", "ip",
    "site_url", "timestamp", "bq_ingested_timestamp",
)  # fmt: skip
SESSION_COLUMNS = (
    "session_id", "distinct_id", "start_timestamp", "end_timestamp", "channel_type",
)  # fmt: skip
USER_COLUMNS = (
    "user_id", "phoneNumber", "fullName", "username", "email", "contactAccessGranted",
    "businessUser", "createdAt", "etl_loaded_at",
)  # fmt: skip
DOCUMENT_COLUMNS = ("document_id", "user_id", "createdAt", "eventDate", "type", "etl_loaded_at")

TIME_COLUMNS = ("started_at", "ended_at", "user_signed_up_at")


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What one case expects: some columns of some sessions, and sessions that must not be."""

    name: str
    expected: Mapping[str, Row]
    absent: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cases:
    """The source rows of several cases, and what each of them expects.

    Every row has every column of its table; `properties` is JSON text, times are ISO text.
    """

    events: list[Row]
    users: list[Row]
    documents: list[Row]
    posthog_sessions: list[Row]
    cases: dict[str, Case]


def load_cases(directory: Path) -> Cases:
    """Return every case below the directory, their inputs one after the other."""
    loaded = [load_case(folder) for folder in sorted(directory.iterdir()) if folder.is_dir()]
    return Cases(
        events=[row for cases in loaded for row in cases.events],
        users=[row for cases in loaded for row in cases.users],
        documents=[row for cases in loaded for row in cases.documents],
        posthog_sessions=[row for cases in loaded for row in cases.posthog_sessions],
        cases={name: case for cases in loaded for name, case in cases.cases.items()},
    )


def load_case(folder: Path) -> Cases:
    """Return the one case of the folder."""
    events = _rows(folder / "posthog_events.jsonl", EVENT_COLUMNS)
    absent = folder / "absent.json"
    case = Case(
        name=folder.name,
        expected={row["session_id"]: _typed(row) for row in _lines(folder / "expected.jsonl")},
        absent=tuple(json.loads(absent.read_text("utf-8"))) if absent.exists() else (),
    )
    return Cases(
        events=[row | {"properties": properties_text(row) or None} for row in events],
        users=_rows(folder / "firebase_users.jsonl", USER_COLUMNS),
        documents=_rows(folder / "firebase_events.jsonl", DOCUMENT_COLUMNS),
        posthog_sessions=_rows(folder / "posthog_sessions.jsonl", SESSION_COLUMNS),
        cases={folder.name: case},
    )


def _lines(path: Path) -> list[Row]:
    # Not str.splitlines: it also breaks at the line separators that JSON allows in strings.
    return [json.loads(line) for line in path.read_text("utf-8").split("\n") if line]


def _rows(path: Path, columns: Iterable[str]) -> list[Row]:
    """Return the rows of the file, none if it is missing, with every column of the table."""
    if not path.exists():
        return []
    empty = dict.fromkeys(columns)
    rows = _lines(path)
    unknown = {key for row in rows for key in row} - set(empty)
    if unknown:
        message = f"{path.parent.name}/{path.name}: unknown columns {sorted(unknown)}"
        raise ValueError(message)
    return [empty | row for row in rows]


def _typed(row: Row) -> Row:
    """Return the expected row with its days as dates and its times as datetimes."""
    typed = dict(row)
    for column in TIME_COLUMNS:
        if typed.get(column) is not None:
            typed[column] = datetime.fromisoformat(typed[column])
    if "session_date" in typed:
        typed["session_date"] = date.fromisoformat(typed["session_date"])
    if "_days" in typed:
        typed["_days"] = [day | {"day": date.fromisoformat(day["day"])} for day in typed["_days"]]
    return typed
