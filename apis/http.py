"""One HTTP client for all JSON APIs. It knows no API and no record.

An attempt that fails for what passes (no connection, no answer in time, 408, 425, 429, 5xx, an
answer that breaks off) is repeated after growing pauses, or the pause that `Retry-After` asks for;
whatever else fails is final. A key is sent in a header and appears in no URL, log or error.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from dataclasses import dataclass, field
from datetime import UTC
from email.utils import parsedate_to_datetime
from functools import cache
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final, Self

import httpx
import msgspec
from aiolimiter import AsyncLimiter
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception_type,
    stop_after_attempt,
    wait_exponential_jitter,
)

from apis.event_loop import WatchedLoop
from runs import VERSION
from runs.errors import (
    CredentialsError,
    EtlError,
    RetryableError,
    SettingsError,
    SourceError,
    SourceMissingError,
    SourceShapeError,
    UnavailableError,
)

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Mapping, Sequence

LOG: Final = logging.getLogger("posthog_etl")
_TEMPORARY: Final = {408, 425, 429}  # and everything from 500 on
_REFUSED_KEY: Final = {401, 403}
_NOT_FOUND: Final = 404
_LONGEST_QUOTE: Final = 200
_MOST_FAILURES_IN_A_ROW: Final = 20  # of many requests at once: then it is the API, not one of them


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """At most so many requests at once, and from then on so many in so many seconds."""

    requests: float
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How long one request is tried: by attempt, between attempts, and altogether."""

    attempts: int = 6
    first_pause_seconds: float = 1.0
    longest_pause_seconds: float = 30.0
    longest_retry_after_seconds: float = 120.0
    connect_seconds: float = 10.0
    read_seconds: float = 30.0  # for the next bytes of an answer
    attempt_seconds: float = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Api:
    """An API: where it is, how it is asked, and what its settings are called in messages."""

    name: str
    base_url: str = field(repr=False)  # a deployment's own; it may name a host
    base_url_setting: str
    key: str | None = field(default=None, repr=False)
    key_header: str = "x-api-key"
    key_setting: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    rate: Rate = field(default_factory=lambda: Rate(requests=10, seconds=1))
    concurrency: int = 1
    retry_policy: RetryPolicy = field(default_factory=RetryPolicy)

    def __post_init__(self) -> None:
        """Refuse an address that a key would travel to in the clear (SettingsError)."""
        url = httpx.URL(self.base_url)
        if url.scheme != "https" and not (url.scheme == "http" and _is_loopback(url.host)):
            message = f"{self.base_url_setting} must begin with https://: a key is sent there."
            raise SettingsError(message)
        if url.userinfo or url.query:
            message = f"{self.base_url_setting} must hold no user, password or query: use the key."
            raise SettingsError(message)
        if self.key is not None and not _is_header(self.key):
            message = f"{self.key_setting} holds what can't be a key: paste it again."
            raise SettingsError(message)


