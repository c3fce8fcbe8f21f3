"""What `posthog_aggregated.sessions` must contain, slowly and plainly: no engine, no pandas.

Written from the documents alone. Rows are dicts shaped like PostHog's export and the Firebase
tables; times are aware datetimes or ISO text. Every list and every choice follows a total order,
so the order of the input never matters.
"""

from __future__ import annotations

import hashlib
import itertools
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
    SECOND,
    micros,
    nulls_first,
    session_id_of,
    time_of,
    trimmed,
)
from oracle.people import Users, channels, read_documents

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, MutableMapping

    from sessions.metric_table import MetricTable

type Row = dict[str, Any]

FIRST_CREDIBLE_AT = (datetime(2018, 1, 1, tzinfo=UTC) - EPOCH) // timedelta(microseconds=1)
INGESTION_TOLERANCE = DAY
LONGEST_SESSION = 3 * DAY
PIECE_LIKE = re.compile("/[0-9]{4}-[0-9]{2}-[0-9]{2}/")
MOST_ROWS = 100_000
GAP_CAP = 30 * SECOND
ENGAGED = 10 * SECOND
ENGAGED_VIEWS = 2
NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")


SESSION_ID = ("$session_id", "session_id", "sessionId")
SCREEN = ("$screen_name", "screen_name")
TOUCH_Y = ("$touch_y", "touch_y")
HEIGHT = ("$screen_height", "$viewport_height")
SCROLL_DEPTH = ("$prev_pageview_max_scroll_percentage",)
CONTENT_DEPTH = ("$prev_pageview_max_content_percentage",)

SEPARATOR, NULL = "\x1f", "\x1e"

VIEWS = {"$pageview", "$screen"}
INVITATIONS = {"invite_friends", "send_invite_to_event", "invite_friends_for_report"}
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


def expected_sessions(  # noqa: PLR0913 - the four source tables, as they are
    metric_table: MetricTable,
    events: Iterable[Row],
    users: Iterable[Row],
    documents: Iterable[Row],
    posthog_sessions: Iterable[Row],
    *,
    exclusions: Exclusions | None = None,
    bad: MutableMapping[str, int] | None = None,
    known_split: Collection[str] = (),
) -> dict[str, Row]:
    """Return the row of each session, by session id, without the columns of the run itself.

    `bad` receives how many users have no id (`users`), and how many documents no id, creator or
    creation time (`documents`): they count nowhere. `known_split`: see `sort_out`.
    """
    people = Users(users)
    created = read_documents(documents)
    by_session = channels(posthog_sessions)
    if bad is not None:
        bad["users"] = people.bad
        bad["documents"] = created.bad
    rows: dict[str, Row] = {}
    sorting = sort_out(metric_table, events, exclusions, known_split)
    for session_id, valid in sorting.sessions.items():
        ordered = in_order(deduplicated(valid))
        row: Row = {"session_id": session_id} | _event_columns(ordered) | {"_days": _days(valid)}
        row["is_split"] = session_id in sorting.pieces
        row |= people.columns(row["distinct_ids"], ordered[0].at)
        row |= created.columns(row["user_id"], ordered[0].at, ordered[-1].at)
        row["channel_type"] = by_session.get(session_id)
        rows[session_id] = row
    return rows


def split_ids(
    metric_table: MetricTable, events: Iterable[Row]
) -> dict[str, tuple[datetime, datetime, int]]:
    """Return first and last time and number of valid rows of each id that is no session's."""
    return _extents(sort_out(metric_table, events, None).split)


def quarantined(
    metric_table: MetricTable, events: Iterable[Row]
) -> dict[str, tuple[datetime, datetime, int]]:
    """Return the same of each piece that is kept out."""
    return _extents(sort_out(metric_table, events, None).quarantined)


def _extents(found: Mapping[str, list[Event]]) -> dict[str, tuple[datetime, datetime, int]]:
    times = {key: [event.at for event in rows] for key, rows in found.items()}
    return {key: (time_of(min(each)), time_of(max(each)), len(each)) for key, each in times.items()}


def reasons(
    metric_table: MetricTable, events: Iterable[Row], *, exclusions: Exclusions | None = None
) -> dict[str, int]:
    """Return how many rows fell under each reason: together, all rows."""
    counted = sort_out(metric_table, events, exclusions).reasons
    return {reason: counted[reason] for reason in REASONS}


