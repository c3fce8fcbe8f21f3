"""The Dog API: its whole list of breeds, paged or at once. Knows no table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import msgspec

from apis.http import Api, ApiClient, Rate, Request
from apis.records import Breed, RawBreed
from runs.errors import SourceShapeError, UnavailableError

if TYPE_CHECKING:
    from apis.http import Answer

BASE_URL: Final = "https://api.thedogapi.com/v1"
ENDPOINT: Final = "breeds"
_PAGE: Final = 100
_MOST_PAGES: Final = 1000

_elements = msgspec.json.Decoder(list[msgspec.Raw])
_breeds = msgspec.json.Decoder(list[Breed])


@dataclass(frozen=True, slots=True, kw_only=True)
class _Page:
    breeds: list[RawBreed]
    total: int | None  # where the API pages, and says so


def dog_api(key: str | None, *, base_url: str = BASE_URL) -> Api:
    """How the API is asked: ten requests a minute on the free plan, in any minute."""
    return Api(
        name="The Dog API",
        base_url=base_url,
        base_url_setting="DOG_API_BASE_URL",
        key=key,
        key_header="x-api-key",
        key_setting="the secret of DOG_API_SECRET_NAME",
        rate=Rate(requests=5, seconds=60),
    )


def read_breeds(client: ApiClient, endpoint: str = ENDPOINT) -> list[RawBreed]:
    """Every breed once, in the API's order, each with the text it was read from."""
    found: dict[int, RawBreed] = {}
    for number in range(_MOST_PAGES):
        page = client.get(_request(endpoint, number))
        new = {each.breed.id: each for each in page.breeds if each.breed.id not in found}
        found |= new
        if _is_last(page, len(found), has_new=bool(new)):
            break
    if page.total is not None and page.total != len(found):
        message = (
            f"The Dog API counts {page.total} breeds and gave {len(found)}: its list may have "
            "changed meanwhile, run again."
        )
        raise UnavailableError(message)
    return list(found.values())


def _is_last(page: _Page, found: int, *, has_new: bool) -> bool:
    """A list that isn't paged comes whole, whatever page is asked for: then nothing is new."""
    if not has_new:
        return True
    if page.total is not None:
        return found >= page.total
    return len(page.breeds) != _PAGE


def _request(endpoint: str, number: int) -> Request[_Page]:
    path = f"/{endpoint.strip('/')}"
    params = (("limit", str(_PAGE)), ("page", str(number)))
    return Request(endpoint=path, path=path, read=_read, params=params)


def _read(answer: Answer) -> _Page:
    breeds = _breeds.decode(answer.body)
    texts = _elements.decode(answer.body)
    total = answer.headers.get("pagination-count")
    if total is not None and not (total.isascii() and total.isdecimal()):
        message = "The Dog API's header pagination-count is no number: adapt apis/dogs.py."
        raise SourceShapeError(message)
    return _Page(
        breeds=[
            RawBreed(breed=breed, raw=bytes(text).decode())
            for breed, text in zip(breeds, texts, strict=True)
        ],
        total=None if total is None else int(total),
    )
