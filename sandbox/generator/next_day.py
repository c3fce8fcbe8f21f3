"""One more day after a stored history: its visits, and what arrives late or changes. Pure."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sandbox.generator.firebase import changed_documents, changed_user, user_rows
from sandbox.generator.flaws import ingested_on, redelivered
from sandbox.generator.history import Period, batches_of_visits, without_visits
from sandbox.generator.people import known_people, new_people
from sandbox.generator.text import uuid7
from sandbox.generator.visits import SECOND, joined_at, new_visits
from sandbox.rows import arrow_table
from sandbox.tables import schema

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from sandbox.generator.history import Batch

_TIMESTAMP = pa.timestamp("us", tz="UTC")
_LATE_DAYS = 5
_VISITS_PER_NEW_PERSON = 10
_VISITS_PER_LATE_VISIT = 20
_VISITS_PER_CHANGED_USER = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """What the next day builds on: the newest day, the users, and samples of recent rows.

    `events`, `documents` and `sessions` are Arrow tables in the shape of their tables.
    """

    newest_day: dt.date
    users: Sequence[Mapping[str, object]]
    events: pa.Table
    documents: pa.Table
    sessions: pa.Table


def next_day(stored: Stored, *, seed: int, sessions: int) -> Iterator[Batch]:
    """Yield the rows of the day after the newest, the same for the same stored rows and seed.

    Some belong to earlier days: whole visits, further events of stored sessions, repeats.
    """
    day = stored.newest_day + dt.timedelta(days=1)
    period = Period(last_day=day, days=1)
    rng = np.random.default_rng([seed, day.toordinal(), len(stored.users), sessions])
    known = known_people([_identity(row) for row in stored.users])
    new = new_people(rng, max(5, sessions // _VISITS_PER_NEW_PERSON))
    people = [*known, *new]
    visits = new_visits(rng, people, sessions, period.dates)
    joined = {n - len(known): at for n, at in joined_at(visits, people).items() if n >= len(known)}
    yield {
        "firebase_users": user_rows(rng, new, joined, since=period.since, until=period.exported),
        "posthog_events": without_visits(rng, people, sessions, period),
    }
    yield _changes(rng, stored, period, sessions)
    yield from batches_of_visits(rng, people, visits, period)
    earlier = [day - dt.timedelta(days=n) for n in range(1, _LATE_DAYS + 1)]
    late = new_visits(rng, people, max(1, sessions // _VISITS_PER_LATE_VISIT), earlier)
    for batch in batches_of_visits(rng, people, late, period):
        yield batch | {"posthog_events": ingested_on(rng, batch["posthog_events"], period.since)}


def _changes(rng: np.random.Generator, stored: Stored, period: Period, sessions: int) -> Batch:
    """Return what arrives about stored rows: repeats, afterthoughts, later loads of the same."""
    count = min(len(stored.users), max(1, sessions // _VISITS_PER_CHANGED_USER))
    which = rng.permutation(len(stored.users))[:count]
    users = [changed_user(rng, stored.users[n], loaded_at=period.exported) for n in which]
    half = stored.events.num_rows // 2
    repeats = redelivered(rng, stored.events.slice(0, half))
    late = pa.concat_tables([repeats, _afterthoughts(rng, stored.events.slice(half))])
    return {
        "posthog_events": ingested_on(rng, late, period.since),
        "posthog_sessions": _continued(stored.sessions),
        "firebase_users": arrow_table(
            users, schema("firebase_users", "string"), table="firebase_users"
        ),
        "firebase_events": changed_documents(rng, stored.documents, loaded_at=period.exported),
    }


def _afterthoughts(rng: np.random.Generator, events: pa.Table) -> pa.Table:
    """Return new events of the same sessions, seconds to minutes after the ones given."""
    times = events["timestamp"].cast(pa.int64()).fill_null(0).to_numpy()
    times = times + rng.integers(1, 600, len(times)) * SECOND
    return _with(events, uuid=uuid7(rng, times), timestamp=pa.array(times).cast(_TIMESTAMP))


def _continued(sessions: pa.Table) -> pa.Table:
    """Return PostHog's session rows as they stand after ten more minutes and a new channel."""
    more = pa.scalar(dt.timedelta(minutes=10), pa.duration("us"))
    referral = pa.array(["Referral"] * sessions.num_rows, pa.string())
    ends = pc.add(sessions["end_timestamp"], more)
    return _with(sessions, end_timestamp=ends, channel_type=referral)


def _with(table: pa.Table, **columns: pa.Array[pa.Scalar[pa.DataType]]) -> pa.Table:
    for name, column in columns.items():
        table = table.set_column(table.schema.get_field_index(name), name, column)
    return table


def _identity(row: Mapping[str, object]) -> tuple[str, str | None, str | None]:
    phone, email = row.get("phoneNumber"), row.get("email")
    return str(row["user_id"]), str(phone) if phone else None, str(email) if email else None
