"""The generated app, as Arrow tables: the same for the same seed, and as messy as promised."""

from __future__ import annotations

import datetime as dt
import json
import re
from collections import Counter, defaultdict
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest

from sandbox.generator.history import Period, history
from sandbox.generator.next_day import Stored, next_day
from sandbox.tables import TABLE_NAMES, schema

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from sandbox.generator.history import Batch
    from sandbox.tables import TableName

type Row = Mapping[str, object]

PERIOD = Period(last_day=dt.date(2026, 3, 10), days=8)
MIDNIGHT_AFTER = dt.datetime(2026, 3, 11, tzinfo=dt.UTC)
JUNK = {"null", "undefined", "anonymous", "guest", "0"}


def _joined(batches: Iterable[Batch]) -> dict[TableName, pa.Table]:
    parts: dict[TableName, list[pa.Table]] = {name: [] for name in TABLE_NAMES}
    for batch in batches:
        for name, rows in batch.items():
            parts[name].append(rows)
    return {name: pa.concat_tables(tables) for name, tables in parts.items()}


def _history(seed: int = 1, sessions: int = 1_500) -> dict[TableName, pa.Table]:
    return _joined(history(seed=seed, sessions=sessions, period=PERIOD))


@dataclass(frozen=True)
class Generated:
    """The generated rows, with the properties of events parsed."""

    tables: Mapping[TableName, pa.Table]

    @cached_property
    def events(self) -> list[dict[str, object]]:
        """All events, with their properties parsed under `parsed`; None where malformed."""
        return [
            row | {"parsed": _parsed(row["properties"])}
            for row in self.tables["posthog_events"].to_pylist()
        ]

    @cached_property
    def sessions(self) -> dict[str, list[dict[str, object]]]:
        """The well-formed events that have a session id and a time, by session."""
        found = defaultdict(list)
        for row in self.events:
            properties = row["parsed"]
            if (
                isinstance(properties, dict)
                and (session := _session(properties))
                and row["timestamp"]
            ):
                found[session].append(row)
        return found

    @cached_property
    def users(self) -> list[dict[str, object]]:
        """All rows of Firebase's users."""
        return list(self.tables["firebase_users"].to_pylist())

    @cached_property
    def documents(self) -> list[dict[str, object]]:
        """All rows of Firebase's events."""
        return list(self.tables["firebase_events"].to_pylist())

    @cached_property
    def posthog_sessions(self) -> list[dict[str, object]]:
        """All rows of PostHog's sessions."""
        return list(self.tables["posthog_sessions"].to_pylist())

    def properties(self, name: str) -> list[object]:
        """Return every value of a property."""
        all_properties = [row["parsed"] for row in self.events]
        return [
            properties[name]
            for properties in all_properties
            if isinstance(properties, dict) and name in properties
        ]

    def ids(self) -> set[object]:
        """Return every distinct id."""
        return {row["distinct_id"] for row in self.events}


def _parsed(text: object) -> object:
    try:
        return json.loads(str(text))
    except ValueError:
        return None


def _session(properties: Mapping[str, object]) -> str:
    names = ("$session_id", "session_id", "sessionId")
    return next((str(properties[name]) for name in names if properties.get(name)), "")


@pytest.fixture(scope="module")
def generated() -> Generated:
    """The generated rows of eight days."""
    return Generated(_history())


def test_the_same_seed_gives_the_same_rows(generated: Generated) -> None:
    """Every cell of every table; another seed gives others."""
    again = _history()
    assert all(again[name].equals(generated.tables[name]) for name in TABLE_NAMES)
    other = _history(seed=2, sessions=100)["posthog_events"]
    assert not set(other["uuid"].to_pylist()) & set(
        generated.tables["posthog_events"]["uuid"].to_pylist()
    ) - {None}


@pytest.mark.parametrize("table", TABLE_NAMES)
def test_tables_have_their_columns_in_order(generated: Generated, table: TableName) -> None:
    """A forgotten column would be noticed."""
    assert generated.tables[table].column_names == [field.name for field in schema(table, "string")]


def _uuid_rows(generated: Generated) -> Mapping[object, list[dict[str, object]]]:
    rows = defaultdict(list)
    for row in generated.events:
        if row["uuid"] is not None:
            rows[row["uuid"]].append(row)
    return rows


def _redelivered_later(generated: Generated) -> bool:
    return any(
        len({row["bq_ingested_timestamp"] for row in rows}) > 1
        and len({row["timestamp"] for row in rows}) == 1
        for rows in _uuid_rows(generated).values()
    )


