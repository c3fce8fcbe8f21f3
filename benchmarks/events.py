"""Events as the engine receives them, made up from a seed: the product's own statement ships them.

The rows of a messy app are drawn column by column, and `batches_sql`, run by DuckDB, numbers them
and leaves out what does not travel. So the nulls are those of a real download.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, get_args

import duckdb
import numpy as np
import pyarrow as pa

from sessions.projection import batches_sql, downloaded_columns
from tests.shipped import METRIC_TABLE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    type Ints = NDArray[np.int64]
    type Mask = NDArray[np.bool_]

Order = Literal["download", "random"]
ORDERS: Final[tuple[Order, ...]] = get_args(Order)
EVENTS_PER_SESSION: Final = 40
_PAGE_ROWS: Final = 65_536  # some 10 MB of Arrow, like a message of the Storage API
_FEWEST_PAGES: Final = 16

_SECOND: Final = 1_000_000
_DAY: Final = 24 * 3600 * _SECOND
_START: Final = 1_790_000_000 * _SECOND
_LONGEST_SESSION: Final = 4_000  # events
_WEB_SHARE: Final = 0.4
_PAUSE_SHARE: Final = 0.05  # of gaps, in which the user put the app away
_SAME_MOMENT_SHARE: Final = 0.03
_NAMES: Final = (
    "$autocapture", "$screen", "$pageview", "$pageleave", "$identify", "$rageclick", "$set",
    "Application Opened", "Application Became Active", "Application Backgrounded", "view_event",
    "join_event", "create_event", "check_in", "invite_friends", "send_invite_to_event",
    "invite_friends_for_report", "Enable Contacts Tapped", "contacts_sync_enabled", "start_quiz",
    "answer_quiz", "finish_quiz", "search", "scroll", "message_sent", "notification_opened",
    *(f"feature_{number:02}_used" for number in range(34)),
)  # fmt: skip
_COMMON: Final = {
    "$identify": 0.4, "view_event": 10, "join_event": 2, "create_event": 0.6, "check_in": 0.5,
    "invite_friends": 0.5, "send_invite_to_event": 0.4, "invite_friends_for_report": 0.1,
    "Enable Contacts Tapped": 0.15, "contacts_sync_enabled": 0.1, "start_quiz": 0.5,
    "answer_quiz": 2, "finish_quiz": 0.4, "search": 3, "message_sent": 3, "$set": 1,
    **{f"feature_{number:02}_used": 6 / (number + 1) for number in range(34)},
}  # fmt: skip
_MOBILE: Final = _COMMON | {
    "$autocapture": 40, "$screen": 22, "Application Opened": 2, "Application Became Active": 2,
    "Application Backgrounded": 2, "notification_opened": 1, "scroll": 1,
}  # fmt: skip
_WEB: Final = _COMMON | {"$autocapture": 30, "$pageview": 18, "$pageleave": 14, "$rageclick": 1}
_SCREENS: Final = ("Discover", *(f"Screen{number:02}" for number in range(1, 40)))
_TYPES: Final = ("touch", "click", "submit", "change", "scroll", "swipe")
_DEVICE: Final = {
    "os": ("iOS", "Android", "Mac OS X", "Windows", "Linux"),
    "device_type": ("Mobile", "Desktop", "Tablet"),
    "app_version": tuple(f"{major}.{minor}.0" for major in range(2, 5) for minor in range(12)),
    "country": tuple(f"Country {number}" for number in range(60)),
    "city": tuple(f"City {number}" for number in range(3_000)),
}
_SOURCES: Final = {
    "referring_domain": ("$direct", "www.google.com", "instagram.com", "t.co", "bing.com"),
    "utm_source": ("newsletter", "instagram", "google", "partner"),
    "utm_medium": ("email", "social", "cpc"),
    "utm_campaign": tuple(f"campaign-{number}" for number in range(50)),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Visits:
    """The sessions, and of each event its session, place in it, time and name (by `_NAMES`)."""

    rng: np.random.Generator
    session: Ints
    place: Ints
    is_web: Mask  # of a session
    name: Ints
    event_at: Ints

    def are(self, *names: str) -> Mask:
        return np.isin(self.name, [_NAMES.index(name) for name in names])

    def some(self, share: float) -> Mask:
        return self.rng.random(len(self.name)) < share

    def some_sessions(self, share: float) -> Mask:
        return self.rng.random(len(self.is_web)) < share


def events(count: int, *, order: Order = "download", seed: int = 1) -> pa.Table:
    """That many events of `count // EVENTS_PER_SESSION` sessions, in pages.

    `order`: `download` is how the rows come from the staging table, session by session as its
    window left them, the sessions in no order, and some pages out of turn, as parallel streams
    deliver them. `random` is what the engine is promised at worst.
    """
    rng = np.random.default_rng(seed)
    visits = _visits(rng, count)
    downloaded = _downloaded(_projected(visits), len(visits.is_web))
    turn = rng.permutation(len(visits.is_web))[visits.session]
    in_turn = np.argsort(turn, kind="stable") if order == "download" else rng.permutation(count)
    rows = downloaded.take(pa.array(in_turn)).combine_chunks()
    pages = rows.to_batches(max_chunksize=min(_PAGE_ROWS, count // _FEWEST_PAGES + 1))
    for late in range(2, len(pages) - 1, 5):
        pages[late], pages[late + 1] = pages[late + 1], pages[late]
    return pa.Table.from_batches(pages, downloaded.schema)


def _visits(rng: np.random.Generator, count: int) -> _Visits:
    sizes = _sizes(rng, count, max(count // EVENTS_PER_SESSION, 1))
    session = np.repeat(np.arange(len(sizes)), sizes)
    place = np.arange(count) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    is_web = rng.random(len(sizes)) < _WEB_SHARE
    gaps = rng.exponential(8, count)
    gaps[rng.random(count) < _PAUSE_SHARE] *= 20
    gaps[(place == 0) | (rng.random(count) < _SAME_MOMENT_SHARE)] = 0
    elapsed = np.cumsum((gaps * 1_000).astype(np.int64) * 1_000)
    starts = _START + (rng.random(len(sizes)) * 30 * _DAY).astype(np.int64)
    return _Visits(
        rng=rng,
        session=session,
        place=place,
        is_web=is_web,
        name=_names(rng, is_web[session]),
        event_at=starts[session] + elapsed - elapsed[place == 0][session],
    )


def _sizes(rng: np.random.Generator, count: int, sessions: int) -> Ints:
    """How many events each session has: a few have thousands, most under twenty."""
    drawn = np.minimum(rng.lognormal(0, 1.3, sessions), _LONGEST_SESSION / EVENTS_PER_SESSION)
    weights = np.cumsum(drawn / drawn.sum())
    ends = np.arange(1, sessions + 1) + np.floor(weights * (count - sessions)).astype(np.int64)
    ends[-1] = count
    return np.diff(ends, prepend=0)


def _names(rng: np.random.Generator, is_web: Mask) -> Ints:
    names = np.empty(len(is_web), np.int64)
    for where, habits in ((is_web, _WEB), (~is_web, _MOBILE)):
        weights = np.fromiter(habits.values(), np.float64)
        codes = np.array([_NAMES.index(name) for name in habits])
        names[where] = rng.choice(codes, int(where.sum()), p=weights / weights.sum())
    return names


def _projected(visits: _Visits) -> pa.Table:
    """The rows as the projection leaves them, every property on every event that has it."""
    count = len(visits.name)
    columns = {
        "session_id": pa.array(visits.session),
        "uuid": pa.array(np.arange(count)),
        "event": _texts(_NAMES, visits.name),
        "event_at": pa.array(visits.event_at, pa.timestamp("us", "UTC")),
        "ingested_at": pa.array(visits.event_at + _SECOND, pa.timestamp("us", "UTC")),
        "row_hash": pa.array(np.arange(count)),
        "reason": pa.nulls(count, pa.string()),
        **_who(visits),
        **_screens(visits),
        **_pages(visits),
        **_devices(visits),
        **_touches(visits),
    }
    return pa.table(columns)


def _who(visits: _Visits) -> dict[str, pa.Array]:
    """Half the sessions are anonymous, and some sign in on the way, by a $identify event."""
    sessions = len(visits.is_web)
    signs_in_at = np.where(visits.some_sessions(0.4), 0, _LONGEST_SESSION)
    signs_in = visits.some_sessions(0.15)
    signs_in_at[signs_in] = visits.rng.integers(1, 20, int(signs_in.sum()))
    anonymous = [f"0192f3a4-7b5c-7d1e-8f90-{number:012x}" for number in range(sessions)]
    people = max(sessions // 6, 1)
    users = [f"user{number:024x}" for number in range(people)]
    user = sessions + visits.rng.integers(0, people, sessions)
    is_signed_in = visits.place >= signs_in_at[visits.session]
    codes = np.where(is_signed_in, user[visits.session], visits.session)
    ties = visits.are("$identify") & is_signed_in
    return {
        "distinct_id": _texts(anonymous + users, codes, visits.some(0.999)),
        "anonymous_id": _texts(anonymous, visits.session, ties),
    }


def _screens(visits: _Visits) -> dict[str, pa.Array]:
    """In apps every event after the first $screen has its name; 2 % have none."""
    shown = _last_drawn(visits, visits.are("$screen"), len(_SCREENS))
    is_app = ~visits.is_web[visits.session]
    return {"screen_name": _texts(_SCREENS, shown, (shown >= 0) & is_app & visits.some(0.98))}


def _pages(visits: _Visits) -> dict[str, pa.Array]:
    """On the web every event has an address, and each session's first says where it came from."""
    is_web = visits.is_web[visits.session]
    paths = [f"/event/{number}" for number in range(2_000)]
    urls = [f"https://app.example.com{path}?from=list&page={len(path)}" for path in paths]
    page = _last_drawn(visits, visits.are("$pageview") | (visits.place == 0), len(paths))
    columns = {
        "pathname": _texts(paths, page, is_web),
        "current_url": _texts(urls, page, is_web),
    }
    has_campaign = visits.some_sessions(0.15)
    for name, values in _SOURCES.items():
        has = is_web if name == "referring_domain" else is_web & has_campaign[visits.session]
        columns[name] = _of_sessions(visits, values, has)
    return columns


