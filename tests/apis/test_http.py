"""The HTTP client: what is tried again, what is final, what stops it, and what it never tells."""

from __future__ import annotations

import logging
import time
import traceback
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from apis.http import Api, ApiClient, Rate, Request, json_as, retry_after_seconds
from apis.records import Record
from runs.errors import (
    AbortedError,
    CredentialsError,
    EtlError,
    RetryableError,
    SettingsError,
    SourceError,
    SourceMissingError,
    SourceShapeError,
    UnavailableError,
)
from sandbox.apis.serving import ApiRequest, FakeApi, Fault, Reply, serve
from tests.apis.quick import RETRY_POLICY, quick

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

KEY = "canary-key-4711"


class Item(Record, frozen=True, kw_only=True):
    """What the fake answers."""

    number: int


class Numbers(FakeApi):
    """Answers with the number that it is asked for."""

    key = KEY

    def reply(self, request: ApiRequest) -> Reply:
        """The number."""
        return Reply(body={"number": int(request.path.rpartition("/")[2])})

    def error(self, status: int, message: str) -> Reply:
        """An error that repeats the key, as a careless proxy might."""
        return Reply(status=status, body={"error": {"message": f"{message} You sent {KEY}."}})


@pytest.fixture
def fake() -> Iterator[Numbers]:
    """A fake that nothing is wrong with."""
    with serve(Numbers()) as found:
        yield found


def api_of(fake: FakeApi, key: str | None = KEY) -> Api:
    """How the fake is asked."""
    return quick(
        Api(
            name="The API",
            base_url=fake.url,
            base_url_setting="API_URL",
            key=key,
            key_setting="API_KEY",
            concurrency=8,
        )
    )


@pytest.fixture
def client(fake: Numbers) -> Iterator[ApiClient]:
    """A client of it."""
    with ApiClient(api_of(fake)) as found:
        yield found


def ask(number: int = 1) -> Request[Item]:
    """A request for a number."""
    return Request(endpoint="/items/{id}", path=f"/items/{number}", read=json_as(Item))


@pytest.mark.parametrize(
    "fault",
    [
        Fault(status=429, retry_after="0"),
        Fault(status=429),
        Fault(status=408),
        Fault(status=500),
        Fault(status=503, retry_after="soon"),
        Fault(status=529),
        Fault(trouble="dropped"),
        Fault(trouble="cut"),
        Fault(trouble="truncated"),
        Fault(trouble="hang"),
        Fault(trouble="slow", seconds=0.8),
    ],
    ids=lambda fault: f"{fault.trouble} {fault.status} {fault.retry_after}",
)
def test_what_passes_is_tried_again(fake: Numbers, client: ApiClient, fault: Fault) -> None:
    """One bad attempt of any such kind costs a second request, and nothing else."""
    fake.break_down(fault)
    assert client.get(ask(7)) == Item(number=7)
    assert len(fake.requests) == 2


def test_attempts_are_bounded(fake: Numbers, client: ApiClient) -> None:
    """An API that stays away ends the request, as worth trying again later."""
    fake.break_down(Fault(status=503, times=None))
    with pytest.raises(UnavailableError, match=r"The API failed 4 times at /items/\{id\} \(503\)"):
        client.get(ask())
    assert len(fake.requests) == RETRY_POLICY.attempts


@pytest.mark.parametrize(
    ("fault", "refused_as", "reported"),
    [
        (Fault(status=400), SourceError, r"refused /items/\{id\} \(400, "),
        (Fault(status=422), SourceError, r"refused /items/\{id\} \(422, "),
        (Fault(status=401), CredentialsError, r"did not accept the key .* renew API_KEY"),
        (Fault(status=403), CredentialsError, r"did not accept the key"),
        (Fault(status=404), SourceMissingError, r"has no /items/\{id\} .* check API_URL"),
        (Fault(status=302), SourceError, r"elsewhere \(302\)"),
        (Fault(trouble="page"), SourceShapeError, r'"text/html" instead of JSON: check API_URL'),
    ],
    ids=lambda value: f"{value.trouble} {value.status}" if isinstance(value, Fault) else "",
)
def test_what_is_final_is_not_tried_again(
    fake: Numbers, client: ApiClient, fault: Fault, refused_as: type[EtlError], reported: str
) -> None:
    """Such an answer is the only one, and its class says whose fault it is."""
    fake.break_down(fault)
    with pytest.raises(refused_as, match=reported) as raised:
        client.get(ask())
    assert type(raised.value) is refused_as
    assert len(fake.requests) == 1


