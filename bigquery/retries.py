"""Which failures are temporary, and how calls are retried and watched. No table, no SQL."""

from __future__ import annotations

import itertools
import logging
import time
from concurrent.futures import Future, wait
from contextvars import copy_context
from threading import Thread
from typing import TYPE_CHECKING, Final, Protocol

from bigquery.refusals import REFUSALS, reason_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from google.api_core.retry import Retry

    from bigquery.warehouse import Warehouse


LOG: Final = logging.getLogger("posthog_etl")
HTTP_SECONDS: Final = 20.0  # per request, so that one that hangs is repeated within
_RETRY_SECONDS: Final = 30.0
_ATTEMPTS: Final = 6  # of a job or a download, with up to 1, 2, 4, 8 and 16 s between them
_FIRST_PAUSE_SECONDS: Final = 1.0
_FIRST_REQUEST_PAUSE_SECONDS: Final = 0.5
_LONGEST_PAUSE_SECONDS: Final = 16.0
_CHECK_SECONDS: Final = 0.2
_TEMPORARY: Final = {
    "rateLimitExceeded",
    "jobRateLimitExceeded",
    "backendError",
    "jobBackendError",
    "internalError",
    "jobInternalError",
    "badGateway",
}
_FINAL: Final = REFUSALS | {"quotaExceeded", "stopped", "invalid", "invalidQuery"}
_TEMPORARY_CODES: Final = {408, 429, 500, 502, 503, 504}


def with_retries[T](warehouse: Warehouse, what: str, call: Callable[[], T]) -> T:
    """The call's result; temporary failures are retried after growing pauses.

    Only for calls that have no effect if they fail.
    """
    from google.api_core.exceptions import GoogleAPICallError

    pauses = backoff_seconds(_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS)
    for pause in itertools.islice(pauses, _ATTEMPTS - 1):
        try:
            return call()
        except GoogleAPICallError as error:
            if not is_temporary(error):
                raise
            reason = reason_of(error) or type(error).__name__
            LOG.warning("BigQuery failed at %s (%s): again in %.1f s", what, reason, pause)
        pause_for(warehouse, pause)
    return call()


def backoff_seconds(first: float, longest: float) -> Iterator[float]:
    """Seconds to pause, each up to twice the last, with jitter."""
    from google.api_core.retry import exponential_sleep_generator

    pauses: Iterator[float] = exponential_sleep_generator(first, longest)  # with jitter
    return pauses


def pause_for(warehouse: Warehouse, seconds: float) -> None:
    """Pause; raises what stops the run meanwhile."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        warehouse.check()
        time.sleep(min(left, _CHECK_SECONDS))


class _Request[T](Protocol):
    def __call__(self, *, retry: Retry, timeout: float) -> T: ...


def call[T](warehouse: Warehouse, request: _Request[T]) -> T:
    """The result of a client's request; meanwhile the run may be stopped."""
    return wait_for(warehouse, start(lambda: request(retry=retry(), timeout=HTTP_SECONDS)))


def start[T](call: Callable[[], T]) -> Future[T]:
    """Call it in a thread that does not keep the process alive if it hangs."""
    outcome: Future[T] = Future()

    def work() -> None:
        try:
            outcome.set_result(call())
        except BaseException as error:  # noqa: BLE001 - raised where it is waited for
            outcome.set_exception(error)

    Thread(target=copy_context().run, args=(work,), daemon=True).start()  # keeps log fields
    return outcome


def wait_for[T](warehouse: Warehouse, outcome: Future[T]) -> T:
    """The outcome; raises what stops the run meanwhile."""
    while not wait([outcome], timeout=_CHECK_SECONDS).done:
        warehouse.check()
    return outcome.result()


def retry(*also: type[Exception]) -> Retry:
    """Retries a request for a limited time, if the failure is temporary or `also` says so.

    So an address where nobody answers is noticed within seconds.
    """
    from google.api_core.retry import Retry

    return Retry(
        predicate=lambda error: isinstance(error, also) or is_temporary(error),
        initial=_FIRST_REQUEST_PAUSE_SECONDS,
        maximum=8.0,
        timeout=_RETRY_SECONDS,
    )


def is_temporary(error: Exception) -> bool:
    """Whether the failure is temporary: a busy service, a broken connection, no answer."""
    from google.api_core.exceptions import Aborted, DataLoss, GoogleAPICallError
    from google.auth.exceptions import GoogleAuthError, TransportError
    from requests import exceptions as http

    if isinstance(error, GoogleAPICallError):
        reason = reason_of(error)
        is_temporary_code = error.code in _TEMPORARY_CODES or isinstance(error, (Aborted, DataLoss))
        return reason in _TEMPORARY or (is_temporary_code and reason not in _FINAL)
    if isinstance(error, GoogleAuthError):
        return isinstance(error, TransportError) or error.retryable
    if isinstance(error, http.SSLError):  # a connection error, but a permanent one
        return False
    broken = (http.ConnectionError, http.Timeout, http.ChunkedEncodingError)
    return isinstance(error, (ConnectionError, TimeoutError, *broken))
