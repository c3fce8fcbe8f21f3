"""Anthropic's three reports are read whole, whatever their pages, and refused when they change."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

import pytest

from apis.anthropic import anthropic_api, check_organization, read_code, read_costs, read_usage
from apis.http import ApiClient
from apis.windows import Window
from runs.errors import SettingsError, SourceShapeError
from sandbox.apis.anthropic import FakeAnthropic, code, cost, usage
from sandbox.apis.serving import Fault, Reply, serve
from tests.apis.quick import quick

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sandbox.apis.anthropic import EmptyDays
    from sandbox.apis.serving import ApiRequest

DAY = dt.date(2026, 10, 20)


def ago(days: int) -> dt.date:
    """So many days before DAY."""
    return DAY - dt.timedelta(days=days)


WEEK = Window(first=ago(6), last=DAY)


@pytest.fixture
def fake() -> Iterator[FakeAnthropic]:
    """A fake without data."""
    with serve(FakeAnthropic()) as found:
        yield found


@pytest.fixture
def client(fake: FakeAnthropic) -> Iterator[ApiClient]:
    """A client of it."""
    with ApiClient(quick(anthropic_api(fake.key or "", base_url=fake.url))) as found:
        yield found


def read(client: ApiClient, window: Window = WEEK) -> dict[str, list[tuple[dt.date, Any]]]:
    """All three reports: each result with its day."""
    reports: dict[str, Iterator[list[Any]]] = {
        "costs": read_costs(client, window),
        "usage": read_usage(client, window),
        "code": read_code(client, window),
    }
    return {
        name: [(each.day, each.result) for page in pages for each in page]
        for name, pages in reports.items()
    }


def asked_of(fake: FakeAnthropic, report: str) -> list[ApiRequest]:
    """The requests of one report."""
    return [request for request in fake.requests if request.path.endswith(report)]


@pytest.mark.parametrize("page_size", [1, 2, 3, None])
@pytest.mark.parametrize("has_trailing_token", [False, True])
@pytest.mark.parametrize("empty_days", ["empty", "left_out"])
def test_every_page_is_read_once(
    fake: FakeAnthropic,
    client: ApiClient,
    page_size: int | None,
    empty_days: EmptyDays,
    *,
    has_trailing_token: bool,
) -> None:
    """Whatever a page holds, whether empty days come, and though a last page has a token."""
    fake.page_size, fake.empty_days = page_size, empty_days
    fake.has_trailing_token = has_trailing_token
    for number in (0, 1, 3, 6):
        fake.costs[ago(number)] = [cost(f"{number}.5", description="a"), cost("7")]
        fake.usage[ago(number)] = [usage(number, model="m"), usage(9, api_key_id="k")]
        fake.code[ago(number)] = [code(ago(number), email="a@example.com", sessions=number)] * 4
    found = read(client)
    days = [ago(number) for number in (6, 3, 1, 0)]
    assert [(day, each.amount) for day, each in found["costs"]] == [
        (day, amount)
        for day, number in zip(days, (6, 3, 1, 0), strict=True)
        for amount in (f"{number}.5", "7")
    ]
    assert [day for day, _ in found["usage"]] == [day for day in days for _ in range(2)]
    assert [day for day, _ in found["code"]] == [day for day in days for _ in range(4)]


def test_a_day_may_stand_on_two_pages_that_follow_each_other(
    fake: FakeAnthropic, client: ApiClient
) -> None:
    """A page may end within a day, and nothing of the day is lost."""
    fake.page_size = 1
    fake.costs = {DAY: [cost("1")], ago(1): [cost("2")]}
    same = f"{ago(1)}T00:00:00Z"
    fake.break_down(Fault(trouble="changed", skip=6, change=lambda body: _with_day(body, same)))
    assert [each.amount for _, each in read(client)["costs"]] == ["2", "1"]


def _with_day(body: Any, day: str) -> Any:  # noqa: ANN401 - what JSON holds
    body["data"][0]["starting_at"] = day
    return body


def test_pages_that_repeat_a_day_are_refused(fake: FakeAnthropic, client: ApiClient) -> None:
    """Or its costs would be counted twice."""
    fake.page_size = 1
    first = f"{ago(6)}T00:00:00Z"
    fake.break_down(Fault(trouble="changed", skip=3, change=lambda body: _with_day(body, first)))
    with pytest.raises(SourceShapeError, match=rf"cost_report repeat {first}"):
        read(client)


def test_windows_are_whole_utc_days_in_bounded_parts(
    fake: FakeAnthropic, client: ApiClient
) -> None:
    """From midnight to midnight, the end left out, at most 31 days a part, each day once."""
    read(client, Window(first=ago(69), last=DAY))
    parts = [
        (request.value("starting_at"), request.value("ending_at"))
        for request in asked_of(fake, "cost_report")
        if request.value("page") is None
    ]
    assert parts == [
        (f"{ago(69)}T00:00:00Z", f"{ago(38)}T00:00:00Z"),
        (f"{ago(38)}T00:00:00Z", f"{ago(7)}T00:00:00Z"),
        (f"{ago(7)}T00:00:00Z", "2026-10-21T00:00:00Z"),
    ]
    assert len(asked_of(fake, "cost_report")) == 3  # a page holds a part
    assert len(asked_of(fake, "usage_report/messages")) == 70  # and of usage a day
    assert [request.value("starting_at") for request in asked_of(fake, "claude_code")] == [
        str(ago(number)) for number in range(69, -1, -1)
    ]


def test_a_token_is_sent_back_with_the_same_parameters(
    fake: FakeAnthropic, client: ApiClient
) -> None:
    """The API refuses a token of another request, and says so of no other."""
    fake.page_size = 3
    read(client)
    first, *others = asked_of(fake, "cost_report")
    assert len(others) > 1
    for request in others:
        assert request.value("page")
        assert tuple(each for each in request.query if each[0] != "page") == first.query
    assert len({request.value("page") for request in others}) == len(others)


def test_the_dimensions_are_asked_for(fake: FakeAnthropic, client: ApiClient) -> None:
    """Without them the API adds everything up."""
    dimensions = {"workspace_id": "w", "model": "m", "token_type": "output_tokens"}
    fake.costs[DAY] = [cost("1", description="a", **dimensions), cost("2", description="b")]
    fake.usage[DAY] = [usage(1, api_key_id="k", workspace_id="w", model="m"), usage(2, model="m")]
    found = read(client)
    one, other = (each for _, each in found["costs"])
    assert (one.workspace_id, one.model, one.token_type) == ("w", "m", "output_tokens")
    assert (other.workspace_id, other.model) == (None, None)
    assert [each.api_key_id for _, each in found["usage"]] == ["k", None]


class Endless(FakeAnthropic):
    """Says of every page that there are more, and of each the same of where."""

    next_page: str | None = None

    def reply(self, request: ApiRequest) -> Reply:  # noqa: ARG002 - whatever is asked
        """An empty page."""
        return Reply(body={"data": [], "has_more": True, "next_page": self.next_page})


@pytest.mark.parametrize("next_page", [None, "", "same"])
def test_pages_without_a_way_on_are_refused(next_page: str | None) -> None:
    """More pages and no token, or one that leads back, is no end of the report."""
    with serve(Endless()) as fake:
        fake.next_page = next_page
        with (
            ApiClient(quick(anthropic_api(fake.key or "", base_url=fake.url))) as client,
            pytest.raises(SourceShapeError, match="more pages and does not say where"),
        ):
            read(client)
    assert len(fake.requests) <= 2


@pytest.mark.parametrize(
    ("report", "change", "field"),
    [
        ("cost_report", {"amount": 12.5}, r"data\[0\]\.results\[0\]\.amount"),
        ("cost_report", {"amount": "NaN"}, r"results\[0\]\.amount"),
        ("cost_report", {"amount": None}, r"results\[0\]\.amount"),
        ("cost_report", {"currency": None}, r"results\[0\]\.currency"),
        ("messages", {"output_tokens": None}, r"results\[0\]\.output_tokens"),
        ("messages", {"cache_creation": {"total": 1}}, r"ephemeral_5m_input_tokens"),
    ],
)
def test_a_changed_report_is_refused_by_field(
    fake: FakeAnthropic, client: ApiClient, report: str, change: dict[str, Any], field: str
) -> None:
    """The error names the endpoint and the field, and nothing is made up in its place."""
    fake.costs[WEEK.first], fake.usage[WEEK.first] = [cost("1")], [usage(1)]

    def changed(body: Any) -> Any:  # noqa: ANN401 - what JSON holds
        body["data"][0]["results"][0] |= change
        return body

    fake.break_down(Fault(trouble="changed", path=f".*{report}", times=None, change=changed))
    with pytest.raises(SourceShapeError, match=rf"{report}.*{field}"):
        read(client)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"actor": {"type": "robot"}}, r"data\[0\]\.actor\.type"),
        ({"date": "2026-10-20T13:00:00Z"}, r"data\[0\]\.date"),
        ({"core_metrics": {"num_sessions": 1}}, "lines_of_code"),
    ],
)
def test_a_changed_record_is_refused_by_field(
    fake: FakeAnthropic, client: ApiClient, change: dict[str, Any], field: str
) -> None:
    """The same for Claude Code's report."""
    fake.code[DAY] = [code(DAY, email="a@example.com") | change]
    with pytest.raises(SourceShapeError, match=rf"claude_code.*{field}"):
        read(client)


