"""The kinds of values that settings take: a description, a parser and a check. Pure."""

import base64
import binascii
import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_LONGEST_NAME: Final = 255  # of a file or folder, in bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """The values a setting takes: a description, a parser and a check."""

    takes: str
    parse: Callable[[str], object]
    accepts: Callable[[object], bool]
    blank_counts: bool = False
    """Whether an empty variable is a value; otherwise it counts as unset."""


def text_like(takes: str, pattern: str) -> Kind:
    """A text of this shape."""
    shape = re.compile(pattern)

    def accepts(value: object) -> bool:
        return isinstance(value, str) and shape.fullmatch(value) is not None

    return Kind(takes=takes, parse=str, accepts=accepts)


def whole_number(least: int, most: int) -> Kind:
    """A number between two, both included."""

    def parse(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,19}", text):
            raise ValueError(text)
        return int(text)

    def accepts(value: object) -> bool:
        return type(value) is int and least <= value <= most

    return Kind(takes=f"a whole number from {least} to {most}", parse=parse, accepts=accepts)


def amount(takes: str) -> Kind:
    """A number from 0 on."""

    def accepts(value: object) -> bool:
        return isinstance(value, float | int) and 0 <= value < math.inf

    return Kind(takes=takes, parse=float, accepts=accepts)


def choice(names: tuple[str, ...]) -> Kind:
    """One of these names."""
    return Kind(takes=" or ".join(names), parse=str, accepts=lambda value: value in names)


def switch() -> Kind:
    """True or false."""
    values = {"true": True, "1": True, "false": False, "0": False}

    def parse(text: str) -> bool:
        if text.lower() not in values:
            raise ValueError(text)
        return values[text.lower()]

    return Kind(takes="true or false", parse=parse, accepts=lambda value: type(value) is bool)


def list_of(takes: str, pattern: str) -> Kind:
    """Texts of this shape, in order, each once."""
    shape = re.compile(pattern)

    def parse(text: str) -> tuple[str, ...]:
        # Sorted: writing the same list in another order must not change `_metrics_version`.
        return tuple(sorted({item.strip() for item in text.split(",") if item.strip()}))

    def accepts(value: object) -> bool:
        return isinstance(value, tuple) and all(shape.fullmatch(item) for item in value)

    return Kind(takes=f"{takes}, separated by commas", parse=parse, accepts=accepts)


def path_like(takes: str) -> Kind:
    """A path that is not a key pasted by mistake."""

    def accepts(value: object) -> bool:
        # A pasted key is refused here, where no message shows the value.
        return isinstance(value, Path) and not _is_no_path(str(value))

    return Kind(takes=takes, parse=Path, accepts=accepts)


def _is_no_path(text: str) -> bool:
    has_long_name = any(len(name.encode()) > _LONGEST_NAME for name in text.split("/"))
    return has_long_name or bool(re.search(r"[{\n\0]", text)) or _is_encoded_json(text)


def _is_encoded_json(text: str) -> bool:
    """Whether it is an object as JSON in base64: the usual way to put a key into a variable."""
    padded = text.translate(str.maketrans("-_", "+/")) + "=" * (-len(text) % 4)
    try:
        return isinstance(json.loads(base64.b64decode(padded, validate=True)), dict)
    except (binascii.Error, ValueError):
        return False


def or_none(kind: Kind, *, when_blank: bool = False) -> Kind:
    """The kind, or nothing."""
    return Kind(
        takes=kind.takes + (", or empty for none" if when_blank else ""),
        parse=lambda text: kind.parse(text) if text else None,
        accepts=lambda value: value is None or kind.accepts(value),
        blank_counts=when_blank,
    )


PROJECT: Final = text_like(
    "a Google Cloud project id, like my-project-123",
    r"(?:[a-z0-9][a-z0-9.-]{0,62}:)?[a-z][a-z0-9-]{1,61}[a-z0-9]",
)
DATASET: Final = text_like(
    "a BigQuery dataset name of letters, digits and underscores", r"[A-Za-z0-9_]{1,1024}"
)
TABLE: Final = text_like(
    "a table as [PROJECT.][DATASET.]TABLE",
    r"(?:(?:(?:[a-z0-9][a-z0-9.-]{0,62}:)?[a-z][a-z0-9-]{1,61}[a-z0-9]\.)?[A-Za-z0-9_]{1,1024}\.)?"
    r"[A-Za-z0-9_-]{1,1024}",
)
LOCATION: Final = text_like(
    "a BigQuery location, like US or europe-west1", r"[A-Za-z][A-Za-z0-9-]{1,62}"
)
SECRET: Final = text_like(
    "the name of a secret, or projects/PROJECT/secrets/NAME[/versions/VERSION]",
    r"(?:projects/[a-z0-9.:-]+/secrets/[A-Za-z0-9_-]{1,255}(?:/versions/[A-Za-z0-9_-]+)?"
    r"|[A-Za-z0-9_-]{1,255})",
)
ADDRESS: Final = text_like("an address that begins with https://", r"https?://[^\s'\"]+")
KEY: Final = text_like("a key of printable characters without spaces", r"[!-~]+")
EMAILS: Final = list_of("e-mail addresses", r"[^@\s*'\"]+@[^@\s*'\"]+")
