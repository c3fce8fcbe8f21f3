"""Who uses the app: registered users and visitors who stay anonymous. Pure.

What a person does by habit follows from a hash of the person's key, so that whoever was met
before is met again with the same device and the same ids.
"""

from __future__ import annotations

import hashlib
import uuid
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

FIRST_NAMES: Final = ("Ada", "Bo", "Cleo", "Dan", "Eve", "Finn", "Gia", "Hal", "Ida", "Jo", "Kim")
LAST_NAMES: Final = ("Adler", "Brook", "Cole", "Dale", "Ellis", "Frost", "Grant", "Hale", "Ives")
_USER_ID_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
_USER_ID_LENGTH = 28
_PHONE_NUMBERS = 10_000_000

REGISTERED_SHARE: Final = 0.65
_JOINS_SHARE = 0.35
_NO_PHONE_SHARE = 0.06
_NO_EMAIL_SHARE = 0.2
_SHARED_PHONE_SHARE = 0.03
# Of 256: how many are identified by phone, and up to where by e-mail.
_PHONE_LIMIT = 40
_EMAIL_LIMIT = 80


class Platform(IntEnum):
    """What a person's device runs."""

    REACT_NATIVE_IOS = 0
    REACT_NATIVE_ANDROID = 1
    WEB = 2
    NATIVE_IOS = 3


class Membership(IntEnum):
    """When a person signed up, seen from the days that are generated."""

    BEFORE = 0
    DURING = 1
    NEVER = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """One user of the app; `distinct_id` is what the app identifies them by, once signed in."""

    user_id: str | None
    phone: str | None
    email: str | None
    distinct_id: str | None
    anonymous_id: str
    platform: Platform
    membership: Membership
    joins_at_visit: int


def new_people(rng: np.random.Generator, count: int) -> list[Person]:
    """Return people nobody has met, some with the phone of another among them."""
    people: list[Person] = []
    for number in range(count):
        if number and rng.random() > REGISTERED_SHARE:
            people.append(_person(f"visitor {rng.integers(2**62)}", Membership.NEVER))
            continue
        user_id = "".join(_USER_ID_ALPHABET[i] for i in rng.integers(0, 62, _USER_ID_LENGTH))
        phone: str | None = f"+1555{rng.integers(_PHONE_NUMBERS):07d}"
        draw = rng.random()
        if draw < _NO_PHONE_SHARE:
            phone = None
        elif draw < _NO_PHONE_SHARE + _SHARED_PHONE_SHARE and people:
            phone = people[rng.integers(len(people))].phone or phone
        first, last = full_name(user_id).lower().split()
        email = f"{first}.{last}{rng.integers(100_000)}@example.com"
        joins = rng.random() < _JOINS_SHARE
        people.append(
            _person(
                user_id,
                Membership.DURING if joins else Membership.BEFORE,
                phone=phone,
                email=None if rng.random() < _NO_EMAIL_SHARE else email,
            )
        )
    return people


def known_people(users: Sequence[tuple[str, str | None, str | None]]) -> list[Person]:
    """Return the people behind stored users, given as user id, phone and e-mail."""
    return [_person(user_id, Membership.BEFORE, phone=p, email=e) for user_id, p, e in users]


def full_name(user_id: str) -> str:
    """Return the made-up name of a user."""
    habits = _habits(user_id)
    return f"{FIRST_NAMES[habits[8] % 11]} {LAST_NAMES[habits[9] % 9]}"


def _habits(key: str) -> bytes:
    return hashlib.blake2b(key.encode(), digest_size=32).digest()


def _person(
    key: str, membership: Membership, *, phone: str | None = None, email: str | None = None
) -> Person:
    habits = _habits(key)
    registered = membership is not Membership.NEVER
    return Person(
        user_id=key if registered else None,
        phone=phone,
        email=email,
        distinct_id=_identified_by(key, phone, email, habits) if registered else None,
        anonymous_id=str(uuid.UUID(bytes=habits[16:], version=4)),
        platform=_platform(habits[0]),
        membership=membership,
        joins_at_visit=habits[1] % 3,
    )


def _platform(draw: int) -> Platform:
    limits = ((100, Platform.REACT_NATIVE_IOS), (150, Platform.REACT_NATIVE_ANDROID))
    for limit, platform in (*limits, (240, Platform.WEB)):
        if draw < limit:
            return platform
    return Platform.NATIVE_IOS


def _identified_by(user_id: str, phone: str | None, email: str | None, habits: bytes) -> str:
    """Return the user id for most, the phone (some with spaces and dashes) or e-mail for others."""
    draw = habits[2]
    if draw < _PHONE_LIMIT and phone is not None:
        area, rest = phone[2:5], phone[5:]
        styles = (
            phone,
            phone,
            f"+1 ({area}) {rest[:3]}-{rest[3:]}",
            f"1 {area}-{rest[:3]}-{rest[3:]}",
        )
        return styles[habits[3] % 4]
    if draw < _EMAIL_LIMIT and email is not None:
        return email.upper() if habits[3] % 4 == 0 else email
    return user_id
