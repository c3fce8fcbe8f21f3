"""What `persons`, `identities` and `daily_activity` must contain, slowly and plainly: no SQL.

Written from the documents alone, as functions of the rows of `sessions` and of Firebase's raw users
and documents. How each column of a session becomes a person's is listed here once more, so that an
error in the metric table shows.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

from oracle.ids import EPOCH, is_junk
from oracle.people import Users, read_documents
from tests.shipped import METRIC_TABLE

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

type Row = dict[str, Any]
type Created = list[tuple[date, bool]]  # the UTC day, and whether it is a check-in

COUNTED = (
    "event_count", "pageview_count", "screen_count", "autocapture_count", "rageclick_count",
    "scroll_count", "touch_count", "events_viewed", "events_joined",
)  # fmt: skip
MEASURED = ("duration_seconds", "engaged_seconds", "quiz_seconds")  # added too; of none: null
EVER = (
    "scrolled", "viewed_event", "joined_event", "invited_someone", "enabled_contacts",
    "visited_discover", "started_quiz", "completed_quiz", "is_engaged",
)  # fmt: skip
GREATEST = {
    "max_unique_screens": "unique_screens",
    "max_unique_pages": "unique_pages",
    "max_scroll_depth": "max_scroll_depth",
    "max_content_depth": "max_content_depth",
    "max_touch_reach": "touch_reach",
}
DEVICE = ("lib", "os", "device_type", "app_version", "country", "city")
FIRST = (
    "entry_screen", "entry_url", "referring_domain", "utm_source", "utm_medium", "utm_campaign",
    "channel_type", *DEVICE,
)  # fmt: skip
LAST = ("distinct_id", "exit_screen", "exit_url", *DEVICE)
RETENTION_DAYS = (1, 7, 30)


@dataclass(frozen=True, slots=True, kw_only=True)
class Derived:
    """The three tables: rows by key, without the columns of the run itself."""

    identities: dict[str, str] = field(default_factory=dict)
    persons: dict[str, Row] = field(default_factory=dict)
    daily_activity: dict[str, Row] = field(default_factory=dict)


def person_key(row: Row) -> str:
    """Which person a row is of: an anonymous id may look like a user's."""
    return f"user {row['user_id']}" if row["user_id"] else f"anonymous {row['person_id']}"


def daily_key(row: Row) -> str:
    """Which person and day a row is of."""
    return f"{row['activity_date']} of {person_key(row)}"


def expected_derived(
    sessions: Mapping[str, Row],
    users: Iterable[Row],
    documents: Iterable[Row],
    *,
    ties: Iterable[tuple[str, str]],
    today: date,
    churn_days: int = 14,
) -> Derived:
    """Return what a run that starts on the UTC day `today` makes of these sessions."""
    people = Users(users)
    created = {
        user_id: [((EPOCH + timedelta(microseconds=at)).date(), checkin) for at, checkin in each]
        for user_id, each in read_documents(METRIC_TABLE.creation, documents).by_creator.items()
    }
    identities = _identities(ties, people)
    result = Derived(identities=identities)
    for (user_id, person_id), theirs in _by_person(sessions.values(), identities).items():
        who: Row = {"person_id": person_id, "user_id": user_id}
        made = created.get(user_id, []) if user_id else []
        person = who | _seen(theirs, today, churn_days) | _rolled_up(theirs) | _created(made)
        person["user_signed_up_at"] = people.signed_up_at(user_id) if user_id else None
        result.persons[person_key(person)] = person
        for day in {row["session_date"] for row in theirs} | {day for day, _ in made}:
            of_day = who | {"activity_date": day} | _active(theirs, made, day)
            result.daily_activity[daily_key(of_day)] = of_day
    return result


def nobodys(sessions: Mapping[str, Row]) -> int:
    """Return how many sessions have neither user nor distinct id that means somebody."""
    return sum(
        not row["user_id"] and all(map(is_junk, row["distinct_ids"])) for row in sessions.values()
    )


def _identities(ties: Iterable[tuple[str, str]], people: Users) -> dict[str, str]:
    """Return the ids that mean no user and are tied to ids of one user, in either direction."""
    tied: dict[str, set[str]] = {}
    for pair in ties:
        for anonymous_id, other_id in (pair, pair[::-1]):
            meant = people.match(other_id)
            is_somebody = people.match(anonymous_id) is not None
            if meant and not is_somebody and not is_junk(anonymous_id):
                tied.setdefault(anonymous_id, set()).add(meant[0])
    return {each: min(user_ids) for each, user_ids in tied.items() if len(user_ids) == 1}


def _by_person(
    sessions: Iterable[Row], identities: Mapping[str, str]
) -> dict[tuple[str | None, str], list[Row]]:
    """Return each person's sessions, by user and person id, in order of their starts."""
    found: dict[tuple[str | None, str], list[Row]] = {}
    for row in sorted(sessions, key=lambda row: (row["started_at"], row["session_id"])):
        tied = [identities[used] for used in row["distinct_ids"] if used in identities]
        user_id = row["user_id"] or (tied[-1] if tied else None)
        known = [used for used in row["distinct_ids"] if not is_junk(used)]
        person_id = user_id or (known[-1] if known else None)
        if person_id is not None:
            found.setdefault((user_id, person_id), []).append(row)
    return found


def _seen(sessions: list[Row], today: date, churn_days: int) -> Row:
    days = {row["session_date"] for row in sessions}
    last_seen_at = max(row["ended_at"] for row in sessions)
    away = max((today - last_seen_at.date()).days, 0)
    return {
        "first_seen_at": sessions[0]["started_at"],
        "last_seen_at": last_seen_at,
        "session_count": len(sessions),
        "active_days": len(days),
        "days_since_last_seen": away,
        "is_churned": away >= churn_days,
        **{f"returned_day_{number}": _returned(days, number, today) for number in RETENTION_DAYS},
    }


def _returned(days: set[date], number: int, today: date) -> bool | None:
    """Return whether the person came that many days after the first; None while it may yet be."""
    day = min(days) + timedelta(days=number)
    if day in days:
        return True
    return False if day < today else None


def _rolled_up(sessions: list[Row]) -> Row:
    return {
        **_added(sessions),
        **{name: any(row[name] for row in sessions) for name in EVER},
        **{name: max(_known(sessions, of), default=None) for name, of in GREATEST.items()},
        **{f"first_{name}": next(iter(_known(sessions, name)), None) for name in FIRST},
        **{f"last_{name}": next(iter(_known(sessions, name)[::-1]), None) for name in LAST},
    }


def _added(sessions: list[Row]) -> Row:
    row: Row = {name: sum(each[name] for each in sessions) for name in COUNTED}
    for name in MEASURED:
        values = _known(sessions, name)
        row[name] = sum(values) if values else None
    return row


def _known(sessions: list[Row], name: str) -> list[Any]:
    return [row[name] for row in sessions if row[name] is not None]


def _created(made: Created) -> Row:
    counted = Counter(made)
    days = sorted({day for day, _ in made})
    events_created = sum(not is_checkin for _, is_checkin in made)
    return {
        "events_created": events_created,
        "checkins_created": len(made) - events_created,
        "created_event": events_created > 0,
        "creation_days": [
            {
                "day": day,
                "events_created": counted[day, False],
                "checkins_created": counted[day, True],
            }
            for day in days
        ],
    }


def _active(sessions: list[Row], made: Created, day: date) -> Row:
    of_day = [row for row in sessions if row["session_date"] == day]
    return {
        "session_count": len(of_day),
        **_added(of_day),
        "events_created": made.count((day, False)),
        "checkins_created": made.count((day, True)),
    }