def _redelivered_exactly(generated: Generated) -> bool:
    return any(
        max(Counter(str(row) for row in rows).values()) > 1
        for rows in _uuid_rows(generated).values()
    )


def _lateness(row: Row) -> dt.timedelta:
    happened, ingested = row["timestamp"], row["bq_ingested_timestamp"]
    if isinstance(happened, dt.datetime) and isinstance(ingested, dt.datetime):
        return ingested - happened
    return dt.timedelta()


def _ids_of(rows: Iterable[Row]) -> set[object]:
    return {row["distinct_id"] for row in rows}


def _signs_in_within_a_session(generated: Generated) -> bool:
    users = {row["user_id"] for row in generated.users}
    for rows in generated.sessions.values():
        for row in rows:
            properties = row["parsed"]
            if row["event"] == "$identify" and isinstance(properties, dict):
                anonymous = properties["$anon_distinct_id"]
                if row["distinct_id"] in users and {anonymous, row["distinct_id"]} <= _ids_of(rows):
                    return True
    return False


def _spans(rows: Iterable[Row]) -> tuple[dt.datetime, dt.datetime]:
    times = [t for row in rows if isinstance(t := row["timestamp"], dt.datetime)]
    sane = [t for t in times if dt.datetime(2018, 1, 1, tzinfo=dt.UTC) < t < MIDNIGHT_AFTER]
    return min(sane or times), max(sane or times)


def _crosses_midnight(generated: Generated) -> bool:
    spans = (_spans(rows) for rows in generated.sessions.values())
    return any(
        last.date() - first.date() == dt.timedelta(days=1) and last - first < dt.timedelta(hours=9)
        for first, last in spans
    )


def _clock_put_back(generated: Generated) -> bool:
    """Whether a session's events, in the order in which they were generated, go back in time."""
    for rows in generated.sessions.values():
        first_copies = {row["uuid"]: row for row in reversed(rows) if row["uuid"] is not None}
        times = [row["timestamp"] for row in rows if row is first_copies.get(row["uuid"])]
        for before, after in pairwise(t for t in times if isinstance(t, dt.datetime)):
            if dt.timedelta() < before - after < dt.timedelta(hours=1):
                return True
    return False


def _signs_up_within_a_session(generated: Generated) -> bool:
    created = {row["user_id"]: row["createdAt"] for row in generated.users}
    for rows in generated.sessions.values():
        first, last = _spans(rows)
        for row in rows:
            at = created.get(row["distinct_id"])
            if row["event"] == "$identify" and isinstance(at, dt.datetime) and first <= at <= last:
                return True
    return False


def _digits(text: object) -> str:
    return re.sub(r"\D", "", str(text))


def _phones(generated: Generated) -> set[str]:
    return {_digits(row["phoneNumber"]) for row in generated.users if row["phoneNumber"]}


def _identified_by_formatted_phone(generated: Generated) -> bool:
    formatted = {i for i in generated.ids() if re.fullmatch(r"\+?[\d ()-]*[ ()-][\d ()-]*", str(i))}
    return bool({_digits(i) for i in formatted} & _phones(generated))


def _identified_by_plain_phone(generated: Generated) -> bool:
    return bool(
        generated.ids() & {row["phoneNumber"] for row in generated.users if row["phoneNumber"]}
    )


def _identified_by_email(generated: Generated) -> bool:
    emails = {str(row["email"]).lower() for row in generated.users if row["email"]}
    return bool({str(i).lower() for i in generated.ids()} & emails)


def _shares_a_phone(generated: Generated) -> bool:
    owners = defaultdict(set)
    for row in generated.users:
        if row["phoneNumber"]:
            owners[row["phoneNumber"]].add(row["user_id"])
    return any(len(users) > 1 for users in owners.values())


def _repeated(rows: Iterable[Row], key: str) -> bool:
    loads = defaultdict(set)
    for row in rows:
        loads[row[key]].add(row["etl_loaded_at"])
    return any(len(times) > 1 for identity, times in loads.items() if identity is not None)


def _documents_within_sessions(generated: Generated) -> bool:
    users = {row["user_id"]: row for row in generated.users}
    spans = defaultdict(list)
    for rows in generated.sessions.values():
        for identity in _ids_of(rows):
            spans[identity].append(_spans(rows))
    inside = [
        row
        for row in generated.documents
        if row["user_id"] in users
        and isinstance(at := row["createdAt"], dt.datetime)
        and any(first <= at <= last for first, last in spans[row["user_id"]])
    ]
    return {row["type"] for row in inside} >= {"base", "checkin", "fundraising", "ticketed"}


