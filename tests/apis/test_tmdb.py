"""TMDB's changes are read whole, and every changed id has one outcome."""

from __future__ import annotations

import datetime as dt
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from apis.http import ApiClient, Rate
from apis.records import Movie, Person, Show
from apis.tmdb import KINDS, Gone, read_changes, read_details, tmdb_api
from apis.windows import Window
from runs.errors import (
    CredentialsError,
    SourceError,
    SourceMissingError,
    SourceShapeError,
    UnavailableError,
)
from sandbox.apis.serving import Fault, serve
from sandbox.apis.tmdb import FakeTmdb, movie, person, show
from tests.apis.quick import quick

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from apis.tmdb import Kind

    type Maker = Callable[[int], dict[str, Any]]

DAY = dt.date(2026, 10, 20)


def ago(days: int) -> dt.date:
    """The date so many days before DAY."""
    return DAY - dt.timedelta(days=days)


ONE_DAY = Window(first=DAY, last=DAY)


@pytest.fixture
def fake() -> Iterator[FakeTmdb]:
    """A fake TMDB without data."""
    with serve(FakeTmdb()) as found:
        yield found


@pytest.fixture
def client(fake: FakeTmdb) -> Iterator[ApiClient]:
    """A client of the fake TMDB."""
    with ApiClient(quick(tmdb_api(fake.key or "", base_url=fake.url))) as found:
        yield found


def changed(*numbers: int | None) -> list[dict[str, Any]]:
    """Entries of TMDB's list of changes."""
    return [{"id": number, "adult": None} for number in numbers]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("end_is_inclusive", [True, False])
@pytest.mark.parametrize("days", [1, 2, 13, 14, 15, 29, 60])
def test_every_day_of_a_window_is_covered(
    fake: FakeTmdb, client: ApiClient, kind: Kind, days: int, *, end_is_inclusive: bool
) -> None:
    """Whether or not `end_date` is inclusive, and although a request may cover at most 14 days."""
    fake.end_is_inclusive = end_is_inclusive
    for number in range(days):
        fake.change(kind, ago(number), *changed(1000 + number))
    found = read_changes(client, kind, Window(first=ago(days - 1), last=DAY))
    assert found.ids == tuple(range(1000, 1000 + days))


def test_the_fake_refuses_more_than_14_days(fake: FakeTmdb, client: ApiClient) -> None:
    """So test_every_day_of_a_window_is_covered would fail if a request covered more."""
    read_changes(client, "tv", ONE_DAY)
    request = fake.requests[0]
    query = (("start_date", str(ago(20))), ("end_date", str(DAY)))
    reply = fake.reply(type(request)(path=request.path, query=query, headers={}))
    assert (reply.status, reply.body["success"]) == (422, False)


def test_every_page_is_read_and_every_id_reported_once(fake: FakeTmdb, client: ApiClient) -> None:
    """Some of the 250 entries repeat an id, also across pages, and some have no id."""
    numbers = [*range(1, 241), 1, 2, 100, 240, 5, None, None, 6, 7, 8]
    fake.change("movie", DAY, *changed(*numbers))
    found = read_changes(client, "movie", ONE_DAY)
    assert found.ids == tuple(range(1, 241))
    assert (found.entries, found.without_id) == (250, 2)
    assert sorted(request.value("page") or "" for request in fake.requests) == ["1", "2", "3"]


def test_adult_ids_are_known_from_the_list(fake: FakeTmdb, client: ApiClient) -> None:
    """An id is adult if any of its entries says so; null counts as no."""
    fake.change("movie", DAY, {"id": 1, "adult": None}, {"id": 1, "adult": True})
    fake.change("movie", DAY, {"id": 2, "adult": False}, {"id": 3, "adult": None})
    found = read_changes(client, "movie", ONE_DAY)
    assert (found.ids, set(found.adult)) == ((1, 2, 3), {1})


@pytest.mark.parametrize(
    ("fault", "refused_as"),
    [
        (Fault(status=503, times=None), UnavailableError),
        (Fault(status=422), SourceError),
        (Fault(status=401), CredentialsError),
        (Fault(trouble="changed", change=lambda body: body | {"results": None}), SourceShapeError),
        (Fault(trouble="changed", change=lambda _: {"success": False}), SourceShapeError),
    ],
    ids=["503", "422", "401", "no results", "an error in their place"],
)
@pytest.mark.parametrize("page", [0, 1], ids=["first page", "another page"])
def test_a_failed_page_fails_the_whole_list(
    fake: FakeTmdb, client: ApiClient, fault: Fault, refused_as: type[Exception], page: int
) -> None:
    """It never counts as a page without changes."""
    fake.change("tv", DAY, *changed(*range(250)))
    fake.break_down(replace(fault, skip=page))
    with pytest.raises(refused_as):
        read_changes(client, "tv", ONE_DAY)


