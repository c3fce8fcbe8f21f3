"""A stand-in for Anthropic's Admin API: three reports and the organization."""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import json
import random
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, Literal, NoReturn

from sandbox.apis.serving import ApiRequest, FakeApi, Reply

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

type Result = dict[str, Any]
type Days = dict[dt.date, list[Result]]
type EmptyDays = Literal["empty", "left_out"]

ORGANIZATION: Final = "12345678-9abc-4def-8123-456789abcdef"
_MOST_BUCKETS: Final = 31
_USUAL_BUCKETS: Final = 7
_MOST_RECORDS: Final = 1000
_USUAL_RECORDS: Final = 20
_DESCRIBED: Final = (
    "description", "cost_type", "context_window", "model", "service_tier", "token_type",
    "inference_geo",
)  # fmt: skip
_COST_DIMENSIONS: Final = {"workspace_id": ("workspace_id",), "description": _DESCRIBED}
_USAGE_DIMENSIONS: Final = {
    name: (name,)
    for name in (
        "api_key_id", "workspace_id", "model", "service_tier", "context_window", "inference_geo",
    )
}  # fmt: skip
_TYPES: Final = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
    500: "api_error",
    529: "overloaded_error",
}


class _RefusedError(Exception):
    """What a request can't be fulfilled for."""


def _refuse(why: str) -> NoReturn:
    raise _RefusedError(why)


class FakeAnthropic(FakeApi):
    """Its data may be changed at any time: a day that was restated has other results."""

    def __init__(self, *, key: str = "test-admin-key", organization: str = ORGANIZATION) -> None:
        super().__init__()
        self.key = key
        self.organization = organization
        self.costs: Days = {}
        self.usage: Days = {}
        self.code: Days = {}
        self.empty_days: EmptyDays = "empty"
        self.has_trailing_token = False  # after the last page
        self.page_size: int | None = None  # where it gives less at a time than it is asked for

    def error(self, status: int, message: str) -> Reply:
        """An error in the API's own words."""
        error = {"type": _TYPES.get(status, "api_error"), "message": message}
        body = {"type": "error", "error": error, "request_id": "req_011CSHoEeqs5C35K2UUqR7Fy"}
        return Reply(status=status, body=body)

    def reply(self, request: ApiRequest) -> Reply:
        """The answer to a request whose key is right."""
        if request.headers.get("anthropic-version") != "2023-06-01":
            return self.error(400, "anthropic-version: header is required")
        try:
            return self._route(request)
        except _RefusedError as refusal:
            return self.error(400, str(refusal))

    def _route(self, request: ApiRequest) -> Reply:
        match request.path.removeprefix("/v1/organizations/"):
            case "me":
                name = "Example Organization"
                body = {"id": self.organization, "type": "organization", "name": name}
                return Reply(body=body)
            case "cost_report":
                return self._report(request, self.costs, _COST_DIMENSIONS)
            case "usage_report/messages":
                return self._report(request, self.usage, _USAGE_DIMENSIONS)
            case "usage_report/claude_code":
                return self._code(request)
        return self.error(404, "Not found")

    def _report(
        self, request: ApiRequest, days: Days, dimensions: Mapping[str, tuple[str, ...]]
    ) -> Reply:
        first = _midnight(request, "starting_at")
        end = _midnight(request, "ending_at")
        if end <= first:
            _refuse("ending_at: must be after starting_at")
        if request.value("bucket_width") not in {None, "1d"}:
            _refuse("bucket_width: must be 1d")
        limit = _limit(request, _USUAL_BUCKETS, _MOST_BUCKETS)
        groups = request.values("group_by[]")
        if unknown := set(groups) - dimensions.keys():
            _refuse(f"group_by[]: {sorted(unknown)} is not known")
        kept = [column for group in groups for column in dimensions[group]]
        dropped = {column for columns in dimensions.values() for column in columns} - set(kept)
        wanted = [first + dt.timedelta(days=number) for number in range((end - first).days)]
        if self.empty_days == "left_out":
            wanted = [day for day in wanted if days.get(day)]
        buckets = [
            {
                "starting_at": f"{day}T00:00:00Z",
                "ending_at": f"{day + dt.timedelta(days=1)}T00:00:00Z",
                "results": _grouped(days.get(day, []), kept, dropped),
            }
            for day in wanted
        ]
        return self._page(request, buckets, limit)

    def _code(self, request: ApiRequest) -> Reply:
        try:
            day = dt.date.fromisoformat(request.value("starting_at") or "")
        except ValueError:
            _refuse("starting_at: must be a date, YYYY-MM-DD")
        return self._page(
            request, self.code.get(day, []), _limit(request, _USUAL_RECORDS, _MOST_RECORDS)
        )

    def _page(self, request: ApiRequest, items: Sequence[Result], limit: int) -> Reply:
        rest = [each for each in request.query if each[0] != "page"]
        mark = hashlib.sha256(json.dumps([request.path, rest]).encode()).hexdigest()[:12]
        start = _start(request.value("page"), mark)
        end = start + min(limit, self.page_size or limit)
        has_more = end < len(items)
        token = base64.urlsafe_b64encode(f"{mark}:{end}".encode()).decode()
        next_page = f"page_{token}" if has_more or self.has_trailing_token else None
        body = {"data": items[start:end], "has_more": has_more, "next_page": next_page}
        return Reply(body=body)


def _midnight(request: ApiRequest, name: str) -> dt.date:
    text = request.value(name) or ""
    try:
        moment = dt.datetime.fromisoformat(text)
    except ValueError:
        _refuse(f"{name}: must be an RFC 3339 timestamp")
    if moment.tzinfo is None or moment.astimezone(dt.UTC).time() != dt.time(0):
        _refuse(f"{name}: must be the start of a UTC day")
    return moment.astimezone(dt.UTC).date()


