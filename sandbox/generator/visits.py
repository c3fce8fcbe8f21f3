"""Visits: who came when, with which session id, signed in or not. Pure."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Final, Self

import numpy as np

from sandbox.generator.chance import some
from sandbox.generator.people import Membership
from sandbox.generator.text import uuid7

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pyarrow as pa
    from numpy.typing import NDArray

    from sandbox.generator.people import Person

SECOND: Final = 1_000_000
HOUR: Final = 3_600 * SECOND
DAY: Final = 24 * HOUR
_EPOCH = dt.date(1970, 1, 1)
# How busy the hours of the day are, midnight first: evenings run past midnight.
_HOURS = (5, 3, 2, 1, 1, 1, 2, 4, 5, 5, 5, 6, 7, 6, 5, 5, 6, 8, 10, 12, 13, 13, 11, 8)
_MEDIAN_EVENTS = 20
_SPREAD_EVENTS = 1.0
_MAX_EVENTS = 1_500


class State(IntEnum):
    """How the visitor is known to PostHog."""

    ANONYMOUS = 0
    SIGNS_IN = 1
    SIGNED_IN = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Visits:
    """One entry per visit, by start; times are microseconds since 1970.

    `legacy` visits come from an old release of the app with property names of its own.
    """

    person: NDArray[np.int64]
    started: NDArray[np.int64]
    events: NDArray[np.int64]
    state: NDArray[np.int64]
    session_id: pa.StringArray
    platform: NDArray[np.int64]
    legacy: NDArray[np.bool_]

    def __len__(self) -> int:
        """Return the number of visits."""
        return len(self.person)

    def part(self, start: int, stop: int) -> Self:
        """Return the visits from `start` to before `stop`."""
        cut = slice(start, stop)
        return type(self)(
            person=self.person[cut],
            started=self.started[cut],
            events=self.events[cut],
            state=self.state[cut],
            session_id=self.session_id.slice(start, len(self.person[cut])),
            platform=self.platform[cut],
            legacy=self.legacy[cut],
        )


def midnight(day: dt.date) -> int:
    """Return the start of a UTC day in microseconds since 1970."""
    return (day - _EPOCH).days * DAY


def new_visits(
    rng: np.random.Generator, people: Sequence[Person], count: int, days: Sequence[dt.date]
) -> Visits:
    """Return `count` visits of these people on these days; some people come often, most seldom."""
    activity = np.cumsum(rng.pareto(1.5, len(people)) + 0.2)
    person = np.searchsorted(activity, rng.random(count) * activity[-1])
    started = _starts(rng, count, days)
    order = np.argsort(started, kind="stable")
    person, started = person[order], started[order]
    events = np.exp(rng.normal(np.log(_MEDIAN_EVENTS), _SPREAD_EVENTS, count))
    events[some(rng, count, 0.06)] = 1
    platform = np.array([p.platform for p in people], dtype=np.int64)[person]
    return Visits(
        person=person,
        started=started,
        events=np.clip(events, 1, _MAX_EVENTS).astype(np.int64),
        state=_states(rng, people, person),
        session_id=uuid7(rng, started),
        platform=platform,
        legacy=some(rng, count, 0.03),
    )


def joined_at(visits: Visits, people: Sequence[Person]) -> dict[int, int]:
    """Return for each person who signs up during these visits the start of that visit."""
    rank = _ranks(visits.person)
    during = np.array([p.membership == Membership.DURING for p in people])[visits.person]
    at = np.array([p.joins_at_visit for p in people])[visits.person]
    joining = np.flatnonzero(during & (rank == at))
    return dict(zip(visits.person[joining].tolist(), visits.started[joining].tolist(), strict=True))


def _starts(rng: np.random.Generator, count: int, days: Sequence[dt.date]) -> NDArray[np.int64]:
    day = np.array([midnight(d) for d in days], dtype=np.int64)[rng.integers(0, len(days), count)]
    weights = np.array(_HOURS) / sum(_HOURS)
    hour = rng.choice(24, count, p=weights)
    within = rng.integers(0, HOUR // 1_000, count) * 1_000
    started = day + hour * HOUR + within
    # At least some visits start shortly before midnight and end after it.
    late = some(rng, count, 0.01)
    return np.where(late, day + DAY - rng.integers(1, 120, count) * SECOND, started)


def _states(
    rng: np.random.Generator, people: Sequence[Person], person: NDArray[np.int64]
) -> NDArray[np.int64]:
    membership = np.array([p.membership for p in people])[person]
    joins_at = np.array([p.joins_at_visit for p in people])[person]
    rank = _ranks(person)
    again = some(rng, len(person), 0.12)
    state = np.where(again, State.SIGNS_IN, State.SIGNED_IN)
    joining = membership == Membership.DURING
    state[joining & (rank == joins_at)] = State.SIGNS_IN
    state[joining & (rank < joins_at)] = State.ANONYMOUS
    state[membership == Membership.NEVER] = State.ANONYMOUS
    return state.astype(np.int64)


def _ranks(person: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return for each visit how many its person made before; visits are by start."""
    order = np.argsort(person, kind="stable")
    ordered = person[order]
    first = np.searchsorted(ordered, ordered)
    ranks = np.empty(len(person), dtype=np.int64)
    ranks[order] = np.arange(len(person)) - first
    return ranks