@cache
def _trusted() -> ssl.SSLContext:
    """The authorities that every client trusts, read once a process."""
    return httpx.create_ssl_context(trust_env=False)


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _is_header(text: str) -> bool:
    return bool(text) and text.isascii() and text.isprintable() and text == text.strip()


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """An answer as it came."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Request[T]:
    """A GET, and how its answer is read. `endpoint` is the path as messages show it.

    `read` may raise msgspec's errors: what is no JSON is asked for again, what has another shape
    is final.
    """

    endpoint: str
    path: str
    read: Callable[[Answer], T]
    params: tuple[tuple[str, str], ...] = ()
    accepted: frozenset[int] = frozenset({200})


class ApiClient:
    """A client of one API, for one run and one thread. Use it in a `with` block."""

    def __init__(self, api: Api, *, check: Callable[[], None] = lambda: None) -> None:
        self.api = api
        self._watched = WatchedLoop(check)
        self._limiter = AsyncLimiter(api.rate.requests, api.rate.seconds)
        self._resume_at = 0.0  # no request before this, by `Retry-After`
        self._failures = 0  # in a row
        retry_policy = api.retry_policy
        key = {api.key_header: api.key} if api.key is not None else {}
        self._http = httpx.AsyncClient(
            base_url=api.base_url.rstrip("/"),
            headers={"User-Agent": f"posthog-etl/{VERSION}", **api.headers, **key},
            timeout=httpx.Timeout(retry_policy.read_seconds, connect=retry_policy.connect_seconds),
            limits=httpx.Limits(max_connections=api.concurrency),
            follow_redirects=False,  # a key goes nowhere but where the settings say
            trust_env=False,  # nor does the environment's proxy or .netrc have a say
            verify=_trusted(),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close its connections."""
        self._watched.close(self._http.aclose())

    def get[T](self, request: Request[T]) -> T:
        """What `read` makes of the answer."""
        return self._watched.run(self._get(request))

    def get_each[T](self, requests: Sequence[Request[T]]) -> list[T | EtlError]:
        """Each request's outcome, in order, sent concurrently; a failure is one, too.

        Raises what concerns them all: a refused key, or the last of many failures in a row.
        """
        return self._watched.run(self._get_each(requests))

    async def _get_each[T](self, requests: Sequence[Request[T]]) -> list[T | EtlError]:
        outcomes: dict[int, T | EtlError] = {}
        left = iter(enumerate(requests))

        async def work() -> None:
            for place, request in left:
                outcomes[place] = await self._outcome(request)

        try:
            async with asyncio.TaskGroup() as workers:
                for _ in range(self.api.concurrency):
                    workers.create_task(work())
        except BaseExceptionGroup as failed:
            raise failed.exceptions[0] from None
        return [outcomes[place] for place in range(len(requests))]

    async def _outcome[T](self, request: Request[T]) -> T | EtlError:
        try:
            outcome = await self._get(request)
        except (
            SourceError,
            RetryableError,
        ) as error:  # wrong settings end all requests
            self._failures += 1
            if self._failures >= _MOST_FAILURES_IN_A_ROW:
                raise
            return error
        self._failures = 0
        return outcome

    async def _get[T](self, request: Request[T]) -> T:
        retry_policy = self.api.retry_policy
        backoff = wait_exponential_jitter(
            multiplier=retry_policy.first_pause_seconds,
            max=retry_policy.longest_pause_seconds,
            jitter=retry_policy.first_pause_seconds,
        )

        def pause(state: RetryCallState) -> float:
            failure = _failure(state)
            seconds = max(backoff(state), failure.retry_after or 0.0)
            LOG.warning(
                "%s failed at %s (%s): again in %.1f s",
                self.api.name, request.endpoint, failure.reason, seconds,
            )  # fmt: skip
            return seconds

        retrying = AsyncRetrying(
            retry=retry_if_exception_type(_TemporaryError),
            stop=stop_after_attempt(retry_policy.attempts),
            wait=pause,
            sleep=asyncio.sleep,
            retry_error_callback=lambda state: self._give_up(request, state),
        )
        return await retrying(self._attempt, request)

    def _give_up(self, request: Request[object], state: RetryCallState) -> None:
        message = (
            f"{self.api.name} failed {state.attempt_number} times at {request.endpoint} "
            f"({_failure(state).reason}): try again later."
        )
        raise UnavailableError(message) from None

    async def _attempt[T](self, request: Request[T]) -> T:
        await self._wait_for_turn()
        answer = await self._send(request)
        if answer.status not in request.accepted:
            raise self._failed(request, answer)
        kind = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind and kind != "application/json" and not kind.endswith("+json"):
            message = (
                f"{self.api.name} answered {request.endpoint} with {_quoted(kind)} instead of "
                f"JSON: check {self.api.base_url_setting}."
            )
            raise SourceShapeError(message)
        try:
            return request.read(answer)
        except msgspec.ValidationError as error:
            message = (
                f"{self.api.name} has changed the shape of {request.endpoint}: {error}. "
                "Adapt apis/records.py."
            )
            raise SourceShapeError(message) from None
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise _TemporaryError(reason="an answer that is no whole JSON") from None

    async def _wait_for_turn(self) -> None:
        while (left := self._resume_at - time.monotonic()) > 0:  # noqa: ASYNC110 - it may move on meanwhile
            await asyncio.sleep(left)
        await self._limiter.acquire()

    async def _send(self, request: Request[object]) -> Answer:
        try:
            async with asyncio.timeout(self.api.retry_policy.attempt_seconds):
                answer = await self._http.get(request.path, params=request.params)
        except httpx.TransportError as error:
            raise _TemporaryError(reason=type(error).__name__) from None
        except httpx.DecodingError:  # broken compression
            raise _TemporaryError(reason="an answer that is no whole JSON") from None
        except TimeoutError:
            raise _TemporaryError(reason="no whole answer in time") from None
        return Answer(status=answer.status_code, headers=answer.headers, body=answer.content)

    def _failed(self, request: Request[object], answer: Answer) -> Exception:
        """The exception for a refused answer."""
        api, endpoint, status = self.api, request.endpoint, answer.status
        if status in _TEMPORARY or status >= httpx.codes.INTERNAL_SERVER_ERROR:
            return self._passing(request, answer)
        if status in _REFUSED_KEY:
            wanted = api.key_setting or "a key"
            message = f"{api.name} did not accept the key at {endpoint} ({status}): renew {wanted}."
            return CredentialsError(message)
        answer_body = self._message_in(answer.body)
        if status == _NOT_FOUND:
            message = (
                f"{api.name} has no {endpoint} (404{answer_body}): check {api.base_url_setting}."
            )
            return SourceMissingError(message)
        if httpx.codes.is_redirect(status):
            message = (
                f"{api.name} sends {endpoint} elsewhere ({status}), where no key is sent: "
                f"check {api.base_url_setting}."
            )
            return SourceError(message)
        message = (
            f"{api.name} refused {endpoint} ({status}{answer_body}): check the request's dates."
        )
        return SourceError(message)

    def _passing(self, request: Request[object], answer: Answer) -> Exception:
        seconds = retry_after_seconds(answer.headers.get("retry-after"), time.time())
        longest = self.api.retry_policy.longest_retry_after_seconds
        if seconds is not None and seconds > longest:
            message = (
                f"{self.api.name} wants {request.endpoint} to be asked again in {seconds:.0f} s "
                f"({answer.status}), later than a run waits: try again then."
            )
            return UnavailableError(message)
        if seconds is not None:  # for concurrent requests, too
            self._resume_at = max(self._resume_at, time.monotonic() + seconds)
        return _TemporaryError(reason=str(answer.status), retry_after=seconds)

    def _message_in(self, body: bytes) -> str:
        """The API's own words, on one line and without its key."""
        try:
            answer_body = _message(json.loads(body))
        except ValueError:
            return ""
        if self.api.key:
            answer_body = answer_body.replace(self.api.key, "KEY")
        return f", {_quoted(answer_body)}" if answer_body else ""


