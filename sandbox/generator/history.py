"""A history of the app from a seed: batches of rows for the four source tables. Pure."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from sandbox.generator.actions import new_actions
from sandbox.generator.events import hard_coded_session_events, server_events, visit_events
from sandbox.generator.firebase import documents, user_rows
from sandbox.generator.flaws import arrived, before, with_flaws, with_redeliveries
from sandbox.generator.people import new_people
from sandbox.generator.posthog_sessions import posthog_sessions
from sandbox.generator.properties import campaigns
from sandbox.generator.visits import HOUR, joined_at, midnight, new_visits

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sandbox.generator.people import Person
    from sandbox.generator.visits import Visits
    from sandbox.tables import TableName

type Batch = dict[TableName, pa.Table]

VISITS_PER_BATCH = 10_000
_VISITS_PER_PERSON = 4
_SERVER_EVENTS_PER_VISIT = 1
# The last export of a day arrives in the first hours of the next.
_EXPORT_HOURS = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Period:
    """Consecutive UTC days, as they were exported in the night after the last."""

    last_day: dt.date
    days: int

    @property
    def dates(self) -> list[dt.date]:
        """The days in order."""
        return [self.last_day - dt.timedelta(days=n) for n in reversed(range(self.days))]

    @property
    def since(self) -> int:
        """The first moment, in microseconds since 1970."""
        return midnight(self.dates[0])

    @property
    def until(self) -> int:
        """The first moment after the last day."""
        return midnight(self.last_day + dt.timedelta(days=1))

    @property
    def exported(self) -> int:
        """When the last rows of the period have arrived."""
        return self.until + _EXPORT_HOURS * HOUR


def history(*, seed: int, sessions: int, period: Period) -> Iterator[Batch]:
    """Yield about `sessions` sessions and all that belongs to them, the same for the same seed.

    The first batch holds the users, the others up to VISITS_PER_BATCH visits each, by start.
    What had not arrived in the night after the last day is left out.
    """
    rng = np.random.default_rng([seed, period.last_day.toordinal(), period.days, sessions])
    people = new_people(rng, max(20, sessions // _VISITS_PER_PERSON))
    visits = new_visits(rng, people, sessions, period.dates)
    joined = joined_at(visits, people)
    users = user_rows(rng, people, joined, since=period.since, until=period.exported)
    yield {"firebase_users": users, "posthog_events": without_visits(rng, people, sessions, period)}
    yield from batches_of_visits(rng, people, visits, period)


def batches_of_visits(
    rng: np.random.Generator, people: Sequence[Person], visits: Visits, period: Period
) -> Iterator[Batch]:
    """Yield events, PostHog's session rows and documents of the visits."""
    for start in range(0, len(visits), VISITS_PER_BATCH):
        yield _batch(rng, people, visits.part(start, start + VISITS_PER_BATCH), period)


def without_visits(
    rng: np.random.Generator, people: Sequence[Person], sessions: int, period: Period
) -> pa.Table:
    """Return the events of no visit: the server's, and those of the hard-coded session id."""
    count = sessions * _SERVER_EVENTS_PER_VISIT
    from_server = server_events(rng, people, count, period.dates)
    hard_coded = hard_coded_session_events(rng, period.dates)
    return arrived(pa.concat_tables([from_server, hard_coded]), until=period.exported)


def _batch(
    rng: np.random.Generator, people: Sequence[Person], visits: Visits, period: Period
) -> Batch:
    actions = new_actions(rng, visits)
    campaign = campaigns(rng, visits)
    events = visit_events(rng, people, visits, actions, campaign=campaign)
    events = events.filter(pa.array(actions.time < period.until))
    events = with_redeliveries(rng, with_flaws(rng, events))
    sessions = posthog_sessions(rng, people, visits, actions, campaign=campaign)
    made = documents(rng, people, visits, actions, loaded_at=period.until + 3 * HOUR)
    return {
        "posthog_events": arrived(events, until=period.exported),
        "posthog_sessions": before(sessions, "end_timestamp", period.until),
        "firebase_events": before(made, "etl_loaded_at", period.exported),
    }
