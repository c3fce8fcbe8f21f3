"""Rows of PostHog's events table, from what happened in visits and on the server. Pure."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from sandbox.generator.actions import EVENT_NAMES, Action
from sandbox.generator.chance import some
from sandbox.generator.people import Membership
from sandbox.generator.properties import new_properties
from sandbox.generator.text import chosen, joined, uuid7, where
from sandbox.generator.visits import DAY, SECOND, midnight

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from sandbox.generator.actions import Actions
    from sandbox.generator.people import Person
    from sandbox.generator.visits import Visits

HARD_CODED_SESSION = "test-session"
JUNK_IDS = ("null", "undefined", "anonymous", "guest", "0", "Guest", "NULL")
_JUNK_SHARE = 0.012
_TIMESTAMP = pa.timestamp("us", tz="UTC")
_SERVER_EVENTS = ("event_reminder_sent", "push_sent", "digest_sent")
_LATE_SHARE = 0.02
_VERY_LATE_SHARE = 0.002


def visit_events(
    rng: np.random.Generator,
    people: Sequence[Person],
    visits: Visits,
    actions: Actions,
    *,
    campaign: NDArray[np.int64],
) -> pa.Table:
    """Return one row per event of these visits, flawless but for junk ids and late arrival."""
    anonymous = chosen([p.anonymous_id for p in people], visits.person)
    ids = [text for p in people for text in (p.anonymous_id, p.distinct_id)]
    distinct_id = chosen(ids, visits.person[actions.visit] * 2 + actions.signed_in)
    junk = rng.integers(0, len(JUNK_IDS), len(visits))
    junk[~some(rng, len(visits), _JUNK_SHARE)] = -1
    is_junk = (junk >= 0)[actions.visit]
    junk_id = chosen(JUNK_IDS, np.maximum(junk, 0)[actions.visit])
    identifies = actions.action == Action.IDENTIFY
    nothing = pa.nulls(len(actions), pa.string())
    return _table(
        rng,
        time=actions.time,
        event=chosen(EVENT_NAMES, actions.action),
        properties=new_properties(rng, visits, actions, campaign=campaign, anonymous_id=anonymous),
        distinct_id=joined(where(is_junk, junk_id), where(~is_junk, distinct_id)),
        elements=where(
            actions.action == Action.RAGECLICK,
            chosen(['button.join:nth-child="2"nth-of-type="1"text="Join"'], actions.action * 0),
        ),
        person_set=where(identifies, chosen(['{"plan":"free"}'], actions.action * 0)),
        person_set_once=nothing,
    )


def server_events(
    rng: np.random.Generator, people: Sequence[Person], count: int, days: Sequence[dt.date]
) -> pa.Table:
    """Return events that the app's server sends for its users: they have no session."""
    users = [p.distinct_id for p in people if p.membership is not Membership.NEVER]
    time = np.array([midnight(day) for day in days])[rng.integers(0, len(days), count)]
    properties = ['{"$lib":"posthog-node","$lib_version":"4.11.0","$geoip_disable":true}']
    nothing = pa.nulls(count, pa.string())
    return _table(
        rng,
        time=time + rng.integers(0, DAY, count),
        event=chosen(_SERVER_EVENTS, rng.integers(0, len(_SERVER_EVENTS), count)),
        properties=chosen(properties, np.zeros(count, dtype=np.int64)),
        distinct_id=chosen(users, rng.integers(0, len(users), count)),
        elements=nothing,
        person_set=nothing,
        person_set_once=nothing,
    )


def hard_coded_session_events(rng: np.random.Generator, days: Sequence[dt.date]) -> pa.Table:
    """Return events of a device whose session id is a constant, a dozen on every day."""
    time = np.repeat(np.array([midnight(day) for day in days]), 12)
    time = np.sort(time + rng.integers(0, DAY // 1_000, len(time)) * 1_000)
    properties = {"$session_id": HARD_CODED_SESSION, "$lib": "web", "$pathname": "/kiosk"}
    first = np.zeros(len(time), dtype=np.int64)
    nothing = pa.nulls(len(time), pa.string())
    return _table(
        rng,
        time=time,
        event=chosen(["$pageview"], first),
        properties=chosen([json.dumps(properties, separators=(",", ":"))], first),
        distinct_id=chosen(["kiosk-1"], first),
        elements=nothing,
        person_set=nothing,
        person_set_once=nothing,
    )


def _table(  # noqa: PLR0913 - one parameter per column that differs
    rng: np.random.Generator,
    *,
    time: NDArray[np.int64],
    event: pa.StringArray,
    properties: pa.StringArray,
    distinct_id: pa.StringArray,
    elements: pa.StringArray,
    person_set: pa.StringArray,
    person_set_once: pa.StringArray,
) -> pa.Table:
    count = len(time)
    hosts = [f"203.0.113.{number}" for number in range(256)]
    return pa.table(
        {
            "uuid": uuid7(rng, time),
            "event": event,
            "properties": properties,
            "elements": elements,
            "set": person_set,
            "set_once": person_set_once,
            "distinct_id": distinct_id,
            "team_id": pa.array(np.ones(count, dtype=np.int64)),
            "ip": chosen(hosts, rng.integers(0, 256, count)),
            "site_url": chosen([""], np.zeros(count, dtype=np.int64)),
            "timestamp": pa.array(time).cast(_TIMESTAMP),
            "bq_ingested_timestamp": pa.array(time + _delay(rng, count)).cast(_TIMESTAMP),
        }
    )


def _delay(rng: np.random.Generator, count: int) -> NDArray[np.int64]:
    """Return how long after it happened a row is ingested: within the hour, or days late."""
    delay = rng.integers(60 * SECOND, 3_900 * SECOND, count)
    delay += np.where(some(rng, count, _LATE_SHARE), rng.integers(DAY, 8 * DAY, count), 0)
    very_late = some(rng, count, _VERY_LATE_SHARE)
    return delay + np.where(very_late, rng.integers(8 * DAY, 20 * DAY, count), 0)
