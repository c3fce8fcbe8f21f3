"""The valid events of each session, and why other rows are set aside, slowly and plainly. Pure.

Rows are dicts shaped like PostHog's export; times are aware datetimes or ISO text. Every choice
follows a total order, so the order of the input never matters.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from math import isfinite
from typing import TYPE_CHECKING, Any

from oracle.ids import (
    BLANKS,
    DAY,
    EPOCH,
    micros,
    nulls_first,
    session_id_of,
    time_of,
    trimmed,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from sessions.metric_types import MetricTable

type Row = dict[str, Any]

FIRST_CREDIBLE_AT = (datetime(2018, 1, 1, tzinfo=UTC) - EPOCH) // timedelta(microseconds=1)
INGESTION_TOLERANCE = DAY
LONGEST_SESSION = 3 * DAY
PIECE_LIKE = re.compile("/[0-9]{4}-[0-9]{2}-[0-9]{2}/")
MOST_ROWS = 100_000
NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")


SEPARATOR, NULL = "\x1f", "\x1e"

TYING = {
    "$identify": ["$anon_distinct_id"],
    "$create_alias": ["alias"],
    "$merge_dangerously": ["alias"],
}
REASONS = (
    "bad_timestamp", "malformed", "no_session", "excluded", "quarantined", "duplicate",
    "aggregated",
)  # fmt: skip
LONE_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Exclusions:
    """The `EXCLUDE_*` settings: nothing by default."""

    exclude_distinct_ids: frozenset[str] = frozenset()
    exclude_libs: frozenset[str] = frozenset()
    exclude_emulators: bool = False
    exclude_bots: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One valid row: of a session, at a credible time, excluded by no setting."""

    session_id: str
    uuid: str
    name: str
    distinct_id: str | None
    at: int
    ingested_at: int | None
    text_hash: str
    properties: Mapping[str, str]

    def first_of(self, names: Iterable[str]) -> str | None:
        """Return the first non-empty scalar of the property's names."""
        return _first_scalar(self.properties, names)

    def number(self, names: Iterable[str]) -> float | None:
        """Return the property as a finite number, or None; a bad value tries no second name."""
        text = self.first_of(names)
        if text is None or not NUMBER.fullmatch(text) or not isfinite(float(text)):
            return None
        return float(text)


@dataclass(slots=True, kw_only=True)
class Sorting:
    """Every row of the input, counted by reason; valid rows by session."""

    reasons: Counter[str] = field(default_factory=Counter)
    sessions: dict[str, list[Event]] = field(default_factory=dict)
    quarantined: dict[str, list[Event]] = field(default_factory=dict)
    split: dict[str, list[Event]] = field(default_factory=dict)
    pieces: set[str] = field(default_factory=set)

    def add(self, session_id: str, rows: list[Event]) -> None:
        """Add a session, and count its rows."""
        self.sessions[session_id] = rows
        kept = len(deduplicated(rows))
        self.reasons["aggregated"] += kept
        self.reasons["duplicate"] += len(rows) - kept


def properties_text(row: Row) -> str:
    """Return the row's properties as the text that the source holds, '' for none."""
    properties = row.get("properties")
    if properties is None or isinstance(properties, str):
        return properties or ""
    return json.dumps(properties, ensure_ascii=False, separators=(",", ":"))


def classify_rows(
    metric_table: MetricTable,
    events: Iterable[Row],
    exclusions: Exclusions | None,
    known_split: Collection[str] = (),
) -> Sorting:
    """Return every row under the reason that it falls under, and the valid ones by session.

    `known_split`: ids that are split although these rows alone don't show it.
    """
    declared = _declared(metric_table)
    sorting = Sorting()
    valid: dict[str, list[Event]] = {}
    for row in events:
        outcome = _read(metric_table, row, declared, exclusions or Exclusions())
        if isinstance(outcome, str):
            sorting.reasons[outcome] += 1
        else:
            valid.setdefault(outcome.session_id, []).append(outcome)
    for session_id, rows in valid.items():
        if _is_too_long(rows):
            sorting.split[session_id] = rows
        elif session_id not in known_split and not PIECE_LIKE.search(session_id):
            sorting.add(session_id, rows)
            continue
        for piece, its_rows in _pieces(rows).items():
            if len(its_rows) > MOST_ROWS:
                sorting.quarantined[piece] = its_rows
                sorting.reasons["quarantined"] += len(its_rows)
            else:
                sorting.pieces.add(piece)
                sorting.add(piece, its_rows)
    return sorting


