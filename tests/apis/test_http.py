"""The HTTP client: what it retries, what is final, what stops it, and that it reports no key."""

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
from tests.apis.tls import serve_tls, write_certificate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

KEY = "canary-key-4711"


class Item(Record, frozen=True, kw_only=True):
    """The body of the fake's answers."""

    number: int


class Numbers(FakeApi):
    """A fake API that answers with the number in the path."""

    key = KEY

    def reply(self, request: ApiRequest) -> Reply:
        """The number in the path."""
        return Reply(body={"number": int(request.path.rpartition("/")[2])})

    def error(self, status: int, message: str) -> Reply:
        """An error that repeats the key, as a careless proxy might."""
        return Reply(status=status, body={"error": {"message": f"{message} You sent {KEY}."}})


@pytest.fixture
def fake() -> Iterator[Numbers]:
    """A fake API without faults."""
    with serve(Numbers()) as found:
        yield found


def api_of(fake: FakeApi, key: str | None = KEY) -> Api:
    """The settings of a client of the fake."""
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
    """A client of the fake."""
    with ApiClient(api_of(fake)) as found:
        yield found


def item_request(number: int = 1) -> Request[Item]:
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
def test_temporary_failures_are_retried(fake: Numbers, client: ApiClient, fault: Fault) -> None:
    """One temporary failure of any kind costs a second request, and nothing else."""
    fake.break_down(fault)
    assert client.get(item_request(7)) == Item(number=7)
    assert len(fake.requests) == 2


def test_no_key_goes_to_a_server_without_a_trusted_certificate(
    fake: Numbers, tmp_path: Path
) -> None:
    """It is reported as no connection, and the server gets no request."""
    _, pair = write_certificate(tmp_path, "localhost")
    with serve_tls(pair, int(fake.url.rpartition(":")[2])) as port:
        api = replace(api_of(fake), base_url=f"https://localhost:{port}")
        with ApiClient(api) as client, pytest.raises(UnavailableError, match="The API"):
            client.get(item_request())
    assert fake.requests == []


def test_attempts_are_bounded(fake: Numbers, client: ApiClient) -> None:
    """If the API stays down the request fails, with an error that may be retried later."""
    fake.break_down(Fault(status=503, times=None))
    with pytest.raises(UnavailableError, match=r"The API failed 4 times at /items/\{id\} \(503\)"):
        client.get(item_request())
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
def test_final_failures_are_not_retried(
    fake: Numbers, client: ApiClient, fault: Fault, refused_as: type[EtlError], reported: str
) -> None:
    """There is only one request, and the class of the error says whose fault it is."""
    fake.break_down(fault)
    with pytest.raises(refused_as, match=reported) as raised:
        client.get(item_request())
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
    """One clear error after the first answer, of which nothing is used."""
    fake.break_down(Fault(trouble="changed", change=lambda _: body))
    with pytest.raises(
        SourceShapeError, match=rf"changed the shape of /items/\{{id\}}: .*{reported}"
    ):
        client.get(item_request())
    assert len(fake.requests) == 1


def test_the_client_waits_as_long_as_retry_after_says(fake: Numbers, client: ApiClient) -> None:
    """Even where its own pause would be shorter."""
    fake.break_down(Fault(status=429, retry_after="1"))
    client.get(item_request())
    first, second = (request.at for request in fake.requests)
    assert second - first >= 0.99


def test_retry_after_holds_for_every_request(fake: Numbers, client: ApiClient) -> None:
    """While one request waits as long as the API asked, no other is sent."""
    fake.latency_seconds = 0.05
    fake.break_down(Fault(status=429, retry_after="1", path="/items/0"))
    client.get_each([item_request(number) for number in range(80)])
    refused = next(request.at for request in fake.requests if request.path == "/items/0")
    assert [
        request for request in fake.requests if refused + 0.2 < request.at < refused + 0.9
    ] == []


def test_a_pause_that_is_too_long_ends_the_request(fake: Numbers, client: ApiClient) -> None:
    """A run does not wait for an hour: the error says when to try again."""
    fake.break_down(Fault(status=429, retry_after="3600"))
    with pytest.raises(UnavailableError, match="again in 3600 s"):
        client.get(item_request())
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
def test_retry_after_is_parsed(header: str | None, seconds: float | None) -> None:
    """It is a number of seconds or an HTTP date; anything else is ignored."""
    assert retry_after_seconds(header, now=1_792_481_280.0) == seconds


def stop_after(seconds: float) -> Callable[[], None]:
    """A check that stops the run after so many seconds."""
    end = time.monotonic() + seconds

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
    """A deadline, SIGTERM or a lost lease ends any wait of the client within 2 s."""
    retry_policy = replace(
        RETRY_POLICY,
        first_pause_seconds=60,
        longest_pause_seconds=60,
        longest_retry_after_seconds=60,
        read_seconds=60,
        attempt_seconds=60,
    )
    fake.break_down(fault)
    requests = [item_request(number) for number in range(20 if many else 1)]
    started = time.monotonic()
    with (
        pytest.raises(AbortedError),
        ApiClient(
            replace(api_of(fake), retry_policy=retry_policy), check=stop_after(0.1)
        ) as client,
    ):
        client.get_each(requests)
    assert time.monotonic() - started < 2.0


