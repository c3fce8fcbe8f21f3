"""Anthropic's Admin API: its three reports, page by page. Knows no table.

The vendor calls these endpoints legacy, but supported: nothing else asks them.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from apis.http import Api, ApiClient, Rate, Request, json_as
from apis.records import (
    Bucket,
    CodeRecord,
    CostResult,
    Organization,
    ReportPage,
    UsageResult,
)
from runs.errors import SettingsError, SourceShapeError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from apis.http import Answer
    from apis.windows import Window

BASE_URL: Final = "https://api.anthropic.com"
_VERSION: Final = "2023-06-01"
_ORGANIZATION: Final = "/v1/organizations/me"
_COSTS: Final = "/v1/organizations/cost_report"
_USAGE: Final = "/v1/organizations/usage_report/messages"
_CODE: Final = "/v1/organizations/usage_report/claude_code"
_RATE: Final = Rate(requests=20, seconds=4)  # paging may burst, and stays far below any limit
_MOST_DAYS: Final = 31  # of a part: as many buckets as the API gives at once
_DAYS_OF_USAGE: Final = 1  # in a page: of many keys, each is megabytes of JSON
_MOST_RECORDS: Final = 1000

_read_organization = json_as(Organization)
_read_costs = json_as(ReportPage[Bucket[CostResult]])
_read_usage = json_as(ReportPage[Bucket[UsageResult]])
_read_code = json_as(ReportPage[CodeRecord])


@dataclass(frozen=True, slots=True, kw_only=True)
class Dated[Result]:
    """A result and the UTC day that it is of."""

    day: dt.date
    result: Result


def anthropic_api(key: str, *, base_url: str = BASE_URL) -> Api:
    """How the API is asked."""
    return Api(
        name="Anthropic's Admin API",
        base_url=base_url,
        base_url_setting="ANTHROPIC_BASE_URL",
        key=key,
        key_header="x-api-key",
        key_setting="the secret anthropic-admin-api-key",
        headers={"anthropic-version": _VERSION},
        rate=_RATE,
    )


def check_organization(client: ApiClient, organization_id: str) -> None:
    """Raise SettingsError where the key belongs to another organization than the settings say."""
    found = client.get(Request(endpoint=_ORGANIZATION, path=_ORGANIZATION, read=_read_organization))
    if found.id != organization_id:
        message = (
            "The key of the secret anthropic-admin-api-key belongs to another organization than "
            "ANTHROPIC_ORGANIZATION_ID: correct one of them."
        )
        raise SettingsError(message)


def read_costs(client: ApiClient, window: Window) -> Iterator[list[Dated[CostResult]]]:
    """The cost of each day, workspace and description, a page at a time."""
    dimensions = ("workspace_id", "description")
    return _read_buckets(client, window, _COSTS, dimensions, _read_costs, days=_MOST_DAYS)


def read_usage(client: ApiClient, window: Window) -> Iterator[list[Dated[UsageResult]]]:
    """The tokens of each day, key, workspace and model, a page at a time."""
    dimensions = ("api_key_id", "workspace_id", "model")
    return _read_buckets(client, window, _USAGE, dimensions, _read_usage, days=_DAYS_OF_USAGE)


def read_code(client: ApiClient, window: Window) -> Iterator[list[Dated[CodeRecord]]]:
    """Claude Code activity, a page at a time: the API returns one day per request."""
    for day in window.days():
        params = (("starting_at", day.isoformat()), ("limit", str(_MOST_RECORDS)))
        for page in _read_pages(client, _CODE, params, _read_code):
            yield [Dated(day=day_of(each.date), result=each) for each in page.data]


def day_of(text: str) -> dt.date:
    """The UTC day that a `UtcDay` names."""
    return dt.date.fromisoformat(text[:10])


def _read_buckets[Result](
    client: ApiClient,
    window: Window,
    path: str,
    dimensions: tuple[str, ...],
    read: Callable[[Answer], ReportPage[Bucket[Result]]],
    *,
    days: int,
) -> Iterator[list[Dated[Result]]]:
    for part in window.parts(_MOST_DAYS):
        params = (
            ("starting_at", _midnight(part.first)),
            ("ending_at", _midnight(part.end)),
            ("bucket_width", "1d"),
            ("limit", str(days)),
            *(("group_by[]", dimension) for dimension in dimensions),
        )
        done: set[str] = set()  # days of all pages but the last, which may end within a day
        last: set[str] = set()
        for page in _read_pages(client, path, params, read):
            found = {bucket.starting_at for bucket in page.data}
            if repeated := found & done:
                message = f"The pages of {path} repeat {min(repeated)}: nothing of it can be used."
                raise SourceShapeError(message)
            done |= last
            last = found
            yield [
                Dated(day=day_of(bucket.starting_at), result=result)
                for bucket in page.data
                for result in bucket.results
            ]


def _midnight(day: dt.date) -> str:
    return f"{day.isoformat()}T00:00:00Z"


def _read_pages[Item](
    client: ApiClient,
    path: str,
    params: tuple[tuple[str, str], ...],
    read: Callable[[Answer], ReportPage[Item]],
) -> Iterator[ReportPage[Item]]:
    """Every page: each page's token is sent with the same parameters, up to the last page."""
    tokens: set[str] = set()
    more: tuple[tuple[str, str], ...] = ()
    while True:
        page = client.get(Request(endpoint=path, path=path, read=read, params=params + more))
        yield page
        if not page.has_more:
            return
        token = page.next_page
        if not token or token in tokens:
            message = f"{path} has more pages and does not say where: nothing of it can be used."
            raise SourceShapeError(message)
        tokens.add(token)
        more = (("page", token),)
