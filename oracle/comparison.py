"""Stored sessions against computed ones, cell by cell: what differs, and whether it is wrong. Pure.

A session whose source rows are no longer those of its `_days` has changed since it was built: what
differs in it is no error, and the next run mends it.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

from oracle.evidence import events_behind
from oracle.ids import time_of
from oracle.rows import NULL, PIECE_LIKE, SEPARATOR, classify_rows, deduplicated, in_order
from oracle.sessions import expected_sessions

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import date

    from oracle.rows import Event, Exclusions
    from sessions.metric_types import MetricTable

type Row = dict[str, Any]
type Status = Literal["right", "wrong", "changed"]

UNCOMPARED = frozenset({"_loaded_at", "_run_id", "_metrics_version", "_days"})
_TOLERANCE = 1e-9  # of a float, relative to its size
_SOME_TIME = datetime(2026, 1, 1, tzinfo=UTC)
_HALF = 2**30
_DIGITS = 15
_NAMED = 5  # events shown of a difference


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceRows:
    """The rows that the sessions are computed from, shaped as the oracle takes them."""

    events: list[Row]
    users: list[Row]
    documents: list[Row]
    posthog_sessions: list[Row]


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One cell that differs, with the events that its column comes from, by uuid."""

    session_id: str
    column: str
    stored: object
    computed: object
    events: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a comparison found of one session."""

    session_id: str
    status: Status
    cells: int
    source_rows: int
    differences: tuple[Difference, ...]
    computed: Row


def compare(
    metric_table: MetricTable,
    stored: Iterable[Row],
    source: SourceRows,
    *,
    exclusions: Exclusions | None = None,
) -> list[Verdict]:
    """Return a verdict on each stored session, in their order."""
    stored = list(stored)
    pieces = [row["session_id"] for row in stored if row.get("is_split")]
    known_split = {owner for piece in pieces for owner in piece_owners(piece)}
    known_split -= {row["session_id"] for row in stored}
    valid = classify_rows(metric_table, source.events, exclusions, known_split).sessions
    computed = expected_sessions(
        metric_table,
        source.events,
        source.users,
        source.documents,
        source.posthog_sessions,
        exclusions=exclusions,
        known_split=known_split,
    )
    return [_verdict(metric_table, row, computed.get(row["session_id"]), valid) for row in stored]


def piece_owners(piece: str) -> set[str]:
    """Return the ids a piece may belong to: the text before a day and a distinct id.

    They are several only where the session id or the distinct id contains a day.
    """
    return {piece[: day.start()] for day in re.finditer(f"(?={PIECE_LIKE.pattern})", piece)}


def unknown_columns(metric_table: MetricTable) -> list[str]:
    """Return the declared columns that the oracle has no rule for."""
    one = {"timestamp": _SOME_TIME, "properties": {"$session_id": "any"}}
    known = {*expected_sessions(metric_table, [one], [], [], [])["any"], *UNCOMPARED}
    return [column.name for column in metric_table.columns if column.name not in known]


def _verdict(
    metric_table: MetricTable,
    row: Row,
    computed: Row | None,
    valid: Mapping[str, list[Event]],
) -> Verdict:
    session_id = row["session_id"]
    rows = valid.get(session_id, [])
    if computed is None:  # nothing of it is left in the source, or it is kept out by now
        return Verdict(
            session_id=session_id,
            status="changed",
            cells=0,
            source_rows=len(rows),
            differences=(),
            computed={},
        )
    names = [name for name in row if name in computed and name not in UNCOMPARED]
    events = in_order(deduplicated(rows))
    differences = tuple(
        Difference(
            session_id=session_id,
            column=name,
            stored=row[name],
            computed=computed[name],
            events=tuple(event.uuid for event in events_behind(metric_table, name, events)),
        )
        for name in names
        if not same(row[name], computed[name])
    )
    return Verdict(
        session_id=session_id,
        status=_status(row, rows, differences),
        cells=len(names),
        source_rows=len(rows),
        differences=differences,
        computed=computed,
    )


def _status(row: Row, rows: list[Event], differences: tuple[Difference, ...]) -> Status:
    if stored_days(row) != source_days(rows):
        return "changed"
    return "wrong" if differences else "right"


def stored_days(row: Row) -> dict[date, tuple[int, int | None]]:
    """Return what `_days` says: number and digest of the rows of each day."""
    return {each["day"]: (each["row_count"], each.get("digest")) for each in row["_days"]}


def source_days(rows: Iterable[Event]) -> dict[date, tuple[int, int | None]]:
    """Return number and digest of the valid rows of each day: each copy counts."""
    digests: dict[date, list[int]] = {}
    for row in rows:
        digests.setdefault(time_of(row.at).date(), []).append(_digest(row))
    return {day: (len(found), _sum(found)) for day, found in digests.items()}


def _digest(row: Event) -> int:
    """Return 60 bits of the MD5 of what the row says, its uuid and its ingestion."""
    uuid = NULL if row.uuid == row.text_hash else row.uuid
    ingested_at = NULL if row.ingested_at is None else str(row.ingested_at)
    line = SEPARATOR.join((row.text_hash, uuid, ingested_at))
    return int(hashlib.md5(line.encode(), usedforsecurity=False).hexdigest()[:_DIGITS], 16)


def _sum(digests: list[int]) -> int:
    """Return the sum of the upper halves and that of the lower ones, each cut to 30 bits."""
    upper = sum(digest // _HALF for digest in digests) % _HALF
    return upper * _HALF + sum(digest % _HALF for digest in digests) % _HALF


def same(stored: object, computed: object) -> bool:
    """Whether two cells agree."""
    if isinstance(stored, float) and isinstance(computed, float | int):
        return abs(stored - computed) <= _TOLERANCE * max(1.0, abs(computed))
    return type(stored) is type(computed) and stored == computed


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """What was verified, and what was found."""

    seed: str
    days: tuple[date, ...]
    bytes_estimated: int
    usd: float
    verdicts: tuple[Verdict, ...]
    unchecked: tuple[str, ...] = ()
    """Columns that the oracle has no rule for."""

    @property
    def is_right(self) -> bool:
        """Whether no session is wrong; one that has changed since it was built is not."""
        return not self.of("wrong")

    def of(self, status: Status) -> list[Verdict]:
        """The verdicts of one kind."""
        return [verdict for verdict in self.verdicts if verdict.status == status]

    def to_json(self) -> dict[str, object]:
        """Every field, JSON-ready."""
        return {
            "outcome": "ok" if self.is_right else "failed",
            "seed": self.seed,
            "days": [f"{day}" for day in self.days],
            "bytes": self.bytes_estimated,
            "usd": round(self.usd, 6),
            "sessions": len(self.verdicts),
            "cells": sum(verdict.cells for verdict in self.verdicts),
            "source_rows": sum(verdict.source_rows for verdict in self.verdicts),
            "changed": [verdict.session_id for verdict in self.of("changed")],
            "unchecked_columns": list(self.unchecked),
            "differences": [
                _difference_json(each)
                for verdict in self.of("wrong")
                for each in verdict.differences
            ],
        }


def _difference_json(each: Difference) -> dict[str, object]:
    return {
        "session_id": each.session_id,
        "column": each.column,
        "stored": json_value(each.stored),
        "computed": json_value(each.computed),
        "events": list(each.events),
    }


def json_value(value: object) -> object:
    """Return a cell as JSON has it: times and days as ISO text."""
    match value:
        case list():
            return [json_value(each) for each in value]
        case dict():
            return {key: json_value(each) for key, each in value.items()}
        case None | bool() | int() | float() | str():
            return value
        case _:
            return value.isoformat() if hasattr(value, "isoformat") else str(value)


def verification_text(found: Verification) -> str:
    """Return a verification as text for people."""
    shown = found.to_json()
    compared = f"{shown['sessions']} sessions, {shown['cells']} cells, {shown['source_rows']} rows"
    lines = [f"Compared {compared} of {len(found.days)} days, by seed {found.seed}."]
    for verdict in found.of("wrong"):
        lines += map(difference_text, verdict.differences)
    if changed := found.of("changed"):
        named = ", ".join(verdict.session_id for verdict in changed)
        lines.append(f"{len(changed)} have changed since the last run, which is no error: {named}.")
    if found.unchecked:
        lines.append(f"The oracle has no rule for {', '.join(found.unchecked)}: add it.")
    wrong = sum(len(verdict.differences) for verdict in found.of("wrong"))
    lines.append(f"{wrong} cells are wrong." if wrong else "No cell is wrong.")
    return "\n".join(lines)


def difference_text(each: Difference) -> str:
    """Return one wrong cell in a sentence, with the events that it comes from."""
    shown = ", ".join(each.events[:_NAMED]) + (", ..." if len(each.events) > _NAMED else "")
    return (
        f"{each.session_id}.{each.column} is {each.stored!r} and should be {each.computed!r},"
        f" from the events {shown or 'none'}."
    )