def test_a_stopped_run_sends_no_request(fake: Numbers) -> None:
    """If the check raises at once no request is sent, and the client still closes."""
    with ApiClient(api_of(fake), check=stop_after(-1)) as client, pytest.raises(AbortedError):
        client.get(item_request())
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
    """Not in a URL, error, traceback or log of any level, even if the API's answer repeats it."""
    caplog.set_level(logging.DEBUG)
    fake.break_down(fault)
    with pytest.raises(EtlError) as raised:
        client.get(item_request())
    reported = "".join(traceback.format_exception(raised.value)) + caplog.text + repr(client.api)
    assert KEY not in reported
    assert "httpcore" in caplog.text  # proves that the HTTP library's logs were captured
    assert all(KEY not in f"{request.path} {request.query}" for request in fake.requests)
    assert all(request.headers["x-api-key"] == KEY for request in fake.requests)


def test_no_key_is_sent_where_there_is_none(fake: Numbers) -> None:
    """The requests to an API without a key have no header for it."""
    fake.key = None  # type: ignore[assignment] # nobody checks it
    with ApiClient(api_of(fake, key=None)) as client:
        client.get(item_request())
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
def test_an_invalid_url_or_key_is_refused(url: str, key: str) -> None:
    """Before anything is sent, and without repeating the value."""
    with pytest.raises(SettingsError, match=r"API_(URL|KEY)") as raised:
        Api(
            name="The API", base_url=url, base_url_setting="API_URL", key=key, key_setting="API_KEY"
        )
    assert "secret" not in str(raised.value)


def test_proxies_of_the_environment_are_ignored(
    fake: Numbers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No proxy receives the key."""
    with serve(Numbers()) as proxy:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        with ApiClient(api_of(fake)) as client:
            client.get(item_request())
    assert proxy.requests == []


def test_a_redirect_is_not_followed(fake: Numbers, client: ApiClient) -> None:
    """No key is sent to an address that is not in the settings."""
    with serve(Numbers()) as other:
        fake.break_down(Fault(status=302, location=f"{other.url}/items/1"))
        with pytest.raises(SourceError, match=r"elsewhere \(302\)"):
            client.get(item_request())
    assert other.requests == []


def test_the_rate_limit_is_kept(fake: Numbers) -> None:
    """However many requests there are and however fast the answers; retries count, too."""
    fake.break_down(Fault(status=503, times=5))
    api = replace(api_of(fake), rate=Rate(requests=1, seconds=1 / 50))
    started = time.monotonic()
    with ApiClient(api) as client:
        client.get_each([item_request(number) for number in range(40)])
    times = sorted(request.at for request in fake.requests)
    assert len(times) == 45
    assert time.monotonic() - started >= 44 / 50 * 0.95
    assert min(later - earlier for earlier, later in zip(times, times[10:], strict=False)) > 0.15


def test_several_requests_wait_at_the_same_time(fake: Numbers, client: ApiClient) -> None:
    """Slow answers do not add up."""
    fake.latency_seconds = 0.1
    started = time.monotonic()
    client.get_each([item_request(number) for number in range(32)])
    assert time.monotonic() - started < 32 * 0.1 / 3


def test_each_request_has_its_outcome(fake: Numbers, client: ApiClient) -> None:
    """Outcomes are in order; a request that fails for good has one, too, and stops no other."""
    fake.break_down(Fault(path="/items/3", status=503, times=None))
    fake.break_down(Fault(path="/items/5", status=400, times=None))
    outcomes = client.get_each([item_request(number) for number in range(12)])
    failed = {
        index: type(each) for index, each in enumerate(outcomes) if not isinstance(each, Item)
    }
    assert failed == {3: UnavailableError, 5: SourceError}
    assert [each.number for each in outcomes if isinstance(each, Item)] == [
        0, 1, 2, 4, 6, 7, 8, 9, 10, 11,
    ]  # fmt: skip
    assert client.get_each([]) == []


def test_an_api_that_is_down_is_not_sent_every_request(fake: Numbers, client: ApiClient) -> None:
    """After 20 failures in a row the run fails with the last error, and may be retried."""
    fake.break_down(Fault(status=503, times=None))
    with pytest.raises(RetryableError, match="503"):
        client.get_each([item_request(number) for number in range(500)])
    assert len({request.path for request in fake.requests}) < 40


def test_failures_that_are_not_in_a_row_do_not_end_the_run(
    fake: Numbers, client: ApiClient
) -> None:
    """Many ids may fail for good among others that succeed."""
    for number in range(0, 90, 3):
        fake.break_down(Fault(path=f"/items/{number}", status=400, times=None))
    outcomes = client.get_each([item_request(number) for number in range(90)])
    assert sum(isinstance(each, SourceError) for each in outcomes) == 30


def test_a_refused_key_ends_all_requests(fake: Numbers, client: ApiClient) -> None:
    """The API would refuse every other request, too."""
    fake.break_down(Fault(status=401, times=None))
    with pytest.raises(CredentialsError):
        client.get_each([item_request(number) for number in range(100)])
    assert len(fake.requests) < 20