# Raw rows ----------------------------------------------------------------------------------------


def ties(
    metric_table: MetricTable, events: Iterable[Row], *, exclusions: Exclusions | None = None
) -> set[tuple[str, str]]:
    """Return the pairs of ids that events say to be one person's, with or without a session."""
    pairs = set()
    for row in events:
        outcome = read_row(metric_table, row, exclusions)
        if isinstance(outcome, str) and outcome != "no_session":
            continue
        properties = _scalars(properties_text(row)) or {}
        distinct_id = trimmed(row.get("distinct_id"))
        other = trimmed(_first_scalar(properties, TYING.get(row.get("event") or "", [])))
        is_excluded = _is_excluded(distinct_id, properties, exclusions or Exclusions())
        if distinct_id and other and not is_excluded:
            pairs.add((distinct_id, other))
    return pairs


def properties_text(row: Row) -> str:
    """Return the row's properties as the text that the source holds, '' for none."""
    properties = row.get("properties")
    if properties is None or isinstance(properties, str):
        return properties or ""
    return json.dumps(properties, ensure_ascii=False, separators=(",", ":"))


def sort_out(
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
        outcome = _read(row, declared, exclusions or Exclusions())
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
    return _read(row, _declared(metric_table), exclusions or Exclusions())


def _declared(metric_table: MetricTable) -> dict[tuple[str, ...], bool]:
    """Return the names of each declared property, and whether it is an id, which is trimmed.

    With its own columns they are what a row says.
    """
    ids = {item.names for item in metric_table.properties if item.kind == "id"}
    lists = (names for item in metric_table.properties for names in (item.names, item.per))
    return {names: names in ids for names in lists if names}


def _read(
    row: Row, declared: Mapping[tuple[str, ...], bool], exclusions: Exclusions
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
    session_id = session_id_of(_first_scalar(properties, SESSION_ID))
    if session_id is None:
        return "no_session"
    distinct_id = trimmed(row.get("distinct_id"))
    if _is_excluded(distinct_id, properties, exclusions):
        return "excluded"
    name = row.get("event") or ""
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
    """Return the JSON, numbers as they are written; None for what is none, as NaN and Infinity."""
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


def _days(valid: list[Event]) -> list[Row]:
    counted = Counter(time_of(row.at).date() for row in valid)
    return [{"day": day, "row_count": count} for day, count in sorted(counted.items())]


# The columns that follow from the events ---------------------------------------------------------


def _event_columns(events: list[Event]) -> Row:
    """Return every column that the session's events alone decide; they come in event order."""
    return (
        _who(events) | _when(events) | _volume(events) | _where(events) | _device(events)
        | _scrolling(events) | _behaviour(events) | _quality(events)
    )  # fmt: skip


def _who(events: list[Event]) -> Row:
    used = [event.distinct_id for event in reversed(events) if event.distinct_id]
    latest_first = list(dict.fromkeys(used))
    pairs = {
        (anonymous_id, event.distinct_id)
        for event in events
        if event.name == "$identify"
        and (anonymous_id := trimmed(event.first_of(["$anon_distinct_id"])))
        and event.distinct_id
    }
    return {
        "distinct_id": latest_first[0] if latest_first else None,
        "distinct_ids": latest_first[::-1],
        "identified": [{"anonymous_id": a, "distinct_id": d} for a, d in sorted(pairs)],
    }


def _when(events: list[Event]) -> Row:
    started_at, ended_at = events[0].at, events[-1].at
    gaps = [after.at - before.at for before, after in itertools.pairwise(events)]
    return {
        "session_date": time_of(started_at).date(),
        "started_at": time_of(started_at),
        "ended_at": time_of(ended_at),
        "duration_seconds": (ended_at - started_at) / SECOND,
        "engaged_seconds": sum(min(gap, GAP_CAP) for gap in gaps) / SECOND,
    }


def _volume(events: list[Event]) -> Row:
    counted = Counter(event.name for event in events)
    return {
        "event_count": len(events),
        "event_counts": [{"event": name, "count": n} for name, n in sorted(counted.items())],
        "pageview_count": counted["$pageview"],
        "screen_count": counted["$screen"],
        "autocapture_count": counted["$autocapture"],
        "rageclick_count": counted["$rageclick"],
    }


def _where(events: list[Event]) -> Row:
    views = [event for event in events if event.name in VIEWS] or events
    pageviews = [event for event in events if event.name == "$pageview"]
    screens = _values(views, SCREEN)
    urls = _values(views, ["$current_url"])
    return {
        "unique_screens": len(set(_values(events, SCREEN))),
        "unique_pages": len(set(_values(pageviews, ["$pathname"]))),
        "entry_screen": _first(screens),
        "exit_screen": _last(screens),
        "entry_url": _first(urls),
        "exit_url": _last(urls),
        "referring_domain": _first(_values(views, ["$referring_domain"])),
        "utm_source": _first(_values(views, ["utm_source"])),
        "utm_medium": _first(_values(views, ["utm_medium"])),
        "utm_campaign": _first(_values(views, ["utm_campaign"])),
    }


def _device(events: list[Event]) -> Row:
    return {
        "lib": _first(_values(events, ["$lib"])),
        "os": _first(_values(events, ["$os", "$os_name"])),
        "device_type": _first(_values(events, ["$device_type"])),
        "app_version": _first(_values(events, ["$app_version"])),
        "country": _first(_values(events, ["$geoip_country_name", "$geoip_country_code"])),
        "city": _first(_values(events, ["$geoip_city_name"])),
    }


def _scrolling(events: list[Event]) -> Row:
    max_scroll_depth = _deepest(event.number(SCROLL_DEPTH) for event in events)
    scroll_count = sum(map(_is_scroll, events))
    return {
        "max_scroll_depth": max_scroll_depth,
        "max_content_depth": _deepest(event.number(CONTENT_DEPTH) for event in events),
        "scroll_count": scroll_count,
        "touch_count": sum(
            event.name == "$autocapture" and event.number(TOUCH_Y) is not None for event in events
        ),
        "touch_reach": _deepest(map(_reach, events)),
        "scrolled": scroll_count > 0 or (max_scroll_depth or 0) > 0,
    }


def _is_scroll(event: Event) -> bool:
    gesture = event.name == "$autocapture" and event.first_of(["$event_type"])
    return event.name == "scroll" or gesture in {"scroll", "swipe"}


def _reach(event: Event) -> float | None:
    touch, height = event.number(TOUCH_Y), event.number(HEIGHT)
    if touch is None or height is None or height <= 0:
        return None
    return touch / height


def _behaviour(events: list[Event]) -> Row:
    counted = Counter(event.name for event in events)
    return {
        "viewed_event": counted["view_event"] > 0,
        "events_viewed": counted["view_event"],
        "joined_event": counted["join_event"] > 0,
        "events_joined": counted["join_event"],
        "invited_someone": not INVITATIONS.isdisjoint(counted),
        "enabled_contacts": any(
            "contact" in name.lower() and "enable" in name.lower() for name in counted
        ),
        "visited_discover": "Discover" in _values(events, SCREEN),
        "started_quiz": counted["start_quiz"] > 0,
        "completed_quiz": counted["finish_quiz"] > 0,
        "quiz_seconds": _quiz_seconds(events),
    }


def _quiz_seconds(events: list[Event]) -> float | None:
    start = next((i for i, event in enumerate(events) if event.name == "start_quiz"), None)
    if start is None:
        return None
    finished_at = next((e.at for e in events[start:] if e.name == "finish_quiz"), None)
    return None if finished_at is None else (finished_at - events[start].at) / SECOND


def _quality(events: list[Event]) -> Row:
    when, volume = _when(events), _volume(events)
    seen = volume["pageview_count"] + volume["screen_count"]
    acts = seen + volume["autocapture_count"]
    stayed = when["duration_seconds"] >= ENGAGED / SECOND
    return {
        "is_bounce": None if acts == 0 else not (acts > 1 or stayed),
        "is_engaged": when["engaged_seconds"] >= ENGAGED / SECOND or seen >= ENGAGED_VIEWS,
    }


def _values(events: Iterable[Event], names: Iterable[str]) -> list[str]:
    """Return the property's known values in event order."""
    found = (event.first_of(names) for event in events)
    return [value for value in found if value is not None]


def _first(values: list[str]) -> str | None:
    return values[0] if values else None


def _last(values: list[str]) -> str | None:
    return values[-1] if values else None


def _deepest(shares: Iterable[float | None]) -> float | None:
    """Return the greatest known share, each clipped to 0..1."""
    return max((min(max(share, 0.0), 1.0) for share in shares if share is not None), default=None)
