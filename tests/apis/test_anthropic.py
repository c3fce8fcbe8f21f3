"""Anthropic's three reports: every page is read once, and a report of another shape is refused."""

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
    """The date so many days before DAY."""
    return DAY - dt.timedelta(days=days)


WEEK = Window(first=ago(6), last=DAY)


@pytest.fixture
def fake() -> Iterator[FakeAnthropic]:
    """A fake Anthropic API without data."""
    with serve(FakeAnthropic()) as found:
        yield found


@pytest.fixture
def client(fake: FakeAnthropic) -> Iterator[ApiClient]:
    """A client of the fake API."""
    with ApiClient(quick(anthropic_api(fake.key or "", base_url=fake.url))) as found:
        yield found


def read(client: ApiClient, window: Window = WEEK) -> dict[str, list[tuple[dt.date, Any]]]:
    """Read all three reports: each result with its day."""
    reports: dict[str, Iterator[list[Any]]] = {
        "costs": read_costs(client, window),
        "usage": read_usage(client, window),
        "code": read_code(client, window),
    }
    return {
        name: [(each.day, each.result) for page in pages for each in page]
        for name, pages in reports.items()
    }


def requests_for(fake: FakeAnthropic, report: str) -> list[ApiRequest]:
    """The requests that the fake received for one report."""
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
    """With any page size, with or without empty days, and if the last page has a token, too."""
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


def test_a_day_may_continue_on_the_next_page(fake: FakeAnthropic, client: ApiClient) -> None:
    """A page may end within a day, and no result of that day is lost."""
    fake.page_size = 1
    fake.costs = {DAY: [cost("1")], ago(1): [cost("2")]}
    previous_day = f"{ago(1)}T00:00:00Z"
    fake.break_down(
        Fault(trouble="changed", skip=6, change=lambda body: _with_day(body, previous_day))
    )
    assert [each.amount for _, each in read(client)["costs"]] == ["2", "1"]


def _with_day(body: Any, day: str) -> Any:  # noqa: ANN401 - what JSON holds
    body["data"][0]["starting_at"] = day
    return body


def test_pages_that_repeat_a_day_are_refused(fake: FakeAnthropic, client: ApiClient) -> None:
    """Otherwise that day's costs would be counted twice."""
    fake.page_size = 1
    first_day = f"{ago(6)}T00:00:00Z"
    fake.break_down(
        Fault(trouble="changed", skip=3, change=lambda body: _with_day(body, first_day))
    )
    with pytest.raises(SourceShapeError, match=rf"cost_report repeat {first_day}"):
        read(client)


def test_windows_are_split_into_parts_of_whole_utc_days(
    fake: FakeAnthropic, client: ApiClient
) -> None:
    """From midnight up to but not including a midnight, at most 31 days, each day in one part."""
    read(client, Window(first=ago(69), last=DAY))
    parts = [
        (request.value("starting_at"), request.value("ending_at"))
        for request in requests_for(fake, "cost_report")
        if request.value("page") is None
    ]
    assert parts == [
        (f"{ago(69)}T00:00:00Z", f"{ago(38)}T00:00:00Z"),
        (f"{ago(38)}T00:00:00Z", f"{ago(7)}T00:00:00Z"),
        (f"{ago(7)}T00:00:00Z", "2026-10-21T00:00:00Z"),
    ]
    assert len(requests_for(fake, "cost_report")) == 3  # one page holds a whole part
    assert len(requests_for(fake, "usage_report/messages")) == 70  # a page of usage holds one day
    assert [request.value("starting_at") for request in requests_for(fake, "claude_code")] == [
        str(ago(number)) for number in range(69, -1, -1)
    ]