def test_a_window_of_too_many_pages_is_split(fake: FakeTmdb, client: ApiClient) -> None:
    """A window of over 500 pages is halved, and no id of it is lost."""
    for number in range(4):
        fake.change("movie", ago(number), *changed(*range(number * 12_600, (number + 1) * 12_600)))
    found = read_changes(client, "movie", Window(first=ago(3), last=DAY))
    assert len(found.ids) == 50_400
    assert {request.value("page") for request in fake.requests} <= {
        str(page) for page in range(1, 501)
    }


def test_a_day_of_too_many_pages_is_refused(fake: FakeTmdb, client: ApiClient) -> None:
    """Its last ids could not be read."""
    fake.end_is_inclusive = False
    fake.change("movie", DAY, *changed(*range(50_001)))
    with pytest.raises(SourceShapeError, match="501 pages of changes on 2026-10-20"):
        read_changes(client, "movie", ONE_DAY)


@pytest.mark.parametrize(
    ("kind", "make", "record"),
    [("movie", movie, Movie), ("tv", show, Show), ("person", person, Person)],
)
def test_details_are_one_request_each(
    fake: FakeTmdb, client: ApiClient, kind: Kind, make: Maker, record: type
) -> None:
    """That request returns everything that a document needs."""
    for number in (1, 2):
        fake.put(kind, make(number))
    found = read_details(client, kind, [1, 2, 3])
    assert (type(found[1]), type(found[2]), found[3]) == (record, record, Gone())
    assert len(fake.requests) == 3
    assert all(request.value("language") == "en-US" for request in fake.requests)
    if kind == "person":
        assert isinstance(found[1], Person)
        assert found[1].combined_credits
        assert len(found[1].combined_credits.cast) == 2
    else:
        assert isinstance(found[1], Movie | Show)
        assert found[1].credits
        assert found[1].watch_providers
        assert len(found[1].credits.cast) == 3


def test_a_failed_id_does_not_count_as_gone(fake: FakeTmdb, client: ApiClient) -> None:
    """Each id has its own error; gone are only the ids that TMDB says it does not have."""
    for number in range(1, 7):
        fake.put("movie", movie(number))
    fake.break_down(Fault(path="/3/movie/2", status=503, times=None))
    fake.break_down(Fault(path="/3/movie/3", trouble="truncated", times=None))
    fake.break_down(Fault(path="/3/movie/4", trouble="changed", change=lambda _: {"id": "4"}))
    invalid_id = {"success": False, "status_code": 6, "status_message": "Invalid id."}
    fake.items["movie"].pop(5)
    fake.break_down(Fault(path="/3/movie/5", trouble="changed", change=lambda _: invalid_id))
    found = read_details(client, "movie", range(1, 7))
    assert {number: type(outcome) for number, outcome in found.items()} == {
        1: Movie,
        2: UnavailableError,
        3: UnavailableError,
        4: SourceShapeError,
        5: SourceMissingError,
        6: Movie,
    }


def test_the_token_is_sent_in_a_header(fake: FakeTmdb, client: ApiClient) -> None:
    """It is never a parameter."""
    read_changes(client, "tv", ONE_DAY)
    assert fake.requests[0].headers["authorization"] == f"Bearer {fake.key}"
    assert "token" not in str(fake.requests[0].query)


def test_the_rate_limit_is_never_exceeded(fake: FakeTmdb) -> None:
    """A TMDB that allows hardly more than the client's rate answers every request at once."""
    fake.requests_a_second = 40
    api = tmdb_api(fake.key or "", base_url=fake.url, requests_a_second=38)
    for number in range(1, 51):
        fake.put("movie", movie(number))
    with ApiClient(api) as client:
        found = read_details(client, "movie", range(1, 51))
    assert all(isinstance(each, Movie) for each in found.values())
    assert len(fake.requests) == 50


def test_slow_answers_do_not_lower_the_rate(fake: FakeTmdb) -> None:
    """Although answers take 100 ms: under 1.3 times as long as the rate limit makes necessary."""
    ids, rate = 24, 20.0
    fake.latency_seconds = 0.1
    for number in range(1, ids + 1):
        fake.put("movie", movie(number))
    api = replace(
        tmdb_api(fake.key or "", base_url=fake.url), rate=Rate(requests=1, seconds=1 / rate)
    )
    started = time.monotonic()
    with ApiClient(api) as client:
        read_details(client, "movie", range(1, ids + 1))
    assert time.monotonic() - started < 1.3 * (ids / rate + 0.1)