class _TemporaryError(Exception):
    """A temporary failure of one attempt."""

    def __init__(self, *, reason: str, retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.retry_after = retry_after


def _failure(state: RetryCallState) -> _TemporaryError:
    failure = state.outcome.exception() if state.outcome else None
    return failure if isinstance(failure, _TemporaryError) else _TemporaryError(reason="unknown")


def _message(answer_body: object) -> str:
    """The message of an error in the vocabulary of any of the APIs, or nothing."""
    if not isinstance(answer_body, dict):
        return ""
    error = answer_body.get("error")
    inner = error.get("message") if isinstance(error, dict) else None
    found = inner or answer_body.get("status_message") or answer_body.get("message")
    return found if isinstance(found, str) else ""


def _quoted(text: str) -> str:
    line = "".join(each if each.isprintable() else " " for each in text)
    return f'"{line[:_LONGEST_QUOTE]}"'


def retry_after_seconds(header: str | None, now: float) -> float | None:
    """The pause that a `Retry-After` header asks for, from seconds or a date; None: nothing valid.

    `now`: seconds since 1970.
    """
    if header is None:
        return None
    text = header.strip()
    if text.isascii() and text.isdecimal():
        return float(text)
    try:
        moment = parsedate_to_datetime(text)
        if moment.tzinfo is None:  # "-0000": UTC, of a sender that does not say where it is
            moment = moment.replace(tzinfo=UTC)
        return max(0.0, moment.timestamp() - now)
    except (ValueError, OverflowError):
        return None


def json_as[T](record: type[T]) -> Callable[[Answer], T]:
    """A `read` that takes the body as JSON of this type."""
    decoder = msgspec.json.Decoder(record)
    return lambda answer: decoder.decode(answer.body)
