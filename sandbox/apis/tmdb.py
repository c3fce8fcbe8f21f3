"""A stand-in for TMDB v3: changed ids by day, and what they are."""

from __future__ import annotations

import datetime as dt
import random
import threading
import time
from collections import deque
from typing import Any, Final

from sandbox.apis.serving import ApiRequest, FakeApi, Reply

type Item = dict[str, Any]

_PAGE: Final = 100
_MOST_PAGES: Final = 500
_MOST_DAYS: Final = 14
_MOST_APPENDED: Final = 20
_CODES: Final = {
    401: (7, "Invalid API key: You must be granted a valid key."),
    404: (34, "The resource you requested could not be found."),
    429: (25, "Your request count is over the allowed limit."),
    503: (9, "Service offline: This service is temporarily offline, try again later."),
}


class FakeTmdb(FakeApi):
    """`end_is_inclusive`: whether the day of `end_date` counts, which nobody documents."""

    key_header = "authorization"
    key_prefix = "Bearer "

    def __init__(self, *, key: str = "test-read-token") -> None:
        super().__init__()
        self.key = key
        self.items: dict[str, dict[int, Item]] = {"tv": {}, "movie": {}, "person": {}}
        self.changes: dict[str, dict[dt.date, list[Item]]] = {"tv": {}, "movie": {}, "person": {}}
        self.end_is_inclusive = True
        self.requests_a_second: int | None = None  # above which it answers 429
        self._recent: deque[float] = deque()
        self._counting = threading.Lock()

    def error(self, status: int, message: str) -> Reply:
        """An error in the API's own words."""
        code, status_code_message = _CODES.get(status, (11, message))
        return Reply(
            status=status,
            body={"success": False, "status_code": code, "status_message": status_code_message},
        )

    def reply(self, request: ApiRequest) -> Reply:
        """The answer to a request whose key is right."""
        if self._is_over_limit():
            return self.error(429, "")
        match request.path.split("/"):
            case ["", "3", kind, "changes"] if kind in self.items:
                return self._changes(request, kind)
            case ["", "3", kind, number] if kind in self.items and number.isdecimal():
                return self._details(request, self.items[kind].get(int(number)))
        return self.error(404, "")

    def _is_over_limit(self) -> bool:
        if self.requests_a_second is None:
            return False
        now = time.monotonic()
        with self._counting:
            while self._recent and self._recent[0] <= now - 1:
                self._recent.popleft()
            self._recent.append(now)
            return len(self._recent) > self.requests_a_second

    def _changes(self, request: ApiRequest, kind: str) -> Reply:
        try:
            first = dt.date.fromisoformat(request.value("start_date") or "")
            last = dt.date.fromisoformat(request.value("end_date") or "")
        except ValueError:
            return self._refused(422, 20, "Invalid date: Should be YYYY-MM-DD.")
        days = (last - first).days + (1 if self.end_is_inclusive else 0)
        if not 0 <= days <= _MOST_DAYS:
            text = "Invalid date range: Should be a range no longer than 14 days."
            return self._refused(422, 20, text)
        page = int(request.value("page") or 1)
        if not 1 <= page <= _MOST_PAGES:
            text = "Invalid page: Pages start at 1 and max at 500."
            return self._refused(400, 22, text)
        entries = [
            entry
            for number in range(days)
            for entry in self.changes[kind].get(first + dt.timedelta(days=number), [])
        ]
        body = {
            "results": entries[(page - 1) * _PAGE : page * _PAGE],
            "page": page,
            "total_pages": max(1, -(-len(entries) // _PAGE)),
            "total_results": len(entries),
        }
        return Reply(body=body)

    def _refused(self, status: int, code: int, message: str) -> Reply:
        body = {"success": False, "status_code": code, "status_message": message}
        return Reply(status=status, body=body)

    def _details(self, request: ApiRequest, item: Item | None) -> Reply:
        if item is None:
            return self.error(404, "")
        appended = (request.value("append_to_response") or "").split(",")
        if len(appended) > _MOST_APPENDED:
            return self._refused(400, 27, "Too many append to response objects.")
        appendable = {"credits", "videos", "watch/providers", "keywords", "combined_credits"}
        return Reply(
            body={
                name: value
                for name, value in item.items()
                if name not in appendable or name in appended
            }
        )

    def change(self, kind: str, day: dt.date, *entries: Item) -> None:
        """Let these entries be among a day's changes."""
        self.changes[kind].setdefault(day, []).extend(entries)

    def put(self, kind: str, item: Item, *days: dt.date) -> None:
        """Let this be what an id is, changed on these days."""
        self.items[kind][item["id"]] = item
        for day in days:
            self.change(kind, day, {"id": item["id"], "adult": bool(item.get("adult"))})


def movie(number: int, **fields: Any) -> Item:  # noqa: ANN401 - what JSON holds
    """A movie that every rule lets pass."""
    usual = {
        "title": f"Example Movie {number}",
        "original_title": f"Example Movie {number}",
        "release_date": "2025-03-01",
        "runtime": 104,
        "keywords": {"keywords": [{"id": 1, "name": "harbour"}]},
    }
    return {**_title(number), **usual, **fields}


def show(number: int, **fields: Any) -> Item:  # noqa: ANN401 - likewise
    """A TV show that every rule lets pass."""
    usual = {
        "name": f"Example Show {number}",
        "original_name": f"Example Show {number}",
        "first_air_date": "2024-09-12",
        "last_air_date": "2025-09-12",
        "episode_run_time": [],
        "keywords": {"results": [{"id": 1, "name": "harbour"}]},
    }
    return {**_title(number), **usual, **fields}


def _title(number: int) -> Item:
    return {
        "id": number,
        "adult": False,
        "overview": "Somebody comes to a harbour and stays.",
        "poster_path": f"/poster{number}.jpg",
        "backdrop_path": None,
        "popularity": 7.25,
        "vote_average": 6.8,
        "vote_count": 120,
        "credits": {
            "cast": [
                {"id": 3, "name": "Third Person", "order": 2, "character": "Cook"},
                {"id": 1, "name": "First Person", "order": 0, "character": "Keeper"},
                {"id": 2, "name": "Second Person", "order": 1, "character": None},
            ],
            "crew": [{"id": 9, "name": "Example Director", "job": "Director"}],
        },
        "videos": {"results": []},
        "watch/providers": {"results": {"US": {"flatrate": [{"provider_name": "Netflix"}]}}},
    }


def person(number: int, **fields: Any) -> Item:  # noqa: ANN401 - likewise
    """A person that every rule lets pass."""
    usual: Item = {
        "id": number,
        "adult": False,
        "name": f"Example Person {number}",
        "also_known_as": ["E. Person"],
        "biography": "Born somewhere, and known for something.",
        "profile_path": f"/profile{number}.jpg",
        "popularity": 4.5,
        "known_for_department": "Acting",
        "birthday": "1980-02-29",
        "deathday": None,
        "place_of_birth": "Example City",
        "combined_credits": {
            "cast": [
                {"id": 1, "title": "Lesser Movie", "popularity": 2.0, "vote_count": 10},
                {"id": 2, "name": "Greater Show", "popularity": 9.0, "vote_count": 900},
            ],
            "crew": [],
        },
    }
    return {**usual, **fields}


def fill(fake: FakeTmdb, last_day: dt.date, *, days: int = 7, seed: int = 1) -> None:
    """Sample changes of so many days: some good, some below the rules, some gone, some dirty."""
    makers = {"movie": movie, "tv": show, "person": person}
    for kind, make in makers.items():
        for back in range(days):
            day = last_day - dt.timedelta(days=back)
            chance = random.Random(f"{seed} {kind} {day}")  # noqa: S311 - sample data
            for _ in range(40):
                number = chance.randint(1, 400)
                item = make(number, **_flaws(chance))
                if chance.random() < 1 / 20:
                    fake.items[kind].pop(number, None)
                    fake.change(kind, day, {"id": number, "adult": None})
                else:
                    fake.put(kind, item, day)
            fake.change(kind, day, {"id": None, "adult": None})


def _flaws(chance: random.Random) -> Item:
    flaw = chance.randint(0, 9)
    flaws: dict[int, Item] = {
        0: {"popularity": 0.4},
        1: {"poster_path": None, "profile_path": None},
        2: {"adult": True},
        3: {"vote_count": 1},
    }
    return flaws.get(flaw, {"popularity": round(chance.uniform(1, 180), 3)})
