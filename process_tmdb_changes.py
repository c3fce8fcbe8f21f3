"""Titles and persons of TMDB, as documents, or the rule that keeps them out. Pure."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Final

from apis.outcomes import Document, Filtered
from apis.records import Movie, Person, Show

if TYPE_CHECKING:
    from collections.abc import Iterator

    from apis.records import Details, WatchProviders, Work

type Title = Movie | Show

_IMAGES: Final = "https://image.tmdb.org/t/p/w500"
_MOST_POPULAR: Final = 100.0
_LONGEST_OVERVIEW: Final = 200
_NAMED_CAST: Final = 2
_NAMED_WORKS: Final = 3
_KINDS: Final = {Movie: "movie", Show: "tv", Person: "person"}
_SUBTYPES: Final = {
    "Acting": "actor",
    "Directing": "director",
    "Writing": "writer",
    "Production": "producer",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class QualityRules:
    """What a title or a person must reach to be kept."""

    min_popularity: float = 1.0
    min_votes: int = 2
    short_movie_minutes: int = 50  # a known length below this is short
    short_movie_min_votes: int = 10  # for a short movie
    recent_years: int = 10  # older titles need a provider
    providers: frozenset[str] = frozenset(  # services in the US that count
        {
            "Netflix", "Amazon Prime Video", "Amazon Video", "Hulu", "Max", "HBO Max",
            "Disney Plus", "Peacock", "Peacock Premium", "Apple TV Plus", "Apple TV",
            "Paramount Plus", "Paramount+",
        }
    )  # fmt: skip

    def to_json(self) -> dict[str, Any]:
        """Every rule by its name."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        return {**values, "providers": sorted(self.providers)}


def document_id(kind: str, number: int) -> str:
    """The id of a document."""
    return f"tmdb_{kind}_{number}"


def document_key(kind: str, number: int) -> str:
    """The key under which Redis holds it."""
    family = "person" if kind == "person" else "media"
    return f"{family}:{document_id(kind, number)}"


def judge(details: Details, rules: QualityRules, *, today: dt.date) -> Document | Filtered:
    """The document of a title or person, or the first rule that it does not meet."""
    kind = _KINDS[type(details)]
    key = document_key(kind, details.id)
    if isinstance(details, Person):
        broken = next(_broken_by_person(details, rules), None)
        document = _person_document(details)
    else:
        broken = next(_broken_by_title(details, rules, today), None)
        document = _title_document(details, kind)
    return Filtered(key=key, rule=broken) if broken else Document(key=key, fields=document)


def _broken_by_person(person: Person, rules: QualityRules) -> Iterator[str]:
    if person.adult:
        yield "adult"
    if not _text(person.name):
        yield "no_name"
    if not person.profile_path:
        yield "no_picture"
    if (person.popularity or 0) < rules.min_popularity:
        yield "unpopular"


def _broken_by_title(title: Title, rules: QualityRules, today: dt.date) -> Iterator[str]:
    votes = title.vote_count or 0
    if title.adult:
        yield "adult"
    if not _text(_name(title)):
        yield "no_title"
    if not title.poster_path:
        yield "no_poster"
    if (title.popularity or 0) < rules.min_popularity:
        yield "unpopular"
    if votes < rules.min_votes:
        yield "few_votes"
    minutes = title.runtime if isinstance(title, Movie) else None
    if minutes and minutes < rules.short_movie_minutes and votes < rules.short_movie_min_votes:
        yield "short_movie"
    if not _is_recent(title, rules, today) and not rules.providers & _providers(title):
        yield "old"


def _is_recent(title: Title, rules: QualityRules, today: dt.date) -> bool:
    released = _released(title)
    # The same day `recent_years` ago; 29 February counts as 1 March.
    oldest = (today.year - rules.recent_years, today.month, today.day)
    return released is not None and (released.year, released.month, released.day) >= oldest


def _released(title: Title) -> dt.date | None:
    text = title.release_date if isinstance(title, Movie) else title.first_air_date
    try:
        return dt.date.fromisoformat(text or "")
    except ValueError:
        return None


def _providers(title: Title) -> set[str | None]:
    watch: WatchProviders | None = title.watch_providers
    us = watch.results.us if watch and watch.results else None
    if us is None:
        return set()
    return {each.provider_name for offers in (us.flatrate, us.rent, us.buy) for each in offers}


def _name(title: Title) -> str | None:
    return title.title if isinstance(title, Movie) else title.name


def _title_document(title: Title, kind: str) -> dict[str, Any]:
    released = _released(title)
    credited = title.credits.cast if title.credits else []
    ordered = sorted(credited, key=lambda each: (each.order is None, each.order or 0))
    names = [name for each in ordered if (name := _text(each.name))]
    return {
        **_common(kind, title.id, _name(title), title.popularity),
        "mc_subtype": None,
        "year": released.year if released else None,
        "rating": title.vote_average,
        "image": _image(title.poster_path),
        "cast": names[:_NAMED_CAST],
        "overview": _overview(title.overview),
    }


def _person_document(person: Person) -> dict[str, Any]:
    return {
        **_common("person", person.id, person.name, person.popularity),
        "mc_subtype": _SUBTYPES.get(person.known_for_department or "", "person"),
        "year": None,
        "rating": None,
        "image": _image(person.profile_path),
        "cast": [],
        "overview": _overview(person.biography),
        "known_as": [name for each in person.also_known_as or [] if (name := _text(each))],
        "known_for_department": person.known_for_department,
        "birthday": person.birthday or None,
        "deathday": person.deathday or None,
        "place_of_birth": _text(person.place_of_birth),
        "known_for_titles": _known_for(person),
    }


def _common(kind: str, number: int, name: str | None, popularity: float | None) -> dict[str, Any]:
    return {
        "id": document_id(kind, number),
        "search_title": _text(name),
        "mc_type": kind,
        "source": "tmdb",
        "source_id": str(number),
        "popularity": round(min(popularity or 0.0, _MOST_POPULAR), 2),
    }


def _known_for(person: Person) -> list[str]:
    """The most popular of what the person is known for: as a member of the cast, or else."""
    works = person.combined_credits
    if works is None:
        return []
    acts = person.known_for_department == "Acting"
    known = (works.cast or works.crew) if acts else (works.crew or works.cast)
    names = [
        name for each in sorted(known, key=_popularity_key, reverse=True) if (name := _work(each))
    ]
    return list(dict.fromkeys(names))[:_NAMED_WORKS]


def _popularity_key(work: Work) -> tuple[int, float]:
    return work.vote_count or 0, work.popularity or 0.0


def _work(work: Work) -> str | None:
    return _text(work.title) or _text(work.name)


def _text(text: str | None) -> str | None:
    """The text with single spaces; None where there is none."""
    return " ".join((text or "").split()) or None


def _overview(text: str | None) -> str | None:
    whole = _text(text)
    if whole is None or len(whole) <= _LONGEST_OVERVIEW:
        return whole
    return f"{whole[: _LONGEST_OVERVIEW - 1].rstrip()}…"


def _image(path: str | None) -> str | None:
    return f"{_IMAGES}{path}" if path else None
