"""What happens in visits: which event when, on which screen, before or after signing in. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Final

import numpy as np

from sandbox.generator.chance import some
from sandbox.generator.people import Platform
from sandbox.generator.visits import HOUR, SECOND, State

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from sandbox.generator.visits import Visits


class Action(IntEnum):
    """The events of the app; `EVENT_NAMES` says how PostHog calls them."""

    OPENED = 0
    SCREEN = 1
    PAGEVIEW = 2
    PAGELEAVE = 3
    AUTOCAPTURE = 4
    RAGECLICK = 5
    IDENTIFY = 6
    VIEW_EVENT = 7
    JOIN_EVENT = 8
    CREATE_EVENT = 9
    CHECK_IN = 10
    INVITE_FRIENDS = 11
    SEND_INVITE = 12
    INVITE_FOR_REPORT = 13
    ENABLE_CONTACTS = 14
    CONTACTS_ENABLED = 15
    START_QUIZ = 16
    ANSWER_QUIZ = 17
    FINISH_QUIZ = 18
    SEARCH = 19
    SCROLL = 20
    BACKGROUNDED = 21


EVENT_NAMES: Final = (
    "Application Opened", "$screen", "$pageview", "$pageleave", "$autocapture", "$rageclick",
    "$identify", "view_event", "join_event", "create_event", "check_in", "invite_friends",
    "send_invite_to_event", "invite_friends_for_report", "Enable Contacts Tapped",
    "contacts_sync_enabled", "start_quiz", "answer_quiz", "finish_quiz", "search", "scroll",
    "Application Backgrounded",
)  # fmt: skip
SCREENS: Final = (
    "Discover", "EventDetails", "Profile", "Chat", "Quiz", "CreateEvent", "Friends", "Settings",
)  # fmt: skip
PAGES: Final = (
    "/", "/feed", "/discover", "/event/42", "/event/77", "/profile", "/quiz", "/create",
    "/settings",
)  # fmt: skip

_ANYWHERE: dict[Action, float] = {
    Action.VIEW_EVENT: 10, Action.JOIN_EVENT: 2, Action.CREATE_EVENT: 0.6, Action.CHECK_IN: 0.5,
    Action.INVITE_FRIENDS: 0.5, Action.SEND_INVITE: 0.4, Action.INVITE_FOR_REPORT: 0.1,
    Action.ENABLE_CONTACTS: 0.15, Action.CONTACTS_ENABLED: 0.1, Action.SEARCH: 3,
}  # fmt: skip
_MOBILE = _ANYWHERE | {Action.SCREEN: 22, Action.AUTOCAPTURE: 40, Action.BACKGROUNDED: 3}
_HABITS: Mapping[Platform, Mapping[Action, float]] = {
    Platform.REACT_NATIVE_IOS: _MOBILE | {Action.SCROLL: 1},
    Platform.REACT_NATIVE_ANDROID: _MOBILE,
    Platform.WEB: _ANYWHERE
    | {Action.PAGEVIEW: 18, Action.PAGELEAVE: 14, Action.AUTOCAPTURE: 30, Action.RAGECLICK: 1},
    Platform.NATIVE_IOS: _MOBILE,
}
_QUIZ_SHARE = 0.12
_QUIZ_FINISHED_SHARE = 0.65
_QUIZ_EVENTS = 5
_SKEWED_SHARE = 0.01
_LONGEST_GAP = 28 * 60 * SECOND


@dataclass(frozen=True, slots=True, kw_only=True)
class Actions:
    """One entry per event, visit by visit in the order in which things happened.

    `visit` counts within the visits given; `place` is the screen or page last seen, -1 before any.
    """

    visit: NDArray[np.int64]
    position: NDArray[np.int64]
    time: NDArray[np.int64]
    action: NDArray[np.int64]
    place: NDArray[np.int64]
    signed_in: NDArray[np.bool_]

    def __len__(self) -> int:
        """Return the number of events."""
        return len(self.visit)


def new_actions(rng: np.random.Generator, visits: Visits) -> Actions:
    """Return the events of the visits."""
    visit = np.repeat(np.arange(len(visits)), visits.events)
    position = np.arange(len(visit)) - np.repeat(
        np.cumsum(visits.events) - visits.events, visits.events
    )
    action = _drawn(rng, visits.platform[visit])
    _overlay_start(rng, action, position, visits.platform[visit])
    _overlay_quiz(rng, action, position, visits, visit)
    signs_in_at = 1 + (rng.random(len(visits)) * np.clip(visits.events - 1, 0, 8)).astype(np.int64)
    signing_in = (visits.state == State.SIGNS_IN)[visit] & (position == signs_in_at[visit])
    action[signing_in] = Action.IDENTIFY
    signed_in = (visits.state == State.SIGNED_IN)[visit] | (
        (visits.state == State.SIGNS_IN)[visit] & (position >= signs_in_at[visit])
    )
    return Actions(
        visit=visit,
        position=position,
        time=_times(rng, visits, visit, position),
        action=action,
        place=_places(rng, action, visit, visits.platform[visit]),
        signed_in=signed_in,
    )


def previous_place(actions: Actions) -> NDArray[np.int64]:
    """Return the page seen before, for each $pageview and $pageleave; else -1."""
    before = np.full(len(actions), -1)
    before[1:] = np.where(actions.visit[1:] == actions.visit[:-1], actions.place[:-1], -1)
    about_pages = (actions.action == Action.PAGEVIEW) | (actions.action == Action.PAGELEAVE)
    return np.where(about_pages, before, -1)


def _drawn(rng: np.random.Generator, platform: NDArray[np.int64]) -> NDArray[np.int64]:
    draw = rng.random(len(platform))
    action = np.empty(len(platform), dtype=np.int64)
    for which, habits in _HABITS.items():
        here = platform == which
        weights = np.cumsum(np.fromiter(habits.values(), np.float64))
        codes = np.fromiter(habits.keys(), np.int64)
        action[here] = codes[np.searchsorted(weights, draw[here] * weights[-1], side="right")]
    return action


def _overlay_start(
    rng: np.random.Generator,
    action: NDArray[np.int64],
    position: NDArray[np.int64],
    platform: NDArray[np.int64],
) -> None:
    first = position == 0
    opened = some(rng, len(action), 0.6)
    action[first] = np.where(opened, Action.OPENED, Action.SCREEN)[first]
    action[first & (platform == Platform.WEB)] = Action.PAGEVIEW
    action[(position == 1) & (platform != Platform.WEB)] = Action.SCREEN


def _overlay_quiz(
    rng: np.random.Generator,
    action: NDArray[np.int64],
    position: NDArray[np.int64],
    visits: Visits,
    visit: NDArray[np.int64],
) -> None:
    """Let some visits take a quiz: a start, three answers, and for most of them a finish."""
    room = visits.events - _QUIZ_EVENTS - 2
    takes_quiz = some(rng, len(visits), _QUIZ_SHARE) & (room > 0)
    starts_at = 2 + (rng.random(len(visits)) * np.maximum(room, 0)).astype(np.int64)
    finishes = some(rng, len(visits), _QUIZ_FINISHED_SHARE)
    step = np.where(takes_quiz[visit], position - starts_at[visit], -1)
    action[step == 0] = Action.START_QUIZ
    action[(step > 0) & (step < _QUIZ_EVENTS - 1)] = Action.ANSWER_QUIZ
    action[(step == _QUIZ_EVENTS - 1) & finishes[visit]] = Action.FINISH_QUIZ


def _times(
    rng: np.random.Generator,
    visits: Visits,
    visit: NDArray[np.int64],
    position: NDArray[np.int64],
) -> NDArray[np.int64]:
    """Return times to the millisecond; some equal, some of a device whose clock was put back."""
    count = len(visit)
    gap = rng.exponential(6, count) * SECOND
    gap = np.where(some(rng, count, 0.14), gap * 10, gap)
    gap = np.where(some(rng, count, 0.01), gap * 200, gap)
    gap = np.minimum(gap, _LONGEST_GAP)
    gap[some(rng, count, 0.03) | (position == 0)] = 0
    elapsed = np.cumsum(gap.astype(np.int64) // 1_000 * 1_000)
    time = visits.started[visit] + elapsed - elapsed[position == 0][visit]
    skew = (rng.random(len(visits)) * HOUR).astype(np.int64) // 1_000 * 1_000
    skew[~some(rng, len(visits), _SKEWED_SHARE)] = 0
    set_back = position >= visits.events[visit] // 2
    return np.asarray(time - np.where(set_back, skew[visit], 0))


def _places(
    rng: np.random.Generator,
    action: NDArray[np.int64],
    visit: NDArray[np.int64],
    platform: NDArray[np.int64],
) -> NDArray[np.int64]:
    count = len(action)
    is_web = platform == Platform.WEB
    drawn = (rng.random(count) * np.where(is_web, len(PAGES), len(SCREENS))).astype(np.int64)
    shows = (action == Action.SCREEN) | (action == Action.PAGEVIEW)
    last_shown = np.maximum.accumulate(np.where(shows, np.arange(count), -1))
    seen = (last_shown >= 0) & (visit[last_shown] == visit)
    return np.where(seen, drawn[last_shown], -1)
