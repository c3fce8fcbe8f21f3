"""The `properties` of events as the SDKs send them: JSON text. Pure."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow as pa

from sandbox.generator.actions import PAGES, SCREENS, Action, previous_place
from sandbox.generator.chance import some
from sandbox.generator.people import Platform
from sandbox.generator.text import chosen, joined, where

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from sandbox.generator.actions import Actions
    from sandbox.generator.visits import Visits

HOST: Final = "app.example.com"
# What `campaigns` draws from: an index of these says where a web visit came from.
CAMPAIGNS: Final[Sequence[Mapping[str, str]]] = (
    {"$referring_domain": "$direct"},
    {"$referring_domain": "www.google.com"},
    {
        "$referring_domain": "l.instagram.com",
        "utm_source": "instagram",
        "utm_medium": "paid_social",
        "utm_campaign": "autumn",
    },
    {
        "$referring_domain": "$direct",
        "utm_source": "newsletter",
        "utm_medium": "email",
        "utm_campaign": "weekly",
    },
    {"$referring_domain": "blog.example.com"},
)
_DEVICES: Mapping[Platform, Sequence[Mapping[str, object]]] = {
    Platform.REACT_NATIVE_IOS: [
        {
            "$lib": "posthog-react-native", "$lib_version": "4.3.1", "$os_name": "iOS",
            "$os_version": "18.1", "$device_type": "Mobile", "$device_manufacturer": "Apple",
            "$screen_height": 852, "$screen_width": 393, "$is_emulator": False,
        },
        {
            "$lib": "posthog-react-native", "$lib_version": "4.3.1", "$os_name": "iOS",
            "$os_version": "17.6", "$device_type": "Tablet", "$device_manufacturer": "Apple",
            "$screen_height": 1180, "$screen_width": 820, "$is_emulator": False,
        },
    ],
    Platform.REACT_NATIVE_ANDROID: [
        {
            "$lib": "posthog-react-native", "$lib_version": "4.2.0", "$os_name": "Android",
            "$os_version": "14", "$device_type": "Mobile", "$device_manufacturer": "Google",
            "$screen_height": 915, "$screen_width": 412, "$is_emulator": False,
        },
        {
            "$lib": "posthog-react-native", "$lib_version": "4.2.0", "$os_name": "Android",
            "$os_version": "15", "$device_type": "Mobile", "$device_manufacturer": "unknown",
            "$screen_height": 780, "$screen_width": 360, "$is_emulator": True,
        },
    ],
    Platform.WEB: [
        {
            "$lib": "web", "$lib_version": "1.300.0", "$os": "Mac OS X", "$os_version": "10.15.7",
            "$browser": "Chrome", "$device_type": "Desktop", "$screen_height": 1080,
            "$screen_width": 1920, "$viewport_height": 934, "$viewport_width": 1728,
        },
        {
            "$lib": "web", "$lib_version": "1.300.0", "$os": "iOS", "$os_version": "18.1",
            "$browser": "Mobile Safari", "$device_type": "Mobile", "$viewport_height": 664,
            "$viewport_width": 390,
        },
        {
            "$lib": "web", "$lib_version": "1.298.0", "$os": "Linux", "$os_version": "",
            "$browser": "Chrome", "$device_type": "Desktop", "$screen_height": 800,
            "$screen_width": 1280, "$browser_type": "bot",
        },
    ],
    Platform.NATIVE_IOS: [
        {
            "$lib": "posthog-ios", "$lib_version": "3.30.0", "$os_name": "iOS",
            "$os_version": "18.0", "$device_type": "Mobile", "$device_manufacturer": "Apple",
            "$screen_height": 874, "$screen_width": 402, "$is_emulator": False,
        },
    ],
}  # fmt: skip
_PLACES: Sequence[Mapping[str, object]] = (
    {"$geoip_country_name": "United States", "$geoip_country_code": "US",
     "$geoip_city_name": "New York", "$timezone": "America/New_York"},
    {"$geoip_country_name": "United States", "$geoip_country_code": "US",
     "$geoip_city_name": "Los Angeles", "$timezone": "America/Los_Angeles"},
    {"$geoip_country_name": "Germany", "$geoip_country_code": "DE",
     "$geoip_city_name": "Berlin", "$timezone": "Europe/Berlin"},
    {"$geoip_country_code": "FR", "$geoip_city_name": None, "$timezone": "Europe/Paris"},
    {"$timezone": "UTC"},
)  # fmt: skip
_APP_VERSIONS = ("5.1.0", "5.1.2", "5.2.0", "6.0.0-beta.1")
_GESTURES = ("swipe", "scroll", "pan", "tap")
# What stands where a percentage is expected: a few texts, one over 1, most plain numbers.
_PERCENTAGES = (*(f"{n / 200:.3g}" for n in range(201)), '"0.5"', '"n/a"', "1.02", "null")
_COORDINATES = tuple(f"{n / 2:.1f}" for n in range(2_400))
_TALLEST = 900


def campaigns(rng: np.random.Generator, visits: Visits) -> NDArray[np.int64]:
    """Return for each visit an index of CAMPAIGNS; -1 where it has none: all but the web."""
    drawn = rng.choice(len(CAMPAIGNS), len(visits), p=(0.5, 0.2, 0.15, 0.1, 0.05))
    return np.where(visits.platform == Platform.WEB, drawn, -1)


def new_properties(
    rng: np.random.Generator,
    visits: Visits,
    actions: Actions,
    *,
    campaign: NDArray[np.int64],
    anonymous_id: pa.StringArray,
) -> pa.StringArray:
    """Return the properties of the events, well-formed; `anonymous_id` is that of each visit."""
    sticky = some(rng, len(visits), 0.7)
    keeps_campaign = (actions.position == 0) | sticky[actions.visit]
    every_campaign = [_members(campaign) for campaign in CAMPAIGNS]
    pieces = (
        "{",
        _of_visits(rng, visits).take(pa.array(actions.visit)),
        where(
            keeps_campaign & (campaign[actions.visit] >= 0),
            chosen(every_campaign, np.maximum(campaign[actions.visit], 0)),
        ),
        _session(rng, visits, actions),
        _place(visits, actions),
        _scrolling(rng, actions),
        _touch(rng, visits, actions),
        _specific(rng, actions),
        _identifying(actions, anonymous_id),
        chosen([',"$is_identified":false}', ',"$is_identified":true}'], actions.signed_in * 1),
    )
    return joined(*pieces)


def _members(record: Mapping[str, object]) -> str:
    """Return a record as the members of a JSON object, led by a comma."""
    return "".join(f",{json.dumps(name)}:{json.dumps(value)}" for name, value in record.items())


def _of_visits(rng: np.random.Generator, visits: Visits) -> pa.StringArray:
    """Return what is the same all through a visit: device, place, release."""
    variants = [
        _members({**device, **place} | {"$app_version": version})[1:]
        for platform in Platform
        for device in _DEVICES[platform]
        for place in _PLACES
        for version in _APP_VERSIONS
    ]
    each = len(_PLACES) * len(_APP_VERSIONS)
    devices = np.array([len(_DEVICES[p]) for p in Platform])
    first = np.cumsum(devices) - devices
    skewed = rng.random(len(visits)) ** 4  # the last device of a platform is a rare one
    device = first[visits.platform] + (skewed * devices[visits.platform]).astype(np.int64)
    return chosen(variants, device * each + rng.integers(0, each, len(visits)))


def _session(rng: np.random.Generator, visits: Visits, actions: Actions) -> pa.StringArray:
    """Return the session id; an old release has another name for it, and some starts have none."""
    names = [',"$session_id":"', ',"session_id":"', ',"sessionId":"']
    which = np.where(visits.legacy, 1 + np.arange(len(visits)) % 2, 0)
    starts_late = some(rng, len(visits), 0.01) & (visits.platform != Platform.WEB)
    nameless = starts_late[actions.visit] & (actions.position == 0)
    value = where(~nameless, visits.session_id.take(pa.array(actions.visit)))
    return joined(chosen(names, which[actions.visit]), value, '"')


def _place(visits: Visits, actions: Actions) -> pa.StringArray:
    pages = [
        _members({"$current_url": f"https://{HOST}{page}", "$pathname": page, "$host": HOST})
        for page in PAGES
    ]
    screens = [_members({"$screen_name": screen}) for screen in SCREENS]
    old_screens = [_members({"screen_name": screen}) for screen in SCREENS]
    shift = np.where(visits.legacy, len(screens), 0)
    shift[visits.platform == Platform.WEB] = len(screens) * 2
    index = np.maximum(actions.place, 0) + shift[actions.visit]
    return where(actions.place >= 0, chosen([*screens, *old_screens, *pages], index))


def _scrolling(rng: np.random.Generator, actions: Actions) -> pa.StringArray:
    """Return how far the page before was scrolled, on the events that report it."""
    before = previous_place(actions)
    pathnames = [_members({"$prev_pageview_pathname": page}) for page in PAGES]
    count = len(actions)
    usual = len(_PERCENTAGES) - 4
    scrolled = np.where(
        some(rng, count, 0.01), rng.integers(0, len(_PERCENTAGES), count),
        (rng.random(count) ** 2 * usual).astype(np.int64),
    )  # fmt: skip
    seen = np.where(scrolled < usual, np.maximum(scrolled, usual // 3), scrolled)
    texts = joined(
        chosen(pathnames, np.maximum(before, 0)),
        ',"$prev_pageview_max_scroll_percentage":',
        chosen(_PERCENTAGES, scrolled),
        ',"$prev_pageview_max_content_percentage":',
        chosen(_PERCENTAGES, seen),
        ',"$prev_pageview_duration":',
        chosen(_COORDINATES, rng.integers(1, 400, count)),
    )
    return where(before >= 0, texts)


def _touch(rng: np.random.Generator, visits: Visits, actions: Actions) -> pa.StringArray:
    """Return what $autocapture reports of touches, gestures and clicks."""
    count = len(actions)
    platform, legacy = visits.platform[actions.visit], visits.legacy[actions.visit]
    x, y = (rng.random(count) * 780).astype(np.int64), (rng.random(count) ** 0.8 * 2 * _TALLEST)
    prefix = chosen(["$", ""], legacy * 1)
    touch = joined(
        ',"$event_type":"touch","', prefix, 'touch_x":', chosen(_COORDINATES, x),
        ',"', prefix, 'touch_y":', chosen(_COORDINATES, y.astype(np.int64)),
    )  # fmt: skip
    gestures = [_members({"$event_type": gesture}) for gesture in _GESTURES]
    other = chosen([*gestures, _members({"$event_type": "click"})], np.where(
        platform == Platform.WEB, len(gestures), rng.integers(0, len(gestures), count)
    ))  # fmt: skip
    captured = actions.action == Action.AUTOCAPTURE
    native = (platform == Platform.REACT_NATIVE_IOS) | (platform == Platform.REACT_NATIVE_ANDROID)
    return joined(where(captured & native, touch), where(captured & ~native, other))


def _specific(rng: np.random.Generator, actions: Actions) -> pa.StringArray:
    """Return the properties that belong to one kind of event."""
    of_events = [Action.VIEW_EVENT, Action.JOIN_EVENT, Action.SEND_INVITE]
    event_ids = [_members({"event_id": f"evt_{number}"}) for number in range(500)]
    questions = [_members({"question": number, "correct": number % 2 == 0}) for number in range(9)]
    about_event = where(
        np.isin(actions.action, of_events), chosen(event_ids, rng.integers(0, 500, len(actions)))
    )
    about_answer = where(
        actions.action == Action.ANSWER_QUIZ, chosen(questions, actions.position % 9)
    )
    return joined(about_event, about_answer)


def _identifying(actions: Actions, anonymous_id: pa.StringArray) -> pa.StringArray:
    texts = joined(',"$anon_distinct_id":"', anonymous_id.take(pa.array(actions.visit)), '"')
    return where(actions.action == Action.IDENTIFY, texts)
