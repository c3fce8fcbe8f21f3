"""Titles and persons become documents, or are kept out by a rule that has a name."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from apis.outcomes import Document, Filtered
from apis.records import Movie, Person, Show
from process_tmdb_changes import QualityRules, document_key, judge
from sandbox.apis.tmdb import movie, person, show

TODAY = dt.date(2026, 10, 21)
RULES = QualityRules()
NOWHERE: dict[str, Any] = {"watch/providers": {"results": {}}}


def verdict(kind: str, **fields: Any) -> Document | Filtered:  # noqa: ANN401 - what JSON holds
    """What becomes of a title or person that every rule lets pass but for these fields."""
    makers: dict[str, Any] = {
        "movie": (movie, Movie),
        "tv": (show, Show),
        "person": (person, Person),
    }
    make, record = makers[kind]
    return judge(msgspec.convert(make(7, **fields), record), RULES, today=TODAY)


def rule(kind: str, **fields: Any) -> str | None:  # noqa: ANN401 - likewise
    """The rule that keeps it out."""
    found = verdict(kind, **fields)
    return found.rule if isinstance(found, Filtered) else None


@pytest.mark.parametrize(
    ("fields", "broken"),
    [
        ({}, None),
        ({"adult": True}, "adult"),
        ({"adult": None}, None),
        ({"poster_path": None}, "no_poster"),
        ({"poster_path": ""}, "no_poster"),
        ({"popularity": 0.999}, "unpopular"),
        ({"popularity": 1}, None),
        ({"popularity": None}, "unpopular"),
        ({"vote_count": 1}, "few_votes"),
        ({"vote_count": 2}, None),
        ({"vote_count": None}, "few_votes"),
    ],
)
@pytest.mark.parametrize("kind", ["movie", "tv"])
def test_titles_are_judged(kind: str, fields: dict[str, Any], broken: str | None) -> None:
    """By poster, popularity and votes, each to the edge; what is not known counts as nothing."""
    assert rule(kind, **fields) == broken


@pytest.mark.parametrize(
    ("minutes", "votes", "broken"),
    [
        (49, 9, "short_movie"),
        (49, 10, None),
        (50, 9, None),
        (1, 2, "short_movie"),
        (0, 2, None),
        (None, 2, None),
    ],
)
def test_short_movies_need_more_votes(minutes: int | None, votes: int, broken: str | None) -> None:
    """Under 50 minutes it takes 10; a length of 0 is one that nobody has entered."""
    assert rule("movie", runtime=minutes, vote_count=votes) == broken


@pytest.mark.parametrize(
    ("date", "broken"),
    [
        ("2016-10-21", None),
        ("2016-10-20", "old"),
        ("2027-01-01", None),
        ("", "old"),
        (None, "old"),
        ("soon", "old"),
    ],
)
@pytest.mark.parametrize(("kind", "field"), [("movie", "release_date"), ("tv", "first_air_date")])
def test_old_titles_are_left_out(
    kind: str, field: str, date: str | None, broken: str | None
) -> None:
    """Those released over ten years ago, or nobody knows when, unless they can be seen."""
    assert rule(kind, **{field: date}, **NOWHERE) == broken


@pytest.mark.parametrize("offer", ["flatrate", "rent", "buy"])
@pytest.mark.parametrize("provider", sorted(RULES.providers))
def test_old_titles_of_a_provider_are_kept(offer: str, provider: str) -> None:
    """Each of the providers counts, however it offers the title."""
    offers = {"US": {offer: [{"provider_name": "Other"}, {"provider_name": provider}]}}
    providers = {"watch/providers": {"results": offers}}
    assert rule("movie", release_date="1950-01-01", **providers) is None


@pytest.mark.parametrize(
    "results",
    [
        {"US": {"flatrate": [{"provider_name": "Other"}]}},
        {"US": {"flatrate": [{"provider_name": None}]}},
        {"US": {"link": "x"}},
        {"DE": {"flatrate": [{"provider_name": "Netflix"}]}},
        {},
    ],
)
def test_other_offers_keep_nothing(results: dict[str, Any]) -> None:
    """Another provider, another country, or none."""
    fields = {"release_date": "1950-01-01", "watch/providers": {"results": results}}
    assert rule("movie", **fields) == "old"


def test_ten_years_are_counted_on_a_leap_day() -> None:
    """The 29th of February has no day of its own ten years before."""
    found = msgspec.convert(movie(1, release_date="2018-03-01", **NOWHERE), Movie)
    leap_day = dt.date(2028, 2, 29)
    assert isinstance(judge(found, RULES, today=leap_day), Document)
    earlier = msgspec.structs.replace(found, release_date="2018-02-28")
    assert isinstance(judge(earlier, RULES, today=leap_day), Filtered)


@pytest.mark.parametrize(
    ("fields", "broken"),
    [
        ({}, None),
        ({"name": None}, "no_name"),
        ({"name": "  "}, "no_name"),
        ({"profile_path": None}, "no_picture"),
        ({"popularity": 0.99}, "unpopular"),
        ({"popularity": 1.0}, None),
        ({"adult": True}, "adult"),
    ],
)
def test_persons_are_judged(fields: dict[str, Any], broken: str | None) -> None:
    """By name, picture and popularity."""
    assert rule("person", **fields) == broken


def test_rules_are_a_record() -> None:
    """Another deployment's rules judge otherwise, and all of them can be shown."""
    record = msgspec.convert(movie(1, popularity=3), Movie)
    stricter = replace(RULES, min_popularity=5.0)
    assert isinstance(judge(record, stricter, today=TODAY), Filtered)
    shown = stricter.to_json()
    assert shown["min_popularity"] == 5.0
    assert "Paramount+" in shown["providers"]
    assert msgspec.json.decode(msgspec.json.encode(shown)) == shown