def test_a_page_token_is_sent_with_the_same_parameters(
    fake: FakeAnthropic, client: ApiClient
) -> None:
    """The API accepts a token only with the parameters of the request that returned it."""
    fake.page_size = 3
    read(client)
    first, *others = requests_for(fake, "cost_report")
    assert len(others) > 1
    for request in others:
        assert request.value("page")
        assert tuple(each for each in request.query if each[0] != "page") == first.query
    assert len({request.value("page") for request in others}) == len(others)


def test_the_dimensions_are_requested(fake: FakeAnthropic, client: ApiClient) -> None:
    """Without them the API returns sums over all of them."""
    dimensions = {"workspace_id": "w", "model": "m", "token_type": "output_tokens"}
    fake.costs[DAY] = [cost("1", description="a", **dimensions), cost("2", description="b")]
    fake.usage[DAY] = [usage(1, api_key_id="k", workspace_id="w", model="m"), usage(2, model="m")]
    found = read(client)
    one, other = (each for _, each in found["costs"])
    assert (one.workspace_id, one.model, one.token_type) == ("w", "m", "output_tokens")
    assert (other.workspace_id, other.model) == (None, None)
    assert [each.api_key_id for _, each in found["usage"]] == ["k", None]


class Endless(FakeAnthropic):
    """Always announces another page, and always gives the same token for it."""

    next_page: str | None = None

    def reply(self, request: ApiRequest) -> Reply:  # noqa: ARG002 - whatever is asked
        """An empty page."""
        return Reply(body={"data": [], "has_more": True, "next_page": self.next_page})


@pytest.mark.parametrize("next_page", [None, "", "same"])
def test_another_page_without_a_new_token_is_refused(next_page: str | None) -> None:
    """A report is incomplete if another page is announced with no token, or with a repeated one."""
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
def test_a_changed_report_is_refused_and_its_field_named(
    fake: FakeAnthropic, client: ApiClient, report: str, change: dict[str, Any], field: str
) -> None:
    """The error names the endpoint and the field; no value is invented for it."""
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
def test_a_changed_claude_code_record_is_refused_and_its_field_named(
    fake: FakeAnthropic, client: ApiClient, change: dict[str, Any], field: str
) -> None:
    """The error names the endpoint and the field."""
    fake.code[DAY] = [code(DAY, email="a@example.com") | change]
    with pytest.raises(SourceShapeError, match=rf"claude_code.*{field}"):
        read(client)


def test_optional_fields_may_be_missing(fake: FakeAnthropic, client: ApiClient) -> None:
    """A result with nothing but its amount is accepted, and so are unknown fields."""
    minimal_result = {"amount": "1", "currency": "USD", "speed": "fast"}
    fake.break_down(
        Fault(
            trouble="changed",
            path=".*cost_report",
            change=lambda _: {
                "data": [{"starting_at": f"{DAY}T00:00:00Z", "results": [minimal_result]}],
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
    """A window that ends at 23:59:59, or begins at noon, gets status 400."""
    read(client)
    request = requests_for(fake, "cost_report")[0]
    query = tuple((each, value if each == name else original) for each, original in request.query)
    reply = fake.reply(type(request)(path=request.path, query=query, headers=request.headers))
    assert reply.status == 400
    assert reply.body["error"]["type"] == "invalid_request_error"


def test_the_key_must_belong_to_the_organization(fake: FakeAnthropic, client: ApiClient) -> None:
    """Otherwise another organization's costs would be stored under this one's id."""
    check_organization(client, fake.organization)
    with pytest.raises(SettingsError, match="another organization than ANTHROPIC_ORGANIZATION_ID"):
        check_organization(client, "00000000-0000-4000-8000-000000000000")


def test_every_request_has_the_key_and_api_version_in_its_headers(
    fake: FakeAnthropic, client: ApiClient
) -> None:
    """No URL contains the key."""
    check_organization(client, fake.organization)
    read(client)
    for request in fake.requests:
        assert request.headers["x-api-key"] == fake.key
        assert request.headers["anthropic-version"] == "2023-06-01"
        assert fake.key not in str(request.query)
