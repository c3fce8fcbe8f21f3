"""What a run is asked to do, and how it is read from a request's body. Pure."""

import json
import math
import re
import reprlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from datetime import date
from types import MappingProxyType
from typing import Any, Final, Never, Self

from runs.errors import RequestError
from runs.settings import ENGINES, Engine

FIRST_DAY: Final = date(2018, 1, 1)  # no job reads what is older
_MOST_SESSIONS: Final = 2**63 - 1  # BigQuery: INT64
_MOST_LEVELS: Final = 20  # of `params`: its readers may recurse
_LIKE: Final = 'an object like {} or {"limit": 100}'
_JOB_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,62}")  # it becomes part of table names


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRequest:
    """What a run is asked to do: without arguments, whatever changed since the last one."""

    full_load: bool = False
    """Rebuild every session, whatever the last run saw."""
    limit: int | None = None
    """At most this many sessions, the latest first."""
    start_date: date | None = None
    """First UTC day to load, inclusive."""
    end_date: date | None = None
    """Last UTC day to load, inclusive; None with a start: up to the day of the run."""
    engine: Engine | None = None
    """The engine; None: the deployment's setting."""
    force: bool = False
    """Run also where this trigger has succeeded before."""
    dry_run: bool = False
    """Everything up to the audit; publish nothing."""
    job: str = "sessions"
    params: Mapping[str, object] = field(default_factory=dict)
    """What only this job understands."""

    def __post_init__(self) -> None:
        """Raise a RequestError for the first contradiction, and freeze `params`."""
        object.__setattr__(self, "params", MappingProxyType(dict(self.params)))
        _check_limit(self.limit)
        _check_dates(self.start_date, self.end_date)
        if self.full_load and (self.limit is not None or self.start_date is not None):
            _refuse("full_load takes every session: leave out limit, start_date and end_date.")
        if self.engine is not None and self.engine not in ENGINES:
            _refuse(f"engine must be {' or '.join(ENGINES)}, or left out for the default.")
        if not _JOB_NAME.fullmatch(self.job):
            _refuse("job must be the name of a job, like sessions, or left out.")

    @property
    def is_complete(self) -> bool:
        """Whether its run loads everything: no dates, no limit, no dry run."""
        return self.limit is None and self.start_date is None and not self.dry_run

    @classmethod
    def from_json(cls, body: bytes) -> Self:
        """Read the body of a POST: an object of these fields and no others; empty is `{}`."""
        body_fields = _parse_object(body)
        for name in body_fields:
            if name not in _READERS:
                _refuse(f"There is no field {reprlib.repr(name)}: use {', '.join(_READERS)}.")
        read: dict[str, Any] = {
            name: _READERS[name](name, body_fields[name]) for name in body_fields
        }
        return cls(**read)

    def to_json(self) -> dict[str, object]:
        """Every field, JSON-ready: reading it back gives an equal request."""
        plain = {each.name: getattr(self, each.name) for each in fields(self)}
        return plain | {
            "start_date": self.start_date and self.start_date.isoformat(),
            "end_date": self.end_date and self.end_date.isoformat(),
            "params": dict(self.params),
        }

    def shown(self) -> dict[str, object]:
        """The same without the values of `params`, which may be secret: for logs and reports."""
        return self.to_json() | {"params": dict.fromkeys(self.params, "(not shown)")}


def _refuse(sentence: str) -> Never:
    raise RequestError(sentence)


def _check_limit(limit: int | None) -> None:
    if limit is not None and not 1 <= limit <= _MOST_SESSIONS:
        _refuse("limit must be a whole number of sessions, at least 1; leave it out for all.")


def _check_dates(start: date | None, end: date | None) -> None:
    if end is not None and start is None:
        _refuse("end_date needs a start_date: add one, or leave both out.")
    if start is not None and start < FIRST_DAY:
        _refuse(f"start_date must not be before {FIRST_DAY}: no earlier row is read.")
    if start is not None and end is not None and end < start:
        _refuse("end_date must not be before start_date: swap them.")


def _parse_object(body: bytes) -> dict[str, object]:
    if not body.strip():
        return {}
    try:
        value = json.loads(
            body,
            object_pairs_hook=_unique,
            parse_constant=_refuse_number,
            parse_float=_finite,
        )
    except (ValueError, RecursionError) as error:
        msg = f"The body is not JSON{_place(error)}: send {_LIKE}."
        raise RequestError(msg) from error
    if not isinstance(value, dict):
        _refuse(f"The body must be a JSON object: send {_LIKE}.")
    return value


def _place(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f" (line {error.lineno}, column {error.colno})"
    return ""


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found: dict[str, object] = {}
    for name, value in pairs:
        if name in found:
            _refuse(f"{reprlib.repr(name)} stands twice in one object: leave one out.")
        found[name] = value
    return found


def _refuse_number(text: str) -> Never:
    _refuse(f"{text} is not a JSON number: send a finite one, or null.")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        _refuse_number(reprlib.repr(text))
    return number


def _flag(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        _refuse(f"{name} must be true or false.")
    return value


def _count(name: str, value: object) -> int | None:
    if value is not None and type(value) is not int:  # a bool does not count as a number
        _refuse(f"{name} must be a whole number, or left out.")
    return value


def _day(name: str, value: object) -> date | None:
    if value is None:
        return None
    try:
        if isinstance(value, str) and date.fromisoformat(value).isoformat() == value:
            return date.fromisoformat(value)
    except ValueError:
        pass  # the 31st of February, or not a date at all
    _refuse(f"{name} must be a day, like 2026-01-31, or left out.")


def _name(name: str, value: object) -> str:
    if not isinstance(value, str):
        _refuse(f"{name} must be a text.")
    return value


def _name_or_none(name: str, value: object) -> str | None:
    return None if value is None else _name(name, value)


def _object(name: str, value: object) -> dict[str, object]:
    if not isinstance(value, dict):
        _refuse(f"{name} must be a JSON object, or left out.")
    _check_depth(name, value)
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        _refuse(f"{name} must not hold half a character (\\ud800 to \\udfff): leave it out.")
    return value


def _check_depth(name: str, value: object) -> None:
    level = [value]
    for _ in range(_MOST_LEVELS):
        level = [inner for each in level for inner in _inner(each)]
    if level:
        _refuse(f"{name} must not be nested more than {_MOST_LEVELS} levels deep: make it flatter.")


def _inner(value: object) -> list[object]:
    inner = value.values() if isinstance(value, dict) else value
    return list(inner) if isinstance(value, dict | list) and isinstance(inner, Iterable) else []


_READERS: Final[Mapping[str, Callable[[str, object], object]]] = {
    "full_load": _flag,
    "limit": _count,
    "start_date": _day,
    "end_date": _day,
    "engine": _name_or_none,
    "force": _flag,
    "dry_run": _flag,
    "job": _name,
    "params": _object,
}