def _is_too_long(rows: list[Event]) -> bool:
    """Return whether an id lives too long, or has too many rows, to be one session's."""
    times = [row.at for row in rows]
    return max(times) - min(times) > LONGEST_SESSION or len(rows) > MOST_ROWS


def _pieces(rows: list[Event]) -> dict[str, list[Event]]:
    """Return what each distinct id did on each UTC day, under the id of the piece."""
    pieces: dict[str, list[Event]] = {}
    for row in rows:
        piece = f"{row.session_id}/{time_of(row.at).date()}/{row.distinct_id or ''}"
        pieces.setdefault(piece, []).append(row)
    return pieces


def read_row(
    metric_table: MetricTable, row: Row, exclusions: Exclusions | None = None
) -> Event | str:
    """Return the event of one row, or the reason that sets it aside."""
    return _read(metric_table, row, _declared(metric_table), exclusions or Exclusions())


def _declared(metric_table: MetricTable) -> dict[tuple[str, ...], bool]:
    """Return the names of each declared property, and whether it is an id, which is trimmed.

    With its own columns they are what a row says.
    """
    ids = {item.names for item in metric_table.properties if item.kind == "id"}
    lists = (names for item in metric_table.properties for names in (item.names, item.per))
    return {names: names in ids for names in lists if names}


def _read(
    metric_table: MetricTable,
    row: Row,
    declared: Mapping[tuple[str, ...], bool],
    exclusions: Exclusions,
) -> Event | str:
    """Return the event, or the reason that sets its row aside: the first that holds."""
    at = micros(row.get("timestamp"))
    ingested_at = micros(row.get("bq_ingested_timestamp"))
    if at is None or at < FIRST_CREDIBLE_AT:
        return "bad_timestamp"
    if ingested_at is not None and at > ingested_at + INGESTION_TOLERANCE:
        return "bad_timestamp"
    text = properties_text(row)
    properties = _scalars(text)
    if properties is None:
        return "malformed"
    session_id = session_id_of(_first_scalar(properties, metric_table.session_id_names))
    if session_id is None:
        return "no_session"
    distinct_id = trimmed(row.get("distinct_id"))
    name = row.get("event") or ""
    if name in metric_table.ignored_events or _is_excluded(distinct_id, properties, exclusions):
        return "excluded"
    raw = NULL if row.get("uuid") or row.get("properties") is None else text
    values = {names: _first_scalar(properties, names) for names in declared}
    texts = SEPARATOR.join(
        (trimmed(value) if declared[names] else value) or NULL for names, value in values.items()
    )
    line = SEPARATOR.join((session_id, name, distinct_id or NULL, str(at), raw, texts))
    text_hash = hashlib.md5(line.encode(), usedforsecurity=False).hexdigest()
    return Event(
        session_id=session_id,
        uuid=row.get("uuid") or text_hash,
        name=name,
        distinct_id=distinct_id,
        at=at,
        ingested_at=ingested_at,
        text_hash=text_hash,
        properties=properties,
    )


def _is_excluded(
    distinct_id: str | None, properties: Mapping[str, str], exclusions: Exclusions
) -> bool:
    emulator = properties.get("$is_emulator", "").lower() in {"true", "1"}
    bot = properties.get("$browser_type") == "bot"
    return (
        distinct_id in exclusions.exclude_distinct_ids
        or properties.get("$lib") in exclusions.exclude_libs
        or (exclusions.exclude_emulators and emulator)
        or (exclusions.exclude_bots and bot)
    )


