"""PostHog's own session rows: incomplete and at times stale. Pure."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow as pa

from sandbox.generator.actions import PAGES, Action
from sandbox.generator.people import Platform
from sandbox.generator.properties import CAMPAIGNS, HOST
from sandbox.generator.text import chosen, where
from sandbox.generator.visits import SECOND

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from sandbox.generator.actions import Actions
    from sandbox.generator.people import Person
    from sandbox.generator.visits import Visits

CHANNELS: Final = ("Direct", "Organic Search", "Paid Social", "Email", "Referral", "Unknown")
_MISSING_SHARE = 0.05
_STALE_SHARE = 0.1
_STALE_AND_FRESH_SHARE = 0.02
_TIMESTAMP = pa.timestamp("us", tz="UTC")
_BOUNCE_MICROSECONDS = 10 * SECOND


def posthog_sessions(
    rng: np.random.Generator,
    people: Sequence[Person],
    visits: Visits,
    actions: Actions,
    *,
    campaign: NDArray[np.int64],
) -> pa.Table:
    """Return a row for most visits, for some of them as they stood half-way, for a few both."""
    whole = _rows(people, visits, actions, campaign, until=visits.events)
    half = _rows(people, visits, actions, campaign, until=(visits.events + 1) // 2)
    draw = rng.random(len(visits))
    stale = draw < _STALE_SHARE
    fresh = (draw >= _STALE_SHARE - _STALE_AND_FRESH_SHARE) & (draw < 1 - _MISSING_SHARE)
    return pa.concat_tables([half.filter(pa.array(stale)), whole.filter(pa.array(fresh))])


def _rows(
    people: Sequence[Person],
    visits: Visits,
    actions: Actions,
    campaign: NDArray[np.int64],
    *,
    until: NDArray[np.int64],
) -> pa.Table:
    """Return the row of every visit, of its events before position `until` alone."""
    first = np.cumsum(visits.events) - visits.events
    counted = actions.position < until[actions.visit]
    last = first + until - 1
    started = np.minimum.reduceat(np.where(counted, actions.time, np.iinfo(np.int64).max), first)
    ended = np.maximum.reduceat(np.where(counted, actions.time, 0), first)
    pageviews, autocaptures, screens = (
        np.add.reduceat((counted & (actions.action == action)).astype(np.int64), first)
        for action in (Action.PAGEVIEW, Action.AUTOCAPTURE, Action.SCREEN)
    )
    ids = [text for p in people for text in (p.anonymous_id, p.distinct_id)]
    is_web = visits.platform == Platform.WEB
    urls, unique_urls = _urls(actions, counted & is_web[actions.visit], len(visits))
    duration = ended - started
    seen = pageviews + autocaptures + screens
    bounced = (seen <= 1) & (duration < _BOUNCE_MICROSECONDS)
    entry, end = actions.place[first], actions.place[last]
    campaigns = {
        f"entry_{name.removeprefix('$')}": where(
            campaign >= 0, chosen([c.get(name) for c in CAMPAIGNS], np.maximum(campaign, 0))
        )
        for name in ("utm_source", "utm_medium", "utm_campaign", "$referring_domain")
    }
    return pa.table(
        {
            "session_id": visits.session_id,
            "session_id_v7": pa.array(
                [str(uuid.UUID(text).int) for text in visits.session_id.to_pylist()]
            ),
            "team_id": pa.array(np.ones(len(visits), dtype=np.int64)),
            "distinct_id": chosen(ids, visits.person * 2 + actions.signed_in[last]),
            "start_timestamp": pa.array(started).cast(_TIMESTAMP),
            "end_timestamp": pa.array(ended).cast(_TIMESTAMP),
            "urls": urls,
            "num_uniq_urls": pa.array(unique_urls),
            **_pages("entry", entry, is_web),
            **_pages("end", end, is_web),
            **campaigns,
            "entry_gclid": pa.nulls(len(visits), pa.string()),
            "pageview_count": pa.array(pageviews),
            "autocapture_count": pa.array(autocaptures),
            "screen_count": pa.array(screens),
            "channel_type": chosen(CHANNELS, np.where(campaign < 0, len(CHANNELS) - 1, campaign)),
            "session_duration": pa.array(ended // SECOND - started // SECOND),
            "is_bounce": pa.array(bounced, mask=seen == 0),
        }
    )


def _pages(
    side: str, place: NDArray[np.int64], is_web: NDArray[np.bool_]
) -> dict[str, pa.StringArray]:
    index = np.where(is_web, place, 0)
    urls = [f"https://{HOST}{page}" for page in PAGES]
    return {
        f"{side}_current_url": where(is_web, chosen(urls, index)),
        f"{side}_pathname": where(is_web, chosen(PAGES, index)),
    }


def _urls(
    actions: Actions, seen: NDArray[np.bool_], visits: int
) -> tuple[pa.ListArray[pa.StringScalar], NDArray[np.int64]]:
    """Return the distinct URLs of every visit, and their number."""
    pairs = np.unique((actions.visit * len(PAGES) + actions.place)[seen & (actions.place >= 0)])
    offsets = np.searchsorted(pairs // len(PAGES), np.arange(visits + 1))
    urls = chosen([f"https://{HOST}{page}" for page in PAGES], pairs % len(PAGES))
    lists = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), urls)
    return lists, np.diff(offsets)
