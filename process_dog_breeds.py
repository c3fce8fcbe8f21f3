"""Breeds of The Dog API, as rows of `dog_breeds`. Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Iterable, Iterator

    from apis.records import RawBreed

type Row = dict[str, Any]
type Range = tuple[float | None, float | None]

_NUMBER: Final = re.compile(r"\d+(?:\.\d+)?|nan", re.IGNORECASE)


def breed_rows(breeds: Iterable[RawBreed], *, now: dt.datetime) -> Iterator[Row]:
    """A row of `dog_breeds` for each breed, with `raw` as text."""
    for each in breeds:
        breed = each.breed
        image = breed.image
        yield {
            "id": breed.id,
            "name": breed.name,
            **_ends("weight_kg", breed.weight.metric if breed.weight else None),
            **_ends("height_cm", breed.height.metric if breed.height else None),
            **_ends("life_span_years", breed.life_span),
            "temperaments": _parts(breed.temperament),
            "bred_for": breed.bred_for or None,
            "breed_group": breed.breed_group or None,
            "origin": breed.origin or None,
            "country_code": breed.country_code or None,
            "description": breed.description or None,
            "reference_image_id": breed.reference_image_id or (image.id if image else None),
            "image_url": image.url if image else None,
            "image_width": image.width if image else None,
            "image_height": image.height if image else None,
            "raw": each.raw,
            "ingestion_timestamp": now,
        }


def parse_range(text: str | None) -> Range:
    """Both ends of a range such as "6 - 13" or "10 - 12 years"; a single number is both.

    "NaN" is an unknown end: "NaN - 8" is (None, 8.0). With more than two numbers, such as one
    range for males and one for females, the least and the greatest count.
    """
    found = [_number(each) for each in _NUMBER.findall(text or "")]
    known = [each for each in found if each is not None]
    if not known:
        return None, None
    if len(found) == 2 and len(known) == 1:  # noqa: PLR2004 - a range has two ends
        return found[0], found[1]
    return min(known), max(known)


def _number(text: str) -> float | None:
    return None if text.lower() == "nan" else float(text)


def _ends(name: str, text: str | None) -> Row:
    least, greatest = parse_range(text)
    return {f"{name}_min": least, f"{name}_max": greatest}


def _parts(text: str | None) -> list[str]:
    """The distinct texts between commas."""
    parts = (part.strip() for part in (text or "").split(","))
    return list(dict.fromkeys(part for part in parts if part))