def _devices(visits: _Visits) -> dict[str, pa.Array]:
    libs = np.where(visits.is_web, 0, 1)[visits.session]
    columns = {"lib": _texts(("web", "posthog-react-native"), libs)}
    for name, values in _DEVICE.items():
        known = visits.some_sessions(0.97)[visits.session] & visits.some(0.99)
        columns[name] = _of_sessions(visits, values, known)
    return columns


def _touches(visits: _Visits) -> dict[str, pa.Array]:
    """Captured touches in apps, and scroll depths of pages that were left on the web."""
    count, is_web = len(visits.name), visits.is_web[visits.session]
    captured = visits.are("$autocapture")
    kinds = visits.rng.choice(len(_TYPES), count, p=(0.5, 0.3, 0.05, 0.05, 0.07, 0.03))
    left = (visits.are("$pageleave") | visits.are("$pageview")) & (visits.place > 0)
    touch = np.round(visits.rng.random(count) * 850, 1)
    touched = captured & ~is_web & visits.some(0.8)
    depth = np.round(visits.rng.random(count), 4)
    return {
        "event_type": _texts(_TYPES, kinds, captured),
        "touch_y": pa.array(touch, mask=~touched),
        "touch_reach": pa.array(np.minimum(touch / 844, 1), mask=~touched),
        "scroll_depth": pa.array(depth, mask=~(left & is_web)),
        "content_depth": pa.array(np.minimum(depth + 0.2, 1), mask=~(left & is_web)),
    }


