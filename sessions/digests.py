"""Digests that show whether rows were rewritten: of one row, and of many in any order. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sessions.sql_layout import called, wrapped

if TYPE_CHECKING:
    from collections.abc import Iterable

_BITS = 30  # of each half of a digest: sums of them fit INT64 for eight thousand million rows
_HALF = 2**_BITS - 1


def joined_sql(texts: Iterable[str], *, indent: int) -> str:
    """The texts joined unambiguously: no text has the two control characters."""
    array = f"[{wrapped(texts, indent=indent + 3)}]"
    return called("ARRAY_TO_STRING", [array, r"'\x1f'", r"'\x1e'"], indent=indent)


def row_hash_sql(texts: Iterable[str], *, indent: int = 4) -> str:
    """The MD5 of what a row says, as hexadecimal text."""
    return f"TO_HEX(MD5({joined_sql(texts, indent=indent)}))"


def row_digest_sql(texts: Iterable[str], *, indent: int = 2) -> str:
    """A number of 60 bits, never null: it differs if a text does, except by a 2^-60 chance."""
    return f"CAST(CONCAT('0x', SUBSTR({row_hash_sql(texts, indent=indent)}, 1, 15)) AS INT64)"


def sum_sql(digest: str) -> str:
    """An aggregate of the digests of many rows: the same in any order, each copy counted.

    Each half is added up by itself and cut to its bits, since a sum of INT64 must not overflow.
    The cast is for the emulator, whose sums are wider.
    """
    high, low = f"SUM({digest} >> {_BITS})", f"SUM({digest} & {_HALF})"
    return f"CAST((({high} & {_HALF}) << {_BITS}) | ({low} & {_HALF}) AS INT64)"
