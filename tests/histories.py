"""Random messy source rows, as Hypothesis strategies: small pools, so that rows meet and tie."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

type Row = dict[str, Any]

FIRST_DAY = datetime(2026, 10, 1, tzinfo=UTC)

# The same rows each time, without Hypothesis's own database and limits of time.
THE_SAME = settings(
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)

_NAMES = (
    "$pageview", "$screen", "$autocapture", "$rageclick", "$identify", "$pageleave", "scroll",
    "start_quiz", "finish_quiz", "view_event", "join_event", "send_invite_to_event",
    "Contacts_Enabled", "enable", "", None,
)  # fmt: skip
_IDS = ("anon-1", "anon-2", "u1", "U1", "+1 (555) 010-0001", "15550100001", "A@Example.com",
        "guest", "NULL", "0", "", None, "naïve 🙂")  # fmt: skip
_NUMBERS = (
    0,
    1,
    0.25,
    -1,
    2,
    "0.5",
    "1e2",
    "NaN",
    "Infinity",
    "1e999",
    "12abc",
    " 1",
    True,
    None,
    "",
)
_TEXTS = ("a", "b", "Discover", "", None, 7, ["list"], {"an": "object"}, "O'Neil; DROP TABLE", "é")
_PROPERTIES = {
    "$screen_name": _TEXTS,
    "screen_name": _TEXTS,
    "$current_url": ("https://a.example.com/", "https://b.example.com/", None),
    "$pathname": ("/", "/b", "", None),
    "$referring_domain": ("$direct", "x.example.com"),
    "utm_source": _TEXTS,
    "$lib": ("web", "posthog-react-native", None),
    "$os": ("iOS", "", None),
    "$os_name": ("Android",),
    "$app_version": ("1.0", 2, 1.5),
    "$geoip_country_name": ("France", ""),
    "$geoip_country_code": ("FR", "DE"),
    "$event_type": ("touch", "scroll", "swipe", "click"),
    "$touch_y": _NUMBERS,
    "touch_y": _NUMBERS,
    "$screen_height": (800, 0, -5, "tall", None, "100"),
    "$viewport_height": (600, "1e308"),
    "$prev_pageview_max_scroll_percentage": _NUMBERS,
    "$prev_pageview_max_content_percentage": _NUMBERS,
    "$anon_distinct_id": ("anon-1", "anon-2", "", None),
}


def iso(moment: datetime) -> str:
    """The time as the tables hold it."""
    return moment.isoformat()


def text(values: Row) -> str:
    """The JSON as a JSON column gives it back: where rows tie, the MD5 of their text decides."""
    return json.dumps(values, ensure_ascii=False, separators=(",", ":"))


@st.composite
def properties(draw: st.DrawFn, day: int) -> str | None:
    """JSON text, seldom malformed or absent; most session ids belong to a day or the one before."""
    kind = draw(st.sampled_from(["object"] * 20 + ["malformed", "absent", "list"]))
    if kind != "object":
        return {"malformed": '{"$session_id": "s1", ', "absent": None, "list": "[1]"}[kind]
    chosen = draw(st.lists(st.sampled_from(sorted(_PROPERTIES)), max_size=6, unique=True))
    values: Row = {name: draw(st.sampled_from(_PROPERTIES[name])) for name in chosen}
    key = draw(st.sampled_from(["$session_id"] * 6 + ["session_id", "sessionId"]))
    of_day = [f"{name}-{max(0, day - back)}" for name in ("s", "t", "S", "sé") for back in (0, 1)]
    too_long = ["hard-coded", "hard-coded/2026-10-02/u1"]  # the second is spelled like a piece
    values[key] = draw(st.sampled_from([*of_day, *of_day, *of_day, *too_long, "", None]))
    return text(values)


@st.composite
def events(draw: st.DrawFn, *, days: int = 6) -> Row:
    """One row of the events table."""
    day = draw(st.integers(0, days - 1))
    second = draw(st.sampled_from([0, 1, 2, 9, 30, 31, 3600, 86_398, 86_399]))
    micros = draw(st.sampled_from([0, 0, 1, 999_999]))
    at = FIRST_DAY + timedelta(days=day, seconds=second, microseconds=micros)
    late = draw(st.sampled_from([60, 60, 60, 3600, 86_400 * 2, -3600, -86_400 * 2, None]))
    usual = [iso(at)] * 40
    return {
        "uuid": draw(st.sampled_from([f"e{n}" for n in range(12)] + ["", None])),
        "event": draw(st.sampled_from(_NAMES)),
        "properties": draw(properties(day)),
        "distinct_id": draw(st.sampled_from(_IDS)),
        "timestamp": draw(st.sampled_from([*usual, None, iso(at.replace(year=2017))])),
        "bq_ingested_timestamp": None if late is None else iso(at + timedelta(seconds=late)),
    }


@st.composite
def identifications(draw: st.DrawFn) -> Row:
    """One row that ties an id to another, in a session or from a server: rare among `events`."""
    event = draw(st.sampled_from(["$identify", "$identify", "$create_alias", "$merge_dangerously"]))
    anonymous_id = draw(st.sampled_from(["anon-1", "anon-2", "naïve 🙂", "Guest", "u2"]))
    session_id = draw(st.sampled_from(["s-0", "s-1", "t-2", "sé-4", "S-5", None]))
    name = "$anon_distinct_id" if event == "$identify" else "alias"
    values = {"$session_id": session_id, name: anonymous_id}
    distinct_id = draw(st.sampled_from(["u1", "u1", "u2", "15550100001", "a@example.com", "NULL"]))
    row = {"event": event, "distinct_id": distinct_id, "properties": text(values)}
    return draw(events()) | row


@st.composite
def users(draw: st.DrawFn) -> Row:
    """One row of the users table."""
    created = draw(st.sampled_from([None, -400, -1, 3]))
    return {
        "user_id": draw(st.sampled_from(["u1", "u2", "u3", "guest", "", None])),
        "phoneNumber": draw(st.sampled_from(["+15550100001", "+1 555 0100001", "12345", None])),
        "email": draw(st.sampled_from(["a@example.com", "A@EXAMPLE.com", "", None])),
        "createdAt": None if created is None else iso(FIRST_DAY + timedelta(days=created)),
        "etl_loaded_at": draw(
            st.sampled_from([None, iso(FIRST_DAY), iso(FIRST_DAY + timedelta(1))])
        ),
    }


@st.composite
def documents(draw: st.DrawFn) -> Row:
    """One row of Firebase's events table."""
    day, second = draw(st.integers(0, 5)), draw(st.sampled_from([0, 31, 91, 3600, 86_399]))
    return {
        "document_id": draw(st.sampled_from(["d1", "d2", "d3", "d4", "", None])),
        "user_id": draw(st.sampled_from(["u1", "users/u1", "u2", "", None])),
        "createdAt": draw(
            st.sampled_from([iso(FIRST_DAY + timedelta(days=day, seconds=second))] * 5 + [None])
        ),
        "type": draw(st.sampled_from(["base", "checkin", None, "ticketed"])),
        "etl_loaded_at": draw(
            st.sampled_from([None, iso(FIRST_DAY), iso(FIRST_DAY + timedelta(1))])
        ),
    }


@st.composite
def posthog_sessions(draw: st.DrawFn) -> Row:
    """One row of PostHog's own sessions table."""
    return {
        "session_id": draw(st.sampled_from(["s-0", "s-1", "t-2", None])),
        "end_timestamp": draw(
            st.sampled_from([None, iso(FIRST_DAY), iso(FIRST_DAY + timedelta(1))])
        ),
        "channel_type": draw(st.sampled_from(["Direct", "Paid Search", None])),
    }