def _posthog_misses_sessions(generated: Generated) -> bool:
    return bool(
        set(generated.sessions) - {str(row["session_id"]) for row in generated.posthog_sessions}
    )


def _posthog_is_stale(generated: Generated) -> bool:
    return any(
        isinstance(end := row["end_timestamp"], dt.datetime)
        and (rows := generated.sessions.get(str(row["session_id"])))
        and _spans(rows)[1] - end > dt.timedelta(seconds=1)
        for row in generated.posthog_sessions
    )


def _stamps_the_screen(generated: Generated) -> bool:
    return any(
        isinstance(properties := row["parsed"], dict)
        and properties["$lib"] == "posthog-react-native"
        and "$screen_name" in properties
        and row["event"] not in {"$screen", "$autocapture"}
        for rows in generated.sessions.values()
        for row in rows
    )


def _mobile_has_no_os(generated: Generated) -> bool:
    all_properties = [row["parsed"] for row in generated.events]
    mobile = [
        s for s in all_properties if isinstance(s, dict) and s.get("$lib") == "posthog-react-native"
    ]
    return bool(mobile) and all(
        "$os_name" in properties and "$os" not in properties for properties in mobile
    )


def _has_hard_coded_session(generated: Generated) -> bool:
    first, last = _spans(generated.sessions["test-session"])
    return last - first > dt.timedelta(days=3)


EVENT_NAMES = {
    "$screen", "$pageview", "$pageleave", "$autocapture", "$rageclick", "$identify", "view_event",
    "join_event", "create_event", "invite_friends", "send_invite_to_event",
    "invite_friends_for_report", "start_quiz", "answer_quiz", "finish_quiz",
    "Enable Contacts Tapped", "contacts_sync_enabled",
}  # fmt: skip
PROPERTY_NAMES = (
    "$touch_x", "$touch_y", "touch_y", "$screen_height", "$viewport_height", "$event_type",
    "$screen_name", "screen_name", "$current_url", "$pathname", "$referring_domain", "utm_source",
    "utm_medium", "utm_campaign", "$prev_pageview_max_scroll_percentage",
    "$prev_pageview_max_content_percentage", "$geoip_city_name", "$geoip_country_name",
    "$geoip_country_code", "$os", "$os_name", "$app_version", "$device_type", "$is_emulator",
    "$browser_type", "session_id", "sessionId",
)  # fmt: skip
MESSES: dict[str, Callable[[Generated], bool]] = {
    "a sign-in within a session": _signs_in_within_a_session,
    "a sign-up within a session": _signs_up_within_a_session,
    "a copy ingested later": _redelivered_later,
    "an exact copy": _redelivered_exactly,
    "rows days late": lambda g: any(_lateness(row) > dt.timedelta(days=2) for row in g.events),
    "a clock put back within a session": _clock_put_back,
    "a time long after ingestion": lambda g: any(
        _lateness(row) < -dt.timedelta(hours=24) for row in g.events
    ),
    "a time before 2018": lambda g: any(
        isinstance(t := row["timestamp"], dt.datetime) and t.year < 2018 for row in g.events
    ),
    "a null time": lambda g: any(row["timestamp"] is None for row in g.events),
    "a null ingestion time": lambda g: any(
        row["bq_ingested_timestamp"] is None for row in g.events
    ),
    "every junk id": lambda g: g.ids() >= JUNK,
    "an empty distinct id": lambda g: "" in g.ids(),
    "a null uuid": lambda g: any(row["uuid"] is None for row in g.events),
    "a null event name": lambda g: any(row["event"] is None for row in g.events),
    "an empty session id": lambda g: "" in g.properties("$session_id"),
    "malformed JSON": lambda g: any(row["parsed"] is None for row in g.events),
    "server events without session": lambda g: "posthog-node" in g.properties("$lib"),
    "users who share a phone": _shares_a_phone,
    "users identified by phone": _identified_by_plain_phone,
    "users identified by a phone with spaces and dashes": _identified_by_formatted_phone,
    "users identified by e-mail": _identified_by_email,
    "users without creation time": lambda g: any(row["createdAt"] is None for row in g.users),
    "repeated users": lambda g: _repeated(g.users, "user_id"),
    "repeated documents": lambda g: _repeated(g.documents, "document_id"),
    "documents without creator": lambda g: any(row["user_id"] is None for row in g.documents),
    "documents made within sessions": _documents_within_sessions,
    "sessions that PostHog's table misses": _posthog_misses_sessions,
    "stale sessions in PostHog's table": _posthog_is_stale,
    "channels": lambda g: len({row["channel_type"] for row in g.posthog_sessions}) >= 5,
    "sessions across midnight": _crosses_midnight,
    "a hard-coded session id": _has_hard_coded_session,
    "the screen on events after it": _stamps_the_screen,
    "mobile events with $os_name alone": _mobile_has_no_os,
    "every event name": lambda g: {row["event"] for row in g.events} >= EVENT_NAMES,
    "every property": lambda g: all(g.properties(name) for name in PROPERTY_NAMES),
}


