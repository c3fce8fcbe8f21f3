"""Rows of Firebase's tables: the users of the app and the documents that they made. Pure."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from sandbox.generator.actions import Action
from sandbox.generator.chance import happens, some
from sandbox.generator.people import Membership, full_name
from sandbox.generator.text import chosen, uuid7, where
from sandbox.generator.visits import DAY, HOUR, SECOND
from sandbox.rows import arrow_table
from sandbox.tables import schema

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sandbox.generator.actions import Actions
    from sandbox.generator.people import Person
    from sandbox.generator.visits import Visits

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_TIMESTAMP = pa.timestamp("us", tz="UTC")
_SOCIAL_TYPES = ("base", "fundraising", "ticketed")
_CHECK_IN_TYPE = "checkin"


def user_rows(
    rng: np.random.Generator,
    people: Sequence[Person],
    joined_at: Mapping[int, int],
    *,
    since: int,
    until: int,
) -> pa.Table:
    """Return the users, some repeated by a later load with changes, some without creation time.

    `joined_at` says when those who signed up in between did; who never came back did so at `since`.
    """
    rows: list[dict[str, object]] = []
    for number, person in enumerate(people):
        if person.user_id is None:
            continue
        if person.membership is Membership.BEFORE:
            created = since - int(rng.integers(DAY, 500 * DAY))
        else:
            created = joined_at.get(number, since) + 5 * SECOND
        loaded = max(created, since) // DAY * DAY + DAY + 2 * HOUR
        row = _user_row(rng, person, created, min(loaded, until))
        rows.append(row)
        if happens(rng, 0.08):
            rows.append(changed_user(rng, row, loaded_at=min(loaded + 2 * DAY, until)))
        elif happens(rng, 0.02):
            rows.append(row)
    return arrow_table(rows, schema("firebase_users", "string"), table="firebase_users")


def changed_user(
    rng: np.random.Generator, row: Mapping[str, object], *, loaded_at: int
) -> dict[str, object]:
    """Return the row as a later load has it: another flag, at times another phone or e-mail."""
    changed = {**row, "contactAccessGranted": True, "etl_loaded_at": _moment(loaded_at)}
    if happens(rng, 0.2):
        changed["phoneNumber"] = f"+1555{rng.integers(10_000_000):07d}"
    elif happens(rng, 0.1):
        changed["email"] = f"new.{rng.integers(100_000)}@example.com"
    return changed


def documents(
    rng: np.random.Generator,
    people: Sequence[Person],
    visits: Visits,
    actions: Actions,
    *,
    loaded_at: int,
) -> pa.Table:
    """Return what signed-in visitors made, within seconds of their events or a little later.

    Some are repeated by a load at `loaded_at`; some lack creator, creation time or id.
    """
    makes = (actions.action == Action.CREATE_EVENT) | (actions.action == Action.CHECK_IN)
    made = np.flatnonzero(makes & actions.signed_in)
    count = len(made)
    after = rng.integers(-2 * SECOND, 5 * SECOND, count)
    after = np.where(some(rng, count, 0.1), rng.integers(0, 90 * SECOND, count), after)
    created = actions.time[made] + after
    checks_in = actions.action[made] == Action.CHECK_IN
    kind = np.where(checks_in, len(_SOCIAL_TYPES), rng.choice(3, count, p=(0.7, 0.1, 0.2)))
    owner = visits.person[actions.visit[made]]
    owners = [p.user_id for p in people]
    prefixed = some(rng, count, 0.02)
    table = pa.table(
        {
            "document_id": where(~some(rng, count, 0.002), uuid7(rng, created)),
            "user_id": where(
                ~some(rng, count, 0.01),
                chosen(
                    [*owners, *(o and f"users/{o}" for o in owners)], owner + len(owners) * prefixed
                ),
            ),
            "createdAt": pa.array(created, mask=some(rng, count, 0.005)).cast(_TIMESTAMP),
            "eventDate": _dates(created + rng.integers(0, 30 * DAY, count)),
            "type": where(~some(rng, count, 0.01), chosen([*_SOCIAL_TYPES, _CHECK_IN_TYPE], kind)),
            "etl_loaded_at": pa.array((created // DAY + 1) * DAY + 2 * HOUR).cast(_TIMESTAMP),
        }
    )
    again = table.filter(pa.array(some(rng, count, 0.05)))
    return pa.concat_tables([table, changed_documents(rng, again, loaded_at=loaded_at)])


def changed_documents(rng: np.random.Generator, rows: pa.Table, *, loaded_at: int) -> pa.Table:
    """Return the documents as a load at `loaded_at` has them, of another type."""
    kinds = chosen(_SOCIAL_TYPES, rng.integers(0, len(_SOCIAL_TYPES), rows.num_rows))
    loaded = pa.array(np.full(rows.num_rows, loaded_at)).cast(_TIMESTAMP)
    rows = rows.set_column(rows.schema.get_field_index("type"), "type", kinds)
    return rows.set_column(rows.schema.get_field_index("etl_loaded_at"), "etl_loaded_at", loaded)


def _user_row(
    rng: np.random.Generator, person: Person, created: int, loaded: int
) -> dict[str, object]:
    user_id = person.user_id or ""
    name = full_name(user_id)
    return {
        "user_id": user_id,
        "phoneNumber": person.phone,
        "fullName": name,
        "username": f"{name.split()[0].lower()}_{user_id[:5]}",
        "email": person.email,
        "contactAccessGranted": [True, False, None][rng.integers(3)],
        "businessUser": [False, False, True, None][rng.integers(4)],
        "createdAt": None if happens(rng, 0.03) else _moment(created),
        "etl_loaded_at": _moment(loaded),
    }


def _moment(microseconds: int) -> dt.datetime:
    return _EPOCH + dt.timedelta(microseconds=microseconds)


def _dates(times: np.ndarray[tuple[int], np.dtype[np.int64]]) -> pa.StringArray:
    days, index = np.unique(times // DAY, return_inverse=True)
    return chosen([_moment(int(day) * DAY).date().isoformat() for day in days], index)
