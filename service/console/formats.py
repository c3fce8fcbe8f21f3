"""Numbers, times and sizes as the console's pages write them. Pure."""

from __future__ import annotations

import re
from contextlib import suppress
from datetime import UTC, date, datetime
from typing import Final

from runs.errors import RequestError

NONE: Final = "\N{EN DASH}"
_MINUTE: Final = 60
_HOUR: Final = 3600
_DAY: Final = 86_400
_KILO: Final = 1000
_SMALL: Final = 10
_CENT: Final = 0.01


def number(value: float | None) -> str:
    """A count in full, with commas; other numbers with up to two decimals."""
    if value is None:
        return NONE
    if float(value).is_integer():
        return f"{int(value):,}"
    return f"{value:,.2f}".rstrip("0").rstrip(".")


def counted(value: float | None, name: str) -> str:
    """A count with the name of what is counted: 1 session, 2 sessions."""
    return f"{number(value)} {name}" + ("" if value == 1 else "s")


def compact(value: float | None) -> str:
    """A count in at most four characters and a letter: 950, 1.2k, 34k, 5.6M."""
    if value is None:
        return NONE
    for letter, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(value) >= size:
            scaled = value / size
            return f"{scaled:.1f}{letter}" if abs(scaled) < _SMALL else f"{scaled:.0f}{letter}"
    return number(round(value, 1))


def share(value: float | None) -> str:
    """A part of 1 in percent."""
    return NONE if value is None else f"{100 * value:.1f} %"


def duration(seconds: float | None) -> str:
    """Seconds as people say them: 0.4 s, 52 s, 3 min 5 s, 2 h 10 min, 4 days."""
    if seconds is None:
        return NONE
    if seconds < _SMALL:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < _MINUTE:
        return f"{whole} s"
    if whole < _HOUR:
        return _two(whole, _MINUTE, "min", 1, "s")
    if whole < 2 * _DAY:
        return _two(whole, _HOUR, "h", _MINUTE, "min")
    return f"{whole / _DAY:.0f} days"


def minutes(seconds: float | None) -> str:
    """Seconds as minutes, for where there is little room."""
    return NONE if seconds is None else f"{seconds / _MINUTE:.1f} min"


def _two(whole: int, size: int, name: str, smaller: int, smaller_name: str) -> str:
    rest = whole % size // smaller
    return f"{whole // size} {name}" + (f" {rest} {smaller_name}" if rest else "")


def size(count: float | None) -> str:
    """Bytes in decimal units, as BigQuery's prices count them."""
    if count is None:
        return NONE
    amount = float(count)
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if abs(amount) < _KILO or unit == "TB":
            break
        amount /= _KILO
    return f"{amount:.0f} {unit}" if unit == "B" or amount >= _SMALL else f"{amount:.1f} {unit}"


def dollars(amount: float | None) -> str:
    """US dollars: cents where it is at least one, else what there is."""
    if amount is None:
        return NONE
    if not amount:
        return "$0"
    return f"${amount:,.2f}" if amount >= _CENT else f"${amount:.5f}"


def moment(at: datetime | None) -> str:
    """A time to the minute, in UTC; the page says that it is UTC."""
    return NONE if at is None else f"{at.astimezone(UTC):%-d %b %Y, %H:%M}"


def clock(at: datetime | None) -> str:
    """A time of a day to the millisecond, in UTC."""
    return NONE if at is None else f"{at.astimezone(UTC):%H:%M:%S.%f}"[:-3]


def day(of: date | None) -> str:
    """A day with its weekday."""
    return NONE if of is None else f"{of:%a %-d %b %Y}"


def ago(at: datetime | None, now: datetime) -> str:
    """How long ago: 5 min ago, 3 h ago, 2 days ago."""
    if at is None:
        return "never"
    seconds = (now - at).total_seconds()
    if seconds < _MINUTE:
        return "just now"
    for name, size_ in (("day", _DAY), ("h", _HOUR), ("min", _MINUTE)):
        if seconds >= size_:
            count = int(seconds // size_)
            plural = "s" if name == "day" and count > 1 else ""
            return f"{count} {name}{plural} ago"
    return "just now"


def change(now: float | None, before: float | None) -> float | None:
    """By which part a number has grown; None where there was nothing to grow from."""
    if now is None or not before:
        return None
    return now / before - 1


def signed(part: float | None) -> str:
    """A change in percent, with its sign."""
    if part is None:
        return NONE
    whole = round(100 * part)
    sign = "\N{PLUS-MINUS SIGN}" if not whole else "+" if whole > 0 else "\N{MINUS SIGN}"
    return f"{sign}{abs(whole)} %"


def words(name: str) -> str:
    """A column's name as words: `joined_event` is Joined event."""
    text = name.strip("_").replace("_", " ")
    return text[:1].upper() + text[1:]


def parsed(text: object) -> datetime | None:
    """A time of a report, which holds ISO 8601; None where it holds none."""
    if isinstance(text, datetime):
        return text
    try:
        at = datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def asked_day(name: str, text: str) -> date:
    """A day that an address asks for. Raises RequestError unless it is one of this century.

    So every sum and difference of days is one, too, and every time is one in any zone.
    """
    if re.fullmatch(r"20[0-9]{2}-[0-9]{2}-[0-9]{2}", text):
        with suppress(ValueError):
            return date.fromisoformat(text)
    message = f"{name} must be a day of this century, like 2026-01-31."
    raise RequestError(message)


def asked_time(text: str | None) -> datetime | None:
    """A time that an address asks for; None unless it is one of this century."""
    at = parsed(text)
    return at if at is not None and at.year // 100 == 20 else None  # noqa: PLR2004