@pytest.mark.parametrize("mess", MESSES)
def test_the_app_is_messy(generated: Generated, mess: str) -> None:
    """The generated rows contain this mess."""
    assert MESSES[mess](generated)


def test_session_ids_are_uuid7_of_their_start(generated: Generated) -> None:
    """Version 7; the first 48 bits are the session's start, where its first event has arrived."""
    sessions = {s: rows for s, rows in generated.sessions.items() if s != "test-session"}
    pattern = r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
    assert all(re.fullmatch(pattern, session) for session in sessions)
    starts = {s: int(s[:8] + s[9:13], 16) for s in sessions}
    matches = [
        starts[s] == round(_spans(rows)[0].timestamp() * 1_000) for s, rows in sessions.items()
    ]
    assert sum(matches) > 0.9 * len(matches)


def test_phones_and_emails_belong_to_nobody(generated: Generated) -> None:
    """Only +1555 numbers and addresses at example.com."""
    assert all(str(row["phoneNumber"] or "+1555").startswith("+1555") for row in generated.users)
    assert all(
        str(row["email"] or "@example.com").endswith("@example.com") for row in generated.users
    )


def test_nothing_arrives_after_the_last_export(generated: Generated) -> None:
    """Rows ingested or loaded after the night that follows the last day are left out."""
    export = MIDNIGHT_AFTER + dt.timedelta(hours=6)
    columns: list[tuple[TableName, str]] = [
        ("posthog_events", "bq_ingested_timestamp"),
        ("firebase_users", "etl_loaded_at"),
        ("firebase_events", "etl_loaded_at"),
    ]
    for table, column in columns:
        times = [t for t in generated.tables[table][column].to_pylist() if t is not None]
        assert max(times) <= export


@pytest.fixture(scope="module")
def stored(generated: Generated) -> Stored:
    """The stored rows that a next day continues."""
    users = {row["user_id"]: row for row in generated.users}
    return Stored(
        newest_day=PERIOD.last_day,
        users=list(users.values()),
        events=generated.tables["posthog_events"].slice(5_000, 40),
        documents=generated.tables["firebase_events"].slice(0, 4),
        sessions=generated.tables["posthog_sessions"].slice(0, 4),
    )


def test_the_next_day_is_the_same_for_the_same_tables(stored: Stored) -> None:
    """In every cell of every table."""
    one, two = (_joined(next_day(stored, seed=1, sessions=100)) for _ in range(2))
    assert all(one[name].equals(two[name]) for name in TABLE_NAMES)


def test_the_next_day_has_known_and_new_users(stored: Stored, generated: Generated) -> None:
    """Both have events, and rows in the table of users."""
    rows = _joined(next_day(stored, seed=1, sessions=200))
    known = {row["user_id"] for row in generated.users}
    users = set(rows["firebase_users"]["user_id"].to_pylist())
    ids = set(rows["posthog_events"]["distinct_id"].to_pylist())
    assert users - known
    assert users & known
    assert ids & known
    assert ids & (users - known)


def test_the_next_day_arrives_on_that_day(stored: Stored) -> None:
    """All rows are ingested from its midnight on, although some are of earlier days."""
    events = _joined(next_day(stored, seed=1, sessions=200))["posthog_events"].to_pylist()
    ingested = [t for row in events if (t := row["bq_ingested_timestamp"])]
    assert min(ingested) >= MIDNIGHT_AFTER
    assert max(ingested) < MIDNIGHT_AFTER + dt.timedelta(hours=30)
    days = Counter(row["timestamp"].date() for row in events if row["timestamp"])
    assert sum(days[PERIOD.last_day - dt.timedelta(days=n)] for n in range(5)) > 50
    assert days[MIDNIGHT_AFTER.date()] > 1_000
