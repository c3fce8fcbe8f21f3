"""A stand-in for The Dog API: its list of breeds, paged or, as an older version had it, whole."""

from __future__ import annotations

import random
from typing import Any, Final

from sandbox.apis.serving import ApiRequest, FakeApi, Reply

type Element = dict[str, Any]

_GROUPS: Final = ("Herding", "Hound", "Sporting", "Terrier", "Toy", "Working")
_TEMPERAMENTS: Final = ("Alert", "Brave", "Calm", "Curious", "Loyal", "Playful", "Stubborn")
_DIRTY_WEIGHTS: Final = ("NaN", "NaN - 8", "27", "6 - 13")


class FakeDogs(FakeApi):
    """`is_paged`: whether it heeds `limit` and `page`."""

    def __init__(self, breeds: list[Element] | None = None, *, key: str | None = None) -> None:
        super().__init__()
        self.key = key
        self.breeds = breeds if breeds is not None else []
        self.is_paged = True
        self.counts = True  # in its headers

    def error(self, status: int, message: str) -> Reply:
        """An error in the API's own words."""
        return Reply(status=status, body={"message": message, "status": status})

    def reply(self, request: ApiRequest) -> Reply:
        """The answer to a request whose key is right."""
        if request.path != "/v1/breeds":
            return self.error(404, "Not Found")
        limit = request.value("limit")
        if not self.is_paged or limit is None:
            return Reply(body=self.breeds)
        size, page = int(limit), int(request.value("page") or 0)
        headers = {
            "pagination-count": str(len(self.breeds)),
            "pagination-page": str(page),
            "pagination-limit": limit,
        }
        body = self.breeds[page * size : (page + 1) * size]
        return Reply(body=body, headers=headers if self.counts else {})


def breed(number: int, name: str, **fields: Any) -> Element:  # noqa: ANN401 - what JSON holds
    """An element of which only the certain fields are there, and those given."""
    return {"id": number, "name": name, **fields}


def sample_breeds(count: int = 172, seed: int = 1) -> list[Element]:
    """Breeds as messy as the real ones."""
    chance = random.Random(seed)  # noqa: S311 - sample data
    return [_sample(number, chance) for number in range(1, count + 1)]


def _sample(number: int, chance: random.Random) -> Element:
    least = chance.randint(3, 40)
    weight = f"{least} - {least + chance.randint(1, 20)}"
    picture = f"img{number:04}"
    fields: Element = {
        "weight": {
            "imperial": f"{least * 2} - {least * 3}",
            "metric": weight if number % 9 else chance.choice(_DIRTY_WEIGHTS),
        },
        "height": {"imperial": "9 - 12", "metric": f"{least + 10} - {least + 20}"},
        "life_span": f"{chance.randint(8, 11)} - {chance.randint(12, 16)} years",
        "temperament": ", ".join(chance.sample(_TEMPERAMENTS, chance.randint(1, 4))),
        "breed_group": chance.choice(_GROUPS),
        "origin": chance.choice(["", "Germany", "France, Italy"]),
        "reference_image_id": picture,
        "image": {
            "id": picture,
            "width": 1600,
            "height": 1199,
            "url": f"https://images.example.com/{picture}.jpg",
        },
    }
    if number % 13 == 0:  # the poorest elements have a name, and nothing else
        fields = {}
    return breed(number, f"Example Hound {number}", **fields)
