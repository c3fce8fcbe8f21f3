"""Ids, phone numbers, references to users, and times, as the documents define them. Pure."""

from __future__ import annotations

import contextlib
import json
import re
import unicodedata
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
SECOND = 1_000_000  # all times are integer microseconds since EPOCH
DAY = 86_400 * SECOND
FIRST_CREATION_AT = (datetime(1971, 1, 1, tzinfo=UTC) - EPOCH) // timedelta(microseconds=1)
MINIMUM_PHONE_DIGITS = 7

JUNK_IDS = {
    "", "0", "0.0", "00000000-0000-0000-0000-000000000000", "00000000000000000000000000000000",
    "anonymous", "guest", "distinctid", "distinct_id", "id", "email", "not_authenticated",
    "null", "undefined", "none", "nan", "nil", "na", "n/a", "#n/a", "nat", "unknown", "true",
    "false", "infinity", "-infinity", "invalid date",
    "object object", "object promise", "object null", "object undefined",
}  # fmt: skip
BLANKS = "\t\n\v\f\r\x85\u200b\ufeff" + "".join(
    chr(code) for code in range(0x10000) if unicodedata.category(chr(code)).startswith("Z")
)
UUID = re.compile("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
FLOAT = re.compile(r"[+]?[1-9][.][0-9]+[eE][+]?(0?[6-9]|1[0-4])")


def trimmed(text: str | None) -> str | None:
    """Return the text without blanks at its ends, None where nothing is left."""
    return (text or "").strip(BLANKS) or None


def is_junk(some_id: str) -> bool:
    """Whether an id means nobody, in whatever quotes and brackets."""
    return some_id.lower().strip("[](){}<>\"'`") in JUNK_IDS


def session_id_of(text: str | None) -> str | None:
    """Return the id of a session as PostHog has it, None for a junk id."""
    some_id = trimmed(text)
    if some_id is None or is_junk(some_id):
        return None
    bare = some_id.lower().removeprefix("{").removeprefix("(").removesuffix("}").removesuffix(")")
    return bare if UUID.fullmatch(bare) else some_id


def is_phone_like(some_id: str) -> bool:
    """Whether an id may be a phone: of digits, + . ( ) and any space or dash, or a float of one."""
    return FLOAT.fullmatch(some_id) is not None or all(
        each in "0123456789-+.()\t\n\f\r\u2212\uff0b"
        or unicodedata.category(each) in {"Pd", "Cf", "Zs", "Zl", "Zp"}
        for each in some_id
    )


def phone(text: str) -> str | None:
    """Return the digits of a phone number with its country code, None for anything else."""
    if FLOAT.fullmatch(text):
        text = str(int(float(text)))
    if re.fullmatch("[+]?[0-9]+[.]0", text):
        text = text[:-2]
    country, zero, rest = text.partition("(0)")
    if zero and re.search("[0-9]", country) and is_phone_like(country):
        text = country + rest
    digits = "".join(re.findall("[0-9]", text)).removeprefix("00")
    return digits if len(digits) >= MINIMUM_PHONE_DIGITS and digits[0] != "0" else None


def referred(creator: str) -> str | None:
    """Return the user that a creator names: by id, or by any form of a Firestore reference."""
    text = trimmed(creator) or ""
    if text.startswith("{"):
        with contextlib.suppress(ValueError):
            return next(filter(None, map(_of_path, _texts(json.loads(text)))), text)
    found = _of_path(text)
    return trimmed(text if found is None else found)


def _of_path(path: str) -> str | None:
    collection, slash, some_id = path.rpartition("/documents/")[2].lstrip("/").partition("/")
    some_id = some_id.rstrip("/")
    return some_id if collection == "users" and slash and "/" not in some_id else None


def _texts(value: Any) -> list[str]:  # noqa: ANN401 - whatever JSON holds
    """Return the texts within a JSON value; a list of path segments as one path."""
    match value:
        case str():
            return [value]
        case dict():
            return [text for each in value.values() for text in _texts(each)]
        case list() if all(isinstance(each, str) for each in value):
            return ["/".join(value)]
        case _:
            return []


def micros(value: datetime | str | None) -> int | None:
    """Return a time as microseconds since 1970; a time without a zone is UTC."""
    if value is None:
        return None
    at = datetime.fromisoformat(value) if isinstance(value, str) else value
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    return (at - EPOCH) // timedelta(microseconds=1)


def creation_of(row: Mapping[str, Any]) -> int | None:
    """Return when a user or document was created; 1970 and before stand for no time."""
    at = micros(row.get("createdAt"))
    return at if at is not None and at >= FIRST_CREATION_AT else None


def time_of(micros: int) -> datetime:
    """Return the time of so many microseconds since 1970."""
    return EPOCH + timedelta(microseconds=micros)


def nulls_first(value: int | None) -> tuple[bool, int]:
    """Return a sort key that puts None before every number."""
    return value is not None, value or 0