@pytest.mark.parametrize(
    ("body", "reported"),
    [
        ({"count": 1}, r"missing required field `number`"),
        ({"number": "1"}, r"Expected `int`, got `str` - at `\$\.number`"),
        ([], r"Expected `object`, got `array`"),
    ],
)
def test_a_changed_shape_names_endpoint_and_field(
    fake: Numbers, client: ApiClient, body: object, reported: str
) -> None:
    """One clear error at the first answer, and nothing of it is used."""
    fake.break_down(Fault(trouble="changed", change=lambda _: body))
    with pytest.raises(
        SourceShapeError, match=rf"changed the shape of /items/\{{id\}}: .*{reported}"
    ):
        client.get(ask())
    assert len(fake.requests) == 1


def test_retry_after_is_waited_for(fake: Numbers, client: ApiClient) -> None:
    """The pause is as long as the API asks for, also where ours would be shorter."""
    fake.break_down(Fault(status=429, retry_after="1"))
    client.get(ask())
    first, second = (request.at for request in fake.requests)
    assert second - first >= 0.99


def test_retry_after_holds_for_every_request(fake: Numbers, client: ApiClient) -> None:
    """While one request waits as the API asked, no other is sent."""
    fake.latency_seconds = 0.05
    fake.break_down(Fault(status=429, retry_after="1", path="/items/0"))
    client.get_each([ask(number) for number in range(80)])
    refused = next(request.at for request in fake.requests if request.path == "/items/0")
    assert [
        request for request in fake.requests if refused + 0.2 < request.at < refused + 0.9
    ] == []


def test_a_pause_that_is_too_long_ends_the_request(fake: Numbers, client: ApiClient) -> None:
    """A run does not wait for an hour: it says when to come again."""
    fake.break_down(Fault(status=429, retry_after="3600"))
    with pytest.raises(UnavailableError, match="again in 3600 s"):
        client.get(ask())
    assert len(fake.requests) == 1


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("0", 0.0),
        (" 17 ", 17.0),
        ("Tue, 20 Oct 2026 07:28:30 GMT", 30.0),
        ("Tue, 20 Oct 2026 07:28:30 -0000", 30.0),
        ("Tue, 20 Oct 2026 07:00:00 GMT", 0.0),
        ("-3", None),
        ("soon", None),
        ("", None),
        ("1.5", None),
        ("²", None),
    ],
)
def test_retry_after_is_read(header: str | None, seconds: float | None) -> None:
    """Seconds or a date, as HTTP has it; what is neither counts as nothing."""
    assert retry_after_seconds(header, now=1_792_481_280.0) == seconds


def stops(after: float) -> Callable[[], None]:
    """A check that stops a run so many seconds from now."""
    end = time.monotonic() + after

    def check() -> None:
        if time.monotonic() > end:
            message = "The run was told to stop."
            raise AbortedError(message)

    return check


@pytest.mark.parametrize(
    "fault",
    [
        Fault(trouble="hang", times=None),
        Fault(status=429, retry_after="60", times=None),
        Fault(status=503, times=None),
    ],
    ids=["a request hangs", "it waits as told", "it pauses"],
)
@pytest.mark.parametrize("many", [False, True], ids=["one", "many"])
def test_what_stops_a_run_stops_a_request(fake: Numbers, fault: Fault, *, many: bool) -> None:
    """Deadline, SIGTERM and lost lease are heeded within 2 s, whatever the client waits for."""
    retry_policy = replace(
        RETRY_POLICY,
        first_pause_seconds=60,
        longest_pause_seconds=60,
        longest_retry_after_seconds=60,
        read_seconds=60,
        attempt_seconds=60,
    )
    fake.break_down(fault)
    requests = [ask(number) for number in range(20 if many else 1)]
    started = time.monotonic()
    with (
        pytest.raises(AbortedError),
        ApiClient(replace(api_of(fake), retry_policy=retry_policy), check=stops(0.1)) as client,
    ):
        client.get_each(requests)
    assert time.monotonic() - started < 2.0


def test_a_run_that_is_over_asks_nothing(fake: Numbers) -> None:
    """A check that raises at once lets no request out, and the client still closes."""
    with ApiClient(api_of(fake), check=stops(-1)) as client, pytest.raises(AbortedError):
        client.get(ask())
    assert fake.requests == []


@pytest.mark.parametrize(
    "fault",
    [Fault(status=status, times=None) for status in (302, 400, 401, 404, 422, 429, 500)]
    + [Fault(trouble=trouble, times=None) for trouble in ("dropped", "cut", "truncated", "page")]
    + [Fault(trouble="changed", change=lambda _: {"number": KEY}, times=None)],
    ids=lambda fault: f"{fault.trouble} {fault.status}",
)
def test_a_key_is_reported_nowhere(
    fake: Numbers, client: ApiClient, fault: Fault, caplog: pytest.LogCaptureFixture
) -> None:
    """Not in an address, an error, a traceback or a log of any level, even where the API tells."""
    caplog.set_level(logging.DEBUG)
    fake.break_down(fault)
    with pytest.raises(EtlError) as raised:
        client.get(ask())
    reported = "".join(traceback.format_exception(raised.value)) + caplog.text + repr(client.api)
    assert KEY not in reported
    assert "httpcore" in caplog.text  # so its logs have been looked at
    assert all(KEY not in f"{request.path} {request.query}" for request in fake.requests)
    assert all(request.headers["x-api-key"] == KEY for request in fake.requests)


