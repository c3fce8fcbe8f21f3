"""TMDB: which titles and persons have changed, and what they are now. Knows no Redis.

TMDB does not document whether `end_date` is inclusive, so each request ends on the day after
the last one that it must cover.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

import msgspec

from apis.http import Api, ApiClient, Rate, Request, json_as
from apis.records import ChangesPage, Details, Movie, Person, Refusal, Show
from runs.errors import EtlError, SourceMissingError, SourceShapeError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from apis.http import Answer
    from apis.windows import Window

type Kind = Literal["tv", "movie", "person"]

KINDS: Final[tuple[Kind, ...]] = ("tv", "movie", "person")
BASE_URL: Final = "https://api.themoviedb.org"
REQUESTS_A_SECOND: Final = 24.0  # TMDB asks for 20 to 25
_CONCURRENCY: Final = 16  # enough for answers that take half a second
_MOST_DAYS: Final = 13  # a window of 14 days with the day it ends on, whichever way that counts
_MOST_PAGES: Final = 500  # TMDB refuses a page beyond
_NOT_FOUND: Final = 404
_GONE: Final = 34  # "The resource you requested could not be found."

_RECORDS: Final[Mapping[Kind, type[Details]]] = {"tv": Show, "movie": Movie, "person": Person}
_APPENDED: Final[Mapping[Kind, str]] = {
    "tv": "credits,watch/providers",
    "movie": "credits,watch/providers",
    "person": "combined_credits",
}
_read_changes = json_as(ChangesPage)


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """Which ids of a kind have changed, each once and in order, and how they were listed."""

    kind: Kind
    ids: tuple[int, ...]
    adult: frozenset[int]  # of these: nothing more needs to be known
    entries: int  # entries of all pages
    without_id: int


@dataclass(frozen=True, slots=True)
class Gone:
    """An id that TMDB has deleted, or merged into another."""


def tmdb_api(
    token: str, *, base_url: str = BASE_URL, requests_a_second: float = REQUESTS_A_SECOND
) -> Api:
    """How TMDB is asked: several requests at a time, evenly spread."""
    return Api(
        name="TMDB",
        base_url=base_url,
        base_url_setting="TMDB_BASE_URL",
        key=f"Bearer {token}",
        key_header="Authorization",
        key_setting="TMDB_READ_TOKEN",
        rate=Rate(requests=1, seconds=1 / requests_a_second),
        concurrency=_CONCURRENCY,
    )


def read_changes(client: ApiClient, kind: Kind, window: Window) -> Changes:
    """Every id of the kind that has changed in the window; a failed page fails the whole."""
    entries: list[ChangesPage] = []
    for part in window.parts(_MOST_DAYS):
        entries += _pages(client, kind, part)
    changes = [change for page in entries for change in page.results]
    ids = {change.id for change in changes if change.id is not None}
    return Changes(
        kind=kind,
        ids=tuple(sorted(ids)),
        adult=frozenset(each.id for each in changes if each.id is not None and each.adult),
        entries=len(changes),
        without_id=sum(change.id is None for change in changes),
    )


def _pages(client: ApiClient, kind: Kind, window: Window) -> list[ChangesPage]:
    first = client.get(_changes_request(kind, window, 1))
    if first.total_pages > _MOST_PAGES:
        days = (window.end - window.first).days
        if days == 1:
            message = (
                f"TMDB has {first.total_pages} pages of changes on {window.first} and gives no "
                f"more than {_MOST_PAGES}: adapt apis/tmdb.py."
            )
            raise SourceShapeError(message)
        halves = window.parts((days + 1) // 2)
        return [page for half in halves for page in _pages(client, kind, half)]
    numbers = range(2, first.total_pages + 1)
    rest = client.get_each([_changes_request(kind, window, number) for number in numbers])
    pages = [first]
    for page in rest:
        if isinstance(page, EtlError):
            raise page
        pages.append(page)
    return pages


def _changes_request(kind: Kind, window: Window, page: int) -> Request[ChangesPage]:
    path = f"/3/{kind}/changes"
    params = (
        ("start_date", window.first.isoformat()),
        ("end_date", window.end.isoformat()),
        ("page", str(page)),
    )
    return Request(endpoint=path, path=path, read=_read_changes, params=params)


def read_details(
    client: ApiClient, kind: Kind, ids: Iterable[int]
) -> dict[int, Details | Gone | EtlError]:
    """What each id is now, one request each; Gone where TMDB has no more, or how it failed."""
    wanted = list(ids)
    record = _RECORDS[kind]
    read = _details_reader(record, f"/3/{kind}/{{id}}")
    params = (("language", "en-US"), ("append_to_response", _APPENDED[kind]))
    outcomes = client.get_each(
        [
            Request(
                endpoint=f"/3/{kind}/{{id}}",
                path=f"/3/{kind}/{number}",
                read=read,
                params=params,
                accepted=frozenset({200, _NOT_FOUND}),
            )
            for number in wanted
        ]
    )
    return dict(zip(wanted, outcomes, strict=True))


def _details_reader(record: type[Details], endpoint: str) -> Callable[[Answer], Details | Gone]:
    details = msgspec.json.Decoder(record)
    refusal = msgspec.json.Decoder(Refusal)

    def read(answer: Answer) -> Details | Gone:
        if answer.status != _NOT_FOUND:
            return details.decode(answer.body)
        if refusal.decode(answer.body).status_code == _GONE:
            return Gone()
        message = f"TMDB has no {endpoint} (404): check TMDB_BASE_URL."
        raise SourceMissingError(message)

    return read