def _last_drawn(visits: _Visits, shows: Mask, kinds: int) -> Ints:
    """Of each event what the session's last showing event drew; -1 before the first one."""
    count = len(shows)
    drawn = (visits.rng.random(count) ** 2 * kinds).astype(np.int64)
    last = np.maximum.accumulate(np.where(shows, np.arange(count), -1))
    return np.where((last >= 0) & (visits.session[last] == visits.session), drawn[last], -1)


def _of_sessions(visits: _Visits, values: Sequence[str], known: Mask) -> pa.Array:
    drawn = (visits.rng.random(len(visits.is_web)) ** 2 * len(values)).astype(np.int64)
    return _texts(values, drawn[visits.session], known)


def _texts(values: Sequence[str], codes: Ints, known: Mask | None = None) -> pa.Array:
    indices = pa.array(codes.astype(np.int32), mask=None if known is None else ~known)
    return pa.DictionaryArray.from_arrays(indices, pa.array(values, pa.string()))


def _downloaded(projected: pa.Table, sessions: int) -> pa.Table:
    """What the product's statement leaves of the rows, session by session in event order."""
    numbers = np.arange(sessions)
    planned = pa.table(
        {
            "session_id": numbers,
            "session_no": numbers,
            "batch": np.zeros(sessions, np.int64),
            "is_quarantined": np.zeros(sessions, np.bool_),
        }
    )
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.register("projected", projected)
        connection.register("planned", planned)
        downloaded = batches_sql(METRIC_TABLE, projected="projected", planned="planned")
        columns = ", ".join(downloaded_columns(METRIC_TABLE))
        statement = f"SELECT {columns} FROM ({downloaded}) ORDER BY session_no, event_no"
        table = connection.execute(statement).to_arrow_table()
    return table.cast(pa.schema([field.with_type(_type_of(field.name)) for field in table.schema]))


def _type_of(name: str) -> pa.DataType:
    if name in {"session_no", "event_no"}:
        return pa.int64()
    if name == "event_at":
        return pa.timestamp("us", "UTC")
    numbers = {item.name for item in METRIC_TABLE.properties if item.kind in {"number", "fraction"}}
    return pa.float64() if name in numbers else pa.string()