def _scalars(text: str) -> dict[str, str] | None:
    """Return the non-empty scalars of a JSON object as text; None for what can't be read.

    Raw control characters are taken as escaped ones where the JSON is compact, else as blanks.
    """
    if not text.strip(BLANKS):
        return {}
    escaped = text.replace("\n", r"\n").replace("\r", r"\r").replace("\t", r"\t")
    mended = re.sub("[\x00-\x1f]", "", escaped), re.sub("[\x00-\x1f]", " ", text)
    loaded = next((found for each in (text, *mended) if (found := _loaded(each)) is not None), None)
    if loaded is None:
        return None
    if not isinstance(loaded, dict):
        return {}
    texts = {key: str(v).lower() if isinstance(v, bool) else v for key, v in loaded.items()}
    texts = {
        LONE_SURROGATE.sub("", key): LONE_SURROGATE.sub("", value)
        for key, value in texts.items()
        if isinstance(value, str)
    }
    return {key: value for key, value in texts.items() if isinstance(value, str) and value}


def _loaded(text: str) -> Any:  # noqa: ANN401 - whatever JSON holds
    """Return the JSON, numbers as they are written; None if invalid, like NaN and Infinity."""
    try:
        return json.loads(text, parse_int=str, parse_float=str, parse_constant=_refuse)
    except ValueError:
        return None


def _refuse(constant: str) -> str:
    raise ValueError(constant)


def _first_scalar(properties: Mapping[str, str], names: Iterable[str]) -> str | None:
    return next((properties[name] for name in names if name in properties), None)


def deduplicated(rows: list[Event]) -> list[Event]:
    """Return one row per uuid: latest ingestion, then latest time, then greatest MD5."""
    copies: dict[str, list[Event]] = {}
    for row in rows:
        copies.setdefault(row.uuid, []).append(row)
    return [
        max(group, key=lambda row: (nulls_first(row.ingested_at), row.at, row.text_hash))
        for group in copies.values()
    ]


def in_order(events: list[Event]) -> list[Event]:
    """Return the events by time, then by uuid."""
    return sorted(events, key=lambda event: (event.at, event.uuid))


def split_ids(
    metric_table: MetricTable, events: Iterable[Row]
) -> dict[str, tuple[datetime, datetime, int]]:
    """Return first and last time and number of valid rows of each split id."""
    return _extents(classify_rows(metric_table, events, None).split)


def quarantined(
    metric_table: MetricTable, events: Iterable[Row]
) -> dict[str, tuple[datetime, datetime, int]]:
    """Return the same of each piece that is kept out."""
    return _extents(classify_rows(metric_table, events, None).quarantined)


def _extents(found: Mapping[str, list[Event]]) -> dict[str, tuple[datetime, datetime, int]]:
    times = {key: [event.at for event in rows] for key, rows in found.items()}
    return {key: (time_of(min(each)), time_of(max(each)), len(each)) for key, each in times.items()}


def reasons(
    metric_table: MetricTable, events: Iterable[Row], *, exclusions: Exclusions | None = None
) -> dict[str, int]:
    """Return how many rows fell under each reason: together, all rows."""
    counted = classify_rows(metric_table, events, exclusions).reasons
    return {reason: counted[reason] for reason in REASONS}


def ties(
    metric_table: MetricTable, events: Iterable[Row], *, exclusions: Exclusions | None = None
) -> set[tuple[str, str]]:
    """Return the pairs of ids that events say to be one person's, with or without a session."""
    pairs = set()
    for row in events:
        outcome = read_row(metric_table, row, exclusions)
        is_ignored = row.get("event") in metric_table.ignored_events
        if is_ignored or (isinstance(outcome, str) and outcome != "no_session"):
            continue
        properties = _scalars(properties_text(row)) or {}
        distinct_id = trimmed(row.get("distinct_id"))
        other = trimmed(_first_scalar(properties, TYING.get(row.get("event") or "", [])))
        is_excluded = _is_excluded(distinct_id, properties, exclusions or Exclusions())
        if distinct_id and other and not is_excluded:
            pairs.add((distinct_id, other))
    return pairs
