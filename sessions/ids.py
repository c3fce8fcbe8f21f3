"""What an id, a phone number or a reference means, however it is written, as SQL text. Pure.

These functions normalise each on entry, so that every path gives the same result.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sessions.sql_layout import called, wrapped

if TYPE_CHECKING:
    from collections.abc import Iterable

# In lower case, without the quotes and brackets that they may come in.
JUNK_IDS = (
    "",
    # What PostHog refuses to merge persons by (isDistinctIdIllegal of its ingestion).
    "0",
    "anonymous",
    "distinct_id",
    "distinctid",
    "email",
    "false",
    "guest",
    "id",
    "nan",
    "none",
    "not_authenticated",
    "null",
    "object object",
    "true",
    "undefined",
    # What programs write for a missing id: pandas, Go and Objective-C, JavaScript, sheets.
    "#n/a",
    "-infinity",
    "0.0",
    "00000000-0000-0000-0000-000000000000",
    "00000000000000000000000000000000",
    "infinity",
    "invalid date",
    "n/a",
    "na",
    "nat",
    "nil",
    "object null",
    "object promise",
    "object undefined",
    "unknown",
)

_BLANKS = r"\s\x0b\x{85}\x{200b}\x{feff}\pZ"
_QUOTES = r"\[\](){}<>\x22\x27\x60"
_UUID = "[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"

# Between the digits of a phone number: any space or dash, invisible format characters, and + . ( ).
_SEPARATORS = r"-+.()\s\x{2212}\x{ff0b}\p{Pd}\p{Cf}\pZ"
_FLOAT = r"^\+?[1-9]\.[0-9]+[eE]\+?(?:0?[6-9]|1[0-4])$"  # of at most 15 digits, as phones have
_PHONE = rf"^[0-9{_SEPARATORS}]+$|{_FLOAT}"


def trimmed_sql(text: str) -> str:
    """The text without blanks, line breaks and non-breaking spaces at its ends; null if empty."""
    return f"NULLIF(REGEXP_REPLACE({text}, r'^[{_BLANKS}]+|[{_BLANKS}]+$', ''), '')"


def is_junk_sql(junk_ids: Iterable[str], trimmed: str) -> str:
    """Whether a non-null id is one that SDKs and apps send if they know none."""
    bare = f"REGEXP_REPLACE(LOWER({trimmed}), r'^[{_QUOTES}]+|[{_QUOTES}]+$', '')"
    literals = wrapped((f"'{junk_id}'" for junk_id in junk_ids), indent=6)
    return f"{bare} IN (\n      {literals}\n    )"


def session_id_sql(junk_ids: Iterable[str], trimmed: str) -> str:
    """The session id as PostHog's own tables have it, UUIDs in lower case; null for a junk id."""
    uuid = f"REGEXP_EXTRACT(LOWER({trimmed}), r'^[{{(]?({_UUID})[)}}]?$')"
    known = called("IFNULL", [uuid, trimmed], indent=6)
    return called("IF", [is_junk_sql(junk_ids, trimmed), "NULL", known], indent=4)


def is_phone_sql(text: str) -> str:
    """Whether a text may be a phone number: digits and what may stand between them."""
    return f"REGEXP_CONTAINS({text}, r'{_PHONE}')"


def phone_digits_sql(text: str) -> str:
    """The digits of a phone number from its country code on, which never begins with 0.

    Taken off: an international prefix 00, and a national zero in brackets after the country code.
    Digits in a float's notation are written out.
    """
    number = f"SAFE_CAST(SAFE_CAST({text} AS FLOAT64) AS INT64)"
    written_out = f"IF(REGEXP_CONTAINS({text}, r'{_FLOAT}'), CAST({number} AS STRING), {text})"
    whole = f"REGEXP_REPLACE({written_out}, r'^(\\+?[0-9]+)[.]0$', r'\\1')"
    national = f"REGEXP_REPLACE({whole}, r'([0-9][{_SEPARATORS}]*)[(]0[)]', r'\\1')"
    digits = f"REGEXP_REPLACE({national}, r'[^0-9]', '')"
    return f"REGEXP_REPLACE({digits}, r'^00', '')"


def phone_key_sql(digits: str, *, least: int) -> str:
    """The hash of a phone number's digits; null for a national number, or for too few digits."""
    condition = f"REGEXP_CONTAINS({digits}, r'^[1-9][0-9]{{{least - 1},}}$')"
    return called("IF", [condition, f"TO_HEX(SHA256({digits}))", "NULL"], indent=4)


def referred_sql(text: str) -> str:
    """The id of the user that a Firestore reference names; any other text as it is, trimmed.

    A path with or without a leading slash, a full resource name, or the JSON of a reference.
    """
    unescaped = f"REPLACE({text}, r'\\/', '/')"
    values = [
        f"REGEXP_EXTRACT({unescaped}, r'{pattern}')"
        for pattern in (
            r'^\s*/*(?:.*/documents/)?users/([^/"]*)/*\s*$',
            r'^\s*\{.*"\s*:\s*"/*(?:[^"]*/documents/)?users/([^/"]+)/*"',
            r'^\s*\{.*"segments"\s*:\s*\[[^\]]*"users"\s*,\s*"([^"]+)"\s*\]',
        )
    ]
    return trimmed_sql(called("COALESCE", [*values, text], indent=6))