def test_what_may_be_null_may_be_missing(fake: FakeAnthropic, client: ApiClient) -> None:
    """A result of nothing but its amount, and fields that nobody knows, are no other shape."""
    bare = {"amount": "1", "currency": "USD", "speed": "fast"}
    fake.break_down(
        Fault(
            trouble="changed",
            path=".*cost_report",
            change=lambda _: {
                "data": [{"starting_at": f"{DAY}T00:00:00Z", "results": [bare]}],
                "has_more": False,
            },
        )
    )
    ((day, found),) = read(client)["costs"]
    assert (day, found.amount, found.model) == (DAY, "1", None)


@pytest.mark.parametrize(
    ("name", "value"),
    [("ending_at", "2026-10-20T23:59:59Z"), ("starting_at", "2026-10-14T12:00:00Z")],
)
def test_the_fake_refuses_what_the_api_refuses(
    fake: FakeAnthropic, client: ApiClient, name: str, value: str
) -> None:
    """Windows that end at 23:59:59, or begin at noon, are a 400."""
    read(client)
    request = asked_of(fake, "cost_report")[0]
    query = tuple((each, value if each == name else kept) for each, kept in request.query)
    reply = fake.reply(type(request)(path=request.path, query=query, headers=request.headers))
    assert reply.status == 400
    assert reply.body["error"]["type"] == "invalid_request_error"


def test_the_key_must_be_of_the_organization(fake: FakeAnthropic, client: ApiClient) -> None:
    """Or another organization's costs would be stored under this one's id."""
    check_organization(client, fake.organization)
    with pytest.raises(SettingsError, match="another organization than ANTHROPIC_ORGANIZATION_ID"):
        check_organization(client, "00000000-0000-4000-8000-000000000000")


def test_every_request_says_who_asks_and_for_which_version(
    fake: FakeAnthropic, client: ApiClient
) -> None:
    """By headers; the key stands in no address."""
    check_organization(client, fake.organization)
    read(client)
    for request in fake.requests:
        assert request.headers["x-api-key"] == fake.key
        assert request.headers["anthropic-version"] == "2023-06-01"
        assert fake.key not in str(request.query)
