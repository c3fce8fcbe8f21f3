"""The columns that a session's events alone decide in every PostHog project, a function each. Pure.

Each takes the session's events in event order: by time, then by uuid. What a column means is said
in docs/data-dictionary.md.
"""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

from oracle.ids import SECOND, time_of, trimmed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from datetime import date, datetime

    from oracle.rows import Event

type Row = dict[str, Any]
type Events = Sequence[Event]

GAP_CAP = 30 * SECOND
ENGAGED_SECONDS = 10
ENGAGED_VIEWS = 2

SCREEN = ("$screen_name", "screen_name")
TOUCH_Y = ("$touch_y", "touch_y")
HEIGHT = ("$screen_height", "$viewport_height")


def event_columns(events: Events) -> Row:
    """Return every column of this page."""
    return {name: column(events) for name, column in COLUMNS.items()}


# Who it was.


def distinct_id(events: Events) -> str | None:
    """Return the distinct id of the last event that has one."""
    return _last([event.distinct_id for event in events if event.distinct_id])


def distinct_ids(events: Events) -> list[str]:
    """Return all distinct ids, in order of last use."""
    latest_first = [event.distinct_id for event in reversed(events) if event.distinct_id]
    return list(dict.fromkeys(latest_first))[::-1]


def identified(events: Events) -> list[Row]:
    """Return the pairs of anonymous and distinct id that `$identify` events tie."""
    pairs = {
        (anonymous_id, event.distinct_id)
        for event in _named(events, "$identify")
        if (anonymous_id := trimmed(event.first_of(["$anon_distinct_id"]))) and event.distinct_id
    }
    return [{"anonymous_id": a, "distinct_id": d} for a, d in sorted(pairs)]


# When.


def session_date(events: Events) -> date:
    """Return the UTC day of the first event."""
    return started_at(events).date()


def started_at(events: Events) -> datetime:
    """Return the time of the first event."""
    return time_of(events[0].at)


def ended_at(events: Events) -> datetime:
    """Return the time of the last event."""
    return time_of(events[-1].at)


def duration_seconds(events: Events) -> float:
    """Return the seconds from the first event to the last."""
    return (events[-1].at - events[0].at) / SECOND


def engaged_seconds(events: Events) -> float:
    """Return the sum of the gaps between consecutive events, each of 30 s at most."""
    return sum(min(after.at - before.at, GAP_CAP) for before, after in pairwise(events)) / SECOND


# How much.


def event_count(events: Events) -> int:
    """Return the number of events."""
    return len(events)


def event_counts(events: Events) -> list[Row]:
    """Return the events by name, in order of the name."""
    counted = Counter(event.name for event in events)
    return [{"event": name, "count": count} for name, count in sorted(counted.items())]


def pageview_count(events: Events) -> int:
    """Return the number of page views."""
    return len(_named(events, "$pageview"))


def screen_count(events: Events) -> int:
    """Return the number of screens."""
    return len(_named(events, "$screen"))


def autocapture_count(events: Events) -> int:
    """Return the number of autocaptured clicks, gestures and inputs."""
    return len(_named(events, "$autocapture"))


def rageclick_count(events: Events) -> int:
    """Return the number of rage clicks."""
    return len(_named(events, "$rageclick"))


# Where.


def unique_screens(events: Events) -> int:
    """Return the number of different screens of any event."""
    return len(set(_values(events, SCREEN)))


def unique_pages(events: Events) -> int:
    """Return the number of different paths of page views."""
    return len(set(_values(_named(events, "$pageview"), ["$pathname"])))


def entry_screen(events: Events) -> str | None:
    """Return the first known screen of the views."""
    return _first(_values(_views(events), SCREEN))


def exit_screen(events: Events) -> str | None:
    """Return the last known screen of the views."""
    return _last(_values(_views(events), SCREEN))


def entry_url(events: Events) -> str | None:
    """Return the first known address of the views."""
    return _first(_values(_views(events), ["$current_url"]))


def exit_url(events: Events) -> str | None:
    """Return the last known address of the views."""
    return _last(_values(_views(events), ["$current_url"]))


def referring_domain(events: Events) -> str | None:
    """Return the first known referring domain of the views."""
    return _first(_values(_views(events), ["$referring_domain"]))


def utm_source(events: Events) -> str | None:
    """Return the first known source of the views' campaigns."""
    return _first(_values(_views(events), ["utm_source"]))


def utm_medium(events: Events) -> str | None:
    """Return the first known medium of the views' campaigns."""
    return _first(_values(_views(events), ["utm_medium"]))


