"""A session as a story: its events, people, documents and columns, each with its reason. Pure.

Rows in, frozen records out; how they are shown is decided elsewhere. It has only the
declared `properties`, and only the ids of Firebase.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from oracle.comparison import SourceRows, compare, json_value, piece_owners
from oracle.evidence import events_behind, property_value
from oracle.ids import SECOND, micros, time_of
from oracle.people import CREATION_TOLERANCE, Users, read_documents
from oracle.rows import classify_rows, deduplicated, in_order, read_row

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from oracle.rows import Event, Exclusions
    from sessions.metric_types import Creation, MetricTable

type Row = dict[str, Any]

NEAR = 3600 * SECOND  # how far from the session a document is shown


@dataclass(frozen=True, slots=True, kw_only=True)
class EventLine:
    """One event that counts, by its number in the session."""

    number: int
    uuid: str
    at: datetime
    gap_seconds: float
    name: str
    distinct_id: str | None
    copies: int
    """How many rows of the source are this event: all but one are duplicates."""
    properties: dict[str, str | float]
    """The declared properties that it has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SetAsideLine:
    """A row that names the session and belongs to none."""

    uuid: str | None
    name: str | None
    at: datetime | None
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class IdLine:
    """A distinct id of the session, in order of last use, and the user that it means."""

    distinct_id: str
    user_id: str | None
    user_match: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentLine:
    """A document of the session's user: whether it counts, or by how many seconds it missed."""

    document_id: str
    at: datetime
    is_checkin: bool
    missed_by_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnLine:
    """A column: its computed value, the stored one, and the numbers of the events behind it."""

    name: str
    description: str
    value: object
    stored: object
    events: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """Everything that is known of one session."""

    session_id: str
    status: str
    """right, wrong or changed, as a verification has it."""
    events: tuple[EventLine, ...]
    set_aside: tuple[SetAsideLine, ...]
    distinct_ids: tuple[IdLine, ...]
    documents: tuple[DocumentLine, ...]
    columns: tuple[ColumnLine, ...]

    def to_json(self) -> dict[str, object]:
        """Every field, JSON-ready."""
        return {each.name: _plain(getattr(self, each.name)) for each in fields(self)}


def _plain(value: object) -> object:
    if isinstance(value, tuple):
        return [_plain(each) for each in value]
    if isinstance(value, EventLine | SetAsideLine | IdLine | DocumentLine | ColumnLine):
        return {each.name: _plain(getattr(value, each.name)) for each in fields(value)}
    return json_value(value)


def build_story(
    metric_table: MetricTable,
    stored: Row,
    source: SourceRows,
    *,
    exclusions: Exclusions | None = None,
) -> Story:
    """Return the story of a stored session, from the raw rows that name it."""
    session_id = stored["session_id"]
    known_split = piece_owners(session_id) if stored.get("is_split") else set()
    sorting = classify_rows(metric_table, source.events, exclusions, known_split)
    valid = sorting.sessions.get(session_id, [])
    events = in_order(deduplicated(valid))
    verdict = compare(metric_table, [stored], source, exclusions=exclusions)[0]
    people = Users(source.users)
    return Story(
        session_id=session_id,
        status=verdict.status,
        events=tuple(_event_lines(metric_table, events, valid)),
        set_aside=tuple(_set_aside(metric_table, source.events, exclusions)),
        distinct_ids=tuple(_id_lines(people, stored["distinct_ids"])),
        documents=tuple(_document_lines(metric_table.creation, source.documents, stored)),
        columns=tuple(_column_lines(metric_table, stored, verdict.computed, events)),
    )


def _event_lines(
    metric_table: MetricTable, events: list[Event], valid: list[Event]
) -> Iterable[EventLine]:
    copies = Counter(row.uuid for row in valid)
    for number, event in enumerate(events):
        before = events[number - 1] if number else event
        values = {each.name: property_value(each, event) for each in metric_table.properties}
        yield EventLine(
            number=number + 1,
            uuid=event.uuid,
            at=time_of(event.at),
            gap_seconds=(event.at - before.at) / SECOND,
            name=event.name,
            distinct_id=event.distinct_id,
            copies=copies[event.uuid],
            properties={name: value for name, value in values.items() if value is not None},
        )


def _set_aside(
    metric_table: MetricTable, rows: Iterable[Row], exclusions: Exclusions | None
) -> Iterable[SetAsideLine]:
    for row in rows:
        outcome = read_row(metric_table, row, exclusions)
        if isinstance(outcome, str):
            at = micros(row.get("timestamp"))
            yield SetAsideLine(
                uuid=row.get("uuid"),
                name=row.get("event"),
                at=None if at is None else time_of(at),
                reason=outcome,
            )


def _id_lines(people: Users, distinct_ids: Iterable[str]) -> Iterable[IdLine]:
    for distinct_id in distinct_ids:
        user_id, user_match = people.match(distinct_id) or (None, None)
        yield IdLine(distinct_id=distinct_id, user_id=user_id, user_match=user_match)


def _document_lines(creation: Creation, rows: list[Row], stored: Row) -> Iterable[DocumentLine]:
    """Return the user's documents near the session; none without a user."""
    first = (micros(stored["started_at"]) or 0) - CREATION_TOLERANCE
    last = (micros(stored["ended_at"]) or 0) + CREATION_TOLERANCE
    for row in rows:
        found = read_documents(creation, [row]).by_creator.get(stored["user_id"] or "", [])
        for at, is_checkin in found:
            missed = max(first - at, at - last, 0)
            if missed <= NEAR:
                yield DocumentLine(
                    document_id=row["document_id"],
                    at=time_of(at),
                    is_checkin=is_checkin,
                    missed_by_seconds=missed / SECOND,
                )


def _column_lines(
    metric_table: MetricTable, stored: Row, computed: Row, events: list[Event]
) -> Iterable[ColumnLine]:
    numbers = {event.uuid: number + 1 for number, event in enumerate(events)}
    for column in metric_table.columns:
        if column.name in computed and not column.name.startswith("_"):
            behind = events_behind(metric_table, column.name, events)
            yield ColumnLine(
                name=column.name,
                description=column.description,
                value=computed[column.name],
                stored=stored.get(column.name),
                events=tuple(numbers[event.uuid] for event in behind),
            )
