"""The columns that follow from Firebase and from PostHog's own sessions, plainly. Pure."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from oracle.ids import (
    DAY,
    SECOND,
    creation_of,
    is_junk,
    is_phone_like,
    micros,
    nulls_first,
    phone,
    referred,
    session_id_of,
    time_of,
    trimmed,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from datetime import datetime

    from sessions.metric_types import Creation

type Row = dict[str, Any]

CREATION_TOLERANCE = 60 * SECOND


class Users:
    """The Firebase users, and which of them a distinct id means."""

    def __init__(self, rows: Iterable[Row]) -> None:
        """Keep one row per user id."""
        trim = ("user_id", "phoneNumber", "email")
        rows = [row | {name: trimmed(row.get(name)) for name in trim} for row in rows]
        named = [row for row in rows if row["user_id"]]
        self.bad = len(rows) - len(named)
        self.by_id = _latest_by(named, "user_id", _user_text)

    def match(self, distinct_id: str) -> tuple[str, str] | None:
        """Return (user id, `uid`, `phone` or `email`) of the one user that the id means."""
        if is_junk(distinct_id):
            return None
        if distinct_id in self.by_id:
            return distinct_id, "uid"
        digits = phone(distinct_id) if is_phone_like(distinct_id) else None
        if digits:
            user_id = self._newest(lambda user: phone(user["phoneNumber"] or "") == digits)
            if user_id:
                return user_id, "phone"
        user_id = self._newest(lambda u: (u["email"] or "").lower() == distinct_id.lower())
        return (user_id, "email") if user_id else None

    def columns(self, distinct_ids: list[str], started_at: int) -> Row:
        """Return the user's columns of a session: of the last used id that means someone."""
        matches = (self.match(distinct_id) for distinct_id in reversed(distinct_ids))
        user_id, user_match = next((match for match in matches if match), (None, None))
        created_at = creation_of(self.by_id[user_id]) if user_id else None
        days = None if created_at is None else max((started_at - created_at) // DAY, 0)
        return {
            "user_id": user_id,
            "user_match": user_match,
            "user_signed_up_at": None if created_at is None else time_of(created_at),
            "days_since_signup": days,
        }

    def signed_up_at(self, user_id: str) -> datetime | None:
        """Return when the user was created; None where that, or the user, is not known."""
        created_at = creation_of(self.by_id.get(user_id, {}))
        return None if created_at is None else time_of(created_at)

    def _newest(self, is_meant: Callable[[Row], bool]) -> str | None:
        found = [
            (nulls_first(creation_of(user)), user_id)
            for user_id, user in self.by_id.items()
            if is_meant(user)
        ]
        return max(found)[1] if found else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Documents:
    """What users created: (creation time, whether a check-in), by creator."""

    by_creator: Mapping[str, list[tuple[int, bool]]]
    bad: int

    def columns(self, user_id: str | None, started_at: int, ended_at: int) -> Row:
        """Return what the user created within the session, with the tolerance on both sides."""
        first, last = started_at - CREATION_TOLERANCE, ended_at + CREATION_TOLERANCE
        created = self.by_creator.get(user_id, []) if user_id else []
        within = [is_checkin for at, is_checkin in created if first <= at <= last]
        events_created = within.count(False)
        return {
            "created_event": events_created > 0,
            "events_created": events_created,
            "checkins_created": within.count(True),
        }


def read_documents(creation: Creation, rows: Iterable[Row]) -> Documents:
    """Return the documents that count, and how many lack what they need to count.

    Those of an ignored type are neither.
    """
    rows = [row | {"document_id": trimmed(row.get("document_id"))} for row in rows]
    named = [row for row in rows if row["document_id"]]
    bad = sum(not row["document_id"] and row.get("type") not in creation.ignored for row in rows)
    by_creator: dict[str, list[tuple[int, bool]]] = {}
    for row in _latest_by(named, "document_id", _document_text).values():
        creator = referred(row.get("user_id") or "")
        created_at = creation_of(row)
        kind = row.get("type")
        if kind in creation.ignored:
            continue
        if not creator or created_at is None:
            bad += 1
        else:
            by_creator.setdefault(creator, []).append((created_at, kind in creation.checkins))
    return Documents(by_creator=by_creator, bad=bad)


def channels(rows: Iterable[Row]) -> dict[str, str | None]:
    """Return each session's channel: of the latest end, then the greatest."""
    latest: dict[str, tuple[tuple[bool, int], tuple[bool, str], str | None]] = {}
    for row in rows:
        channel = row.get("channel_type")
        end = nulls_first(micros(row.get("end_timestamp")))
        key = (end, (channel is not None, channel or ""), channel)
        session_id = session_id_of(row.get("session_id"))
        if session_id and (session_id not in latest or key[:2] > latest[session_id][:2]):
            latest[session_id] = key
    return {session_id: key[2] for session_id, key in latest.items()}


def _latest_by(rows: list[Row], key: str, text: Callable[[Row], str]) -> dict[str, Row]:
    """Return one row per key: the latest load, then the latest creation, then the MD5."""

    def rank(row: Row) -> tuple[tuple[bool, int], tuple[bool, int], str]:
        md5 = hashlib.md5(text(row).encode(), usedforsecurity=False).hexdigest()
        loaded_at, created_at = micros(row.get("etl_loaded_at")), creation_of(row)
        return nulls_first(loaded_at), nulls_first(created_at), md5

    latest: dict[str, Row] = {}
    for row in rows:
        if row[key] not in latest or rank(row) > rank(latest[row[key]]):
            latest[row[key]] = row
    return latest


def _user_text(row: Row) -> str:
    created_at = creation_of(row)
    parts = (row.get("user_id"), row.get("phoneNumber"), row.get("email"), created_at)
    return "|".join("" if part is None else str(part) for part in parts)


def _document_text(row: Row) -> str:
    created_at = creation_of(row)
    parts = (row.get("document_id"), row.get("user_id"), created_at, row.get("type"))
    return "|".join("" if part is None else str(part) for part in parts)