def test_the_document_of_a_movie() -> None:
    """Every field, the cast in its own order."""
    found = verdict("movie", popularity=180.5, overview="Word " * 80)
    assert isinstance(found, Document)
    overview = found.fields["overview"]
    assert len(overview) <= 200
    assert overview.startswith("Word Word")
    assert (found.key, {**found.fields, "overview": None}) == (
        "media:tmdb_movie_7",
        {
            "id": "tmdb_movie_7",
            "search_title": "Example Movie 7",
            "mc_type": "movie",
            "mc_subtype": None,
            "source": "tmdb",
            "source_id": "7",
            "year": 2025,
            "popularity": 100.0,
            "rating": 6.8,
            "image": "https://image.tmdb.org/t/p/w500/poster7.jpg",
            "cast": ["First Person", "Second Person"],
            "overview": None,
        },
    )


def test_the_document_of_a_show() -> None:
    """Its name is the title, and its first day gives the year."""
    found = verdict("tv")
    assert isinstance(found, Document)
    assert found.key == "media:tmdb_tv_7"
    assert found.fields["search_title"] == "Example Show 7"
    assert (found.fields["mc_type"], found.fields["year"]) == ("tv", 2024)


def test_the_document_of_a_person() -> None:
    """The fields of a title, and what is known of a person besides."""
    found = verdict("person")
    assert isinstance(found, Document)
    assert (found.key, found.fields) == (
        "person:tmdb_person_7",
        {
            "id": "tmdb_person_7",
            "search_title": "Example Person 7",
            "mc_type": "person",
            "mc_subtype": "actor",
            "source": "tmdb",
            "source_id": "7",
            "year": None,
            "popularity": 4.5,
            "rating": None,
            "image": "https://image.tmdb.org/t/p/w500/profile7.jpg",
            "cast": [],
            "overview": "Born somewhere, and known for something.",
            "known_as": ["E. Person"],
            "known_for_department": "Acting",
            "birthday": "1980-02-29",
            "deathday": None,
            "place_of_birth": "Example City",
            "known_for_titles": ["Greater Show", "Lesser Movie"],
        },
    )


@pytest.mark.parametrize(
    ("department", "subtype"),
    [("Directing", "director"), ("Sound", "person"), (None, "person")],
)
def test_persons_have_a_subtype(department: str | None, subtype: str) -> None:
    """Of the department that they are known for."""
    found = verdict("person", known_for_department=department)
    assert isinstance(found, Document)
    assert found.fields["mc_subtype"] == subtype


def test_a_director_is_known_for_what_was_directed() -> None:
    """At most three titles, each once; parts in the cast count for those who act."""
    works = [{"title": f"Film {number % 4}", "vote_count": number} for number in range(8)]
    credits_ = {"cast": [{"title": "Cameo", "vote_count": 99}], "crew": works}
    found = verdict("person", known_for_department="Directing", combined_credits=credits_)
    assert isinstance(found, Document)
    assert found.fields["known_for_titles"] == ["Film 3", "Film 2", "Film 1"]


def test_poor_titles_have_documents_too() -> None:
    """What is missing or null becomes null, and is no error."""
    found = judge(
        Movie(id=1, title="T", poster_path="/p", popularity=2, vote_count=5),
        replace(RULES, recent_years=3000),
        today=TODAY,
    )
    assert found == Filtered(key="media:tmdb_movie_1", rule="old")
    poor = verdict("movie", credits=None, overview="", vote_average=None)
    assert isinstance(poor, Document)
    assert (poor.fields["cast"], poor.fields["overview"], poor.fields["rating"]) == ([], None, None)


def test_keys_are_those_of_a_document() -> None:
    """A deletion finds what an upsert has written."""
    for kind in ("movie", "tv", "person"):
        found = verdict(kind)
        assert found.key == document_key(kind, 7)