def utm_campaign(events: Events) -> str | None:
    """Return the first known campaign of the views."""
    return _first(_values(_views(events), ["utm_campaign"]))


# By what, and from where in the world.


def lib(events: Events) -> str | None:
    """Return the first known library."""
    return _first(_values(events, ["$lib"]))


def os(events: Events) -> str | None:
    """Return the first known operating system."""
    return _first(_values(events, ["$os", "$os_name"]))


def device_type(events: Events) -> str | None:
    """Return the first known type of device."""
    return _first(_values(events, ["$device_type"]))


def app_version(events: Events) -> str | None:
    """Return the first known version of the app."""
    return _first(_values(events, ["$app_version"]))


def country(events: Events) -> str | None:
    """Return the first known country."""
    return _first(_values(events, ["$geoip_country_name", "$geoip_country_code"]))


def city(events: Events) -> str | None:
    """Return the first known city."""
    return _first(_values(events, ["$geoip_city_name"]))


# How far.


def max_scroll_depth(events: Events) -> float | None:
    """Return the greatest share of a page that was scrolled to."""
    return _greatest_share(
        event.number(["$prev_pageview_max_scroll_percentage"]) for event in events
    )


def max_content_depth(events: Events) -> float | None:
    """Return the greatest share of a page's content that was seen."""
    return _greatest_share(
        event.number(["$prev_pageview_max_content_percentage"]) for event in events
    )


def scroll_count(events: Events) -> int:
    """Return the number of scrolls and swipes."""
    return sum(map(_is_scroll, events))


def touch_count(events: Events) -> int:
    """Return the number of autocaptured touches with a height on the screen."""
    touches = _named(events, "$autocapture")
    return sum(event.number(TOUCH_Y) is not None for event in touches)


def touch_reach(events: Events) -> float | None:
    """Return the greatest share of the screen's height that was touched."""
    return _greatest_share(map(_reach, events))


def scrolled(events: Events) -> bool:
    """Return whether anything was scrolled, by a gesture or on a page."""
    return scroll_count(events) > 0 or (max_scroll_depth(events) or 0) > 0


# How well.


def is_bounce(events: Events) -> bool | None:
    """Return whether a single view or autocapture was all, in under 10 s; None where none was."""
    acts = pageview_count(events) + screen_count(events) + autocapture_count(events)
    if acts == 0:
        return None
    return acts == 1 and duration_seconds(events) < ENGAGED_SECONDS


def is_engaged(events: Events) -> bool:
    """Return whether 10 s were engaged, or two views were had."""
    views = pageview_count(events) + screen_count(events)
    return engaged_seconds(events) >= ENGAGED_SECONDS or views >= ENGAGED_VIEWS


def _named(events: Events, name: str) -> list[Event]:
    return [event for event in events if event.name == name]


def _views(events: Events) -> Events:
    """Return the page views and screens; where there are none, all events."""
    return [event for event in events if event.name in {"$pageview", "$screen"}] or events


def _is_scroll(event: Event) -> bool:
    gesture = event.name == "$autocapture" and event.first_of(["$event_type"])
    return event.name == "scroll" or gesture in {"scroll", "swipe"}


def _reach(event: Event) -> float | None:
    touch, height = event.number(TOUCH_Y), event.number(HEIGHT)
    if touch is None or height is None or height <= 0:
        return None
    return touch / height


def _values(events: Iterable[Event], names: Iterable[str]) -> list[str]:
    """Return the property's known values in event order."""
    found = (event.first_of(names) for event in events)
    return [value for value in found if value is not None]


def _first(values: list[str]) -> str | None:
    return values[0] if values else None


def _last(values: list[str]) -> str | None:
    return values[-1] if values else None


def _greatest_share(shares: Iterable[float | None]) -> float | None:
    """Return the greatest known share, each clipped to 0..1."""
    return max((min(max(share, 0.0), 1.0) for share in shares if share is not None), default=None)


COLUMNS: Final[dict[str, Callable[[Events], object]]] = {
    column.__name__: column
    for column in (
        distinct_id, distinct_ids, identified,
        session_date, started_at, ended_at, duration_seconds, engaged_seconds,
        event_count, event_counts, pageview_count, screen_count, autocapture_count, rageclick_count,
        unique_screens, unique_pages, entry_screen, exit_screen, entry_url, exit_url,
        referring_domain, utm_source, utm_medium, utm_campaign,
        lib, os, device_type, app_version, country, city,
        max_scroll_depth, max_content_depth, scroll_count, touch_count, touch_reach, scrolled,
        is_bounce, is_engaged,
    )
}  # fmt: skip