def _limit(request: ApiRequest, usual: int, most: int) -> int:
    text = request.value("limit") or str(usual)
    if not text.isdecimal() or not 1 <= int(text) <= most:
        _refuse(f"limit: must be from 1 to {most}")
    return int(text)


def _start(page: str | None, mark: str) -> int:
    if page is None:
        return 0
    try:
        found, _, start = (
            base64.urlsafe_b64decode(page.removeprefix("page_")).decode().partition(":")
        )
        position = int(start)
    except ValueError:
        found, position = "", 0
    if found != mark:
        _refuse("page: is not of this request")
    return position


def _grouped(results: Iterable[Result], kept: list[str], dropped: set[str]) -> list[Result]:
    """The results added up to the dimensions that were asked for: the others are null."""
    grouped: dict[tuple[Any, ...], Result] = {}
    for result in results:
        key = (*(result.get(name) for name in kept), result.get("currency"))
        alike = {**result, **dict.fromkeys(dropped)}
        grouped[key] = _sum(grouped[key], alike) if key in grouped else alike
    return list(grouped.values())


def _sum(one: Result, other: Result) -> Result:
    """One result for two that differ in no dimension."""
    added = dict(one)
    for name, value in one.items():
        if isinstance(value, dict):
            added[name] = _sum(value, other[name])
        elif isinstance(value, int):
            added[name] = value + other[name]
        elif name == "amount":
            added[name] = str(Decimal(value) + Decimal(other[name]))
    return added


def cost(amount: str, **dimensions: str | None) -> Result:
    """A result of the cost report: in cents, and null where nothing is said."""
    return {
        "amount": amount,
        "currency": "USD",
        "workspace_id": None,
        **dict.fromkeys(_DESCRIBED),
        **dimensions,
    }


def usage(tokens: int, **dimensions: str | None) -> Result:
    """A result of the usage report."""
    return {
        "uncached_input_tokens": tokens,
        "output_tokens": tokens // 4,
        "cache_read_input_tokens": tokens * 3,
        "cache_creation": {
            "ephemeral_5m_input_tokens": tokens // 10,
            "ephemeral_1h_input_tokens": tokens // 100,
        },
        "server_tool_use": {"web_search_requests": tokens % 3},
        **dict.fromkeys(_USAGE_DIMENSIONS),
        **dimensions,
    }


def code(
    day: dt.date, *, email: str | None = None, key_name: str | None = None, sessions: int = 1
) -> Result:
    """A record of the Claude Code report, of a user or else of a key."""
    actor = (
        {"type": "user_actor", "email_address": email}
        if email
        else {"type": "api_actor", "api_key_name": key_name}
    )
    tools = ("edit_tool", "multi_edit_tool", "write_tool", "notebook_edit_tool")
    return {
        "date": f"{day}T00:00:00Z",
        "actor": actor,
        "organization_id": ORGANIZATION,
        "customer_type": "subscription" if email else "api",
        "subscription_type": "enterprise" if email else None,
        "terminal_type": "vscode",
        "core_metrics": {
            "num_sessions": sessions,
            "lines_of_code": {"added": 120 * sessions, "removed": 35 * sessions},
            "commits_by_claude_code": 2 * sessions,
            "pull_requests_by_claude_code": sessions // 2,
        },
        "tool_actions": {tool: {"accepted": 9 * sessions, "rejected": sessions} for tool in tools},
        "model_breakdown": [
            {
                "model": "claude-sonnet-4-5",
                "tokens": {"input": 900, "output": 300, "cache_read": 50, "cache_creation": 9},
                "estimated_cost": {"currency": "USD", "amount": 77 * sessions},
            }
        ],
    }


def fill(fake: FakeAnthropic, last_day: dt.date, *, days: int, seed: int = 1) -> None:
    """Sample data of so many days: two workspaces, three keys, one empty day in seven."""
    for number in range(days):
        day = last_day - dt.timedelta(days=number)
        chance = random.Random(f"{seed} {day}")  # noqa: S311 - sample data
        fake.costs[day], fake.usage[day], fake.code[day] = [], [], []
        if chance.random() < 1 / 7:
            continue
        for workspace in (None, "wrkspc_01Example"):
            for model in ("claude-opus-4-5", "claude-sonnet-4-5"):
                _fill_model(fake, day, chance, workspace, model)
        fake.costs[day].append(cost("12.5", description="Web Search Usage", cost_type="web_search"))
        for name in ("ada", "ben"):
            fake.code[day] += [
                code(day, email=f"{name}@example.com", sessions=chance.randint(1, 6))
                for _ in range(chance.randint(1, 2))
            ]
        fake.code[day].append(code(day, key_name="ci", sessions=chance.randint(1, 3)))


def _fill_model(
    fake: FakeAnthropic, day: dt.date, chance: random.Random, workspace: str | None, model: str
) -> None:
    for kind in ("uncached_input_tokens", "output_tokens", "cache_read_input_tokens"):
        amount = f"{chance.randint(0, 40_000)}.{chance.randint(0, 99_999):05}"
        fake.costs[day].append(
            cost(
                amount,
                workspace_id=workspace,
                model=model,
                token_type=kind,
                cost_type="tokens",
                description=f"{model} Usage - {kind}",
                service_tier="standard",
                context_window="0-200k",
            )
        )
    for key in (None, "apikey_01Example", "apikey_02Example"):
        fake.usage[day].append(
            usage(
                chance.randint(1_000, 900_000),
                api_key_id=key,
                workspace_id=workspace,
                model=model,
                service_tier="standard",
            )
        )