def test_no_key_is_sent_where_there_is_none(fake: Numbers) -> None:
    """An API without a key gets no such header."""
    fake.key = None  # type: ignore[assignment] # nobody checks it
    with ApiClient(api_of(fake, key=None)) as client:
        client.get(ask())
    assert "x-api-key" not in fake.requests[0].headers
    assert fake.requests[0].headers["user-agent"].startswith("posthog-etl/")


@pytest.mark.parametrize(
    ("url", "key"),
    [
        ("http://api.example.com", KEY),
        ("ftp://127.0.0.1", KEY),
        ("https://user:secret@api.example.com", KEY),
        ("https://api.example.com/?key=secret", KEY),
        ("https://api.example.com", "two\nlines"),
        ("https://api.example.com", " padded"),
        ("https://api.example.com", ""),
    ],
)
def test_an_address_or_key_that_can_not_be_is_refused(url: str, key: str) -> None:
    """Before anything is sent, and without repeating the value."""
    with pytest.raises(SettingsError, match=r"API_(URL|KEY)") as raised:
        Api(
            name="The API", base_url=url, base_url_setting="API_URL", key=key, key_setting="API_KEY"
        )
    assert "secret" not in str(raised.value)


def test_the_environment_leads_nowhere_else(fake: Numbers, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy of the environment sees no key."""
    with serve(Numbers()) as proxy:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        with ApiClient(api_of(fake)) as client:
            client.get(ask())
    assert proxy.requests == []


def test_a_redirect_is_not_followed(fake: Numbers, client: ApiClient) -> None:
    """No key is sent to an address that is not in the settings."""
    with serve(Numbers()) as other:
        fake.break_down(Fault(status=302, location=f"{other.url}/items/1"))
        with pytest.raises(SourceError, match=r"elsewhere \(302\)"):
            client.get(ask())
    assert other.requests == []


def test_the_rate_is_kept(fake: Numbers) -> None:
    """However many are asked at once and however fast the answers are, retries included."""
    fake.break_down(Fault(status=503, times=5))
    api = replace(api_of(fake), rate=Rate(requests=1, seconds=1 / 50))
    started = time.monotonic()
    with ApiClient(api) as client:
        client.get_each([ask(number) for number in range(40)])
    times = sorted(request.at for request in fake.requests)
    assert len(times) == 45
    assert time.monotonic() - started >= 44 / 50 * 0.95
    assert min(later - earlier for earlier, later in zip(times, times[10:], strict=False)) > 0.15


def test_several_are_asked_at_a_time(fake: Numbers, client: ApiClient) -> None:
    """Answers that take long are waited for together."""
    fake.latency_seconds = 0.1
    started = time.monotonic()
    client.get_each([ask(number) for number in range(32)])
    assert time.monotonic() - started < 32 * 0.1 / 3


def test_each_request_has_its_outcome(fake: Numbers, client: ApiClient) -> None:
    """In order; one that fails for good is an outcome, too, and takes no other with it."""
    fake.break_down(Fault(path="/items/3", status=503, times=None))
    fake.break_down(Fault(path="/items/5", status=400, times=None))
    outcomes = client.get_each([ask(number) for number in range(12)])
    failed = {
        place: type(each) for place, each in enumerate(outcomes) if not isinstance(each, Item)
    }
    assert failed == {3: UnavailableError, 5: SourceError}
    assert [each.number for each in outcomes if isinstance(each, Item)] == [
        0, 1, 2, 4, 6, 7, 8, 9, 10, 11,
    ]  # fmt: skip
    assert client.get_each([]) == []


def test_an_api_that_is_down_is_not_asked_for_everything(fake: Numbers, client: ApiClient) -> None:
    """After 20 failures in a row the run fails as the last of them, and can be tried again."""
    fake.break_down(Fault(status=503, times=None))
    with pytest.raises(RetryableError, match="503"):
        client.get_each([ask(number) for number in range(500)])
    assert len({request.path for request in fake.requests}) < 40


def test_failures_that_are_not_in_a_row_end_nothing(fake: Numbers, client: ApiClient) -> None:
    """Many ids may fail for good among others that don't."""
    for number in range(0, 90, 3):
        fake.break_down(Fault(path=f"/items/{number}", status=400, times=None))
    outcomes = client.get_each([ask(number) for number in range(90)])
    assert sum(isinstance(each, SourceError) for each in outcomes) == 30


def test_a_refused_key_ends_everything(fake: Numbers, client: ApiClient) -> None:
    """No other request would fare better."""
    fake.break_down(Fault(status=401, times=None))
    with pytest.raises(CredentialsError):
        client.get_each([ask(number) for number in range(100)])
    assert len(fake.requests) < 20
