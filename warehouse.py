"""BigQuery as a run speaks to it: clients, jobs that can be met again, retries, errors by class.

What fails is repeated in three ways, and nowhere else: a request by `retry()`, a job and a download
by `repeated()`. Which errors pass is said once, in `is_passing()`.

Nothing here knows which tables there are.
"""

from __future__ import annotations

import itertools
import logging
import re
import time
from concurrent.futures import Future, wait
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import dataclass, field
from threading import Thread
from typing import TYPE_CHECKING, Any, Final, Protocol, cast
from uuid import uuid4

from pipeline.errors import CredentialsError, EtlError, SourceError, UnavailableError
from sessions.tables import TableId

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from datetime import date, datetime

    from google.api_core.retry import Retry
    from google.auth.credentials import Credentials
    from google.cloud import bigquery
    from google.cloud.bigquery.table import RowIterator, _EmptyRowIterator
    from google.cloud.bigquery_storage import BigQueryReadClient

    from pipeline.settings import Settings
    from sandbox.emulator import Endpoints

LOG: Final = logging.getLogger("posthog_etl")
HTTP_SECONDS: Final = 20.0  # for one request: one that hangs can be repeated within
_RETRY_SECONDS: Final = 30.0
_ATTEMPTS: Final = 6  # of a job or a download, with up to 1, 2, 4, 8 and 16 s between them
_FIRST_PAUSE_SECONDS: Final = 1.0
_LONGEST_PAUSE_SECONDS: Final = 16.0
_POLL_SECONDS: Final = 0.05  # the first pause before a job is asked about again, growing to
_LONGEST_POLL_SECONDS: Final = 1.0
_CHECK_SECONDS: Final = 0.2
_BIGQUERY_URL: Final = "https://bigquery.googleapis.com"
_QUOTAS: Final = {"rateLimitExceeded", "quotaExceeded", "jobRateLimitExceeded"}
_REFUSALS: Final = {"bytesBilledLimitExceeded", "accessDenied", "notFound"}
_PASSING: Final = {
    "rateLimitExceeded",
    "jobRateLimitExceeded",
    "backendError",
    "jobBackendError",
    "internalError",
    "jobInternalError",
    "badGateway",
}
_FINAL: Final = _REFUSALS | {"quotaExceeded", "stopped", "invalid", "invalidQuery"}
_PASSING_CODES: Final = {408, 429, 500, 502, 503, 504}
_ROWS: Final = {None, "SELECT"}  # statement types that have rows to fetch; None: not known


class StatementError(Exception):
    """BigQuery rejected a statement or what it worked on: a bug, or a conflict with another change.

    It names the job and not what BigQuery said, which may quote a phone number out of the rows.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class Clients:
    """The two clients a run works with."""

    bigquery: bigquery.Client
    storage: BigQueryReadClient

    def close(self) -> None:
        """Close their connections."""
        self.bigquery.close()
        self.storage.transport.close()


def make_clients(settings: Settings, credentials: Credentials) -> Clients:
    """Clients of Google's BigQuery: nothing in the environment leads them elsewhere."""
    from google.cloud import bigquery
    from google.cloud.bigquery_storage import BigQueryReadClient

    return Clients(
        bigquery=bigquery.Client(
            project=settings.project_id,
            credentials=credentials,
            location=settings.location,
            # Said outright, since BIGQUERY_EMULATOR_HOST would be sent real tokens.
            client_options={"api_endpoint": _BIGQUERY_URL},
        ),
        storage=BigQueryReadClient(credentials=credentials),
    )


def local_clients(endpoints: Endpoints) -> Clients:
    """Clients of an emulator, without credentials."""
    import grpc
    from google.auth.credentials import AnonymousCredentials
    from google.auth.transport.requests import AuthorizedSession
    from google.cloud import bigquery
    from google.cloud.bigquery_storage import BigQueryReadClient
    from google.cloud.bigquery_storage_v1.services.big_query_read.transports import (
        BigQueryReadGrpcTransport,
    )

    # A proxy of the environment has no business between us and an emulator on this machine.
    channel = grpc.insecure_channel(
        endpoints.grpc,
        options=[("grpc.max_receive_message_length", -1), ("grpc.enable_http_proxy", 0)],
    )
    session = AuthorizedSession(AnonymousCredentials())
    session.trust_env = False
    return Clients(
        bigquery=bigquery.Client(
            project=endpoints.project,
            credentials=AnonymousCredentials(),
            client_options={"api_endpoint": endpoints.rest},
            _http=session,
        ),
        storage=BigQueryReadClient(transport=BigQueryReadGrpcTransport(channel=channel)),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Warehouse:
    """BigQuery as one run sees it: its clients, limits and labels, and what it has cost so far."""

    clients: Clients
    settings: Settings
    run_id: str
    usage: list[tuple[str, int]] = field(default_factory=list)  # (step, bytes billed)
    check: Callable[[], None] = lambda: None  # raises what stops the run

    def table(self, name: str) -> TableId:
        """A table of the destination dataset."""
        return _table(self.settings, self.settings.aggregated_dataset_id, name)

    def source(self, dataset: str, name: str) -> TableId:
        """A table of a source dataset."""
        return _table(self.settings, dataset, name)

    def staging(self, name: str) -> TableId:
        """A table of this run alone."""
        return self.table(f"staging_{self.run_id}_{name}")

    @property
    def bytes_billed(self) -> int:
        """Bytes billed so far."""
        return sum(amount for _, amount in self.usage)


def _table(settings: Settings, dataset: str, name: str) -> TableId:
    return TableId(project=settings.project_id, dataset=dataset, name=name)


type Parameter = bigquery.ScalarQueryParameter | bigquery.ArrayQueryParameter


@contextmanager
def classified(what: str, blame: type[EtlError]) -> Iterator[None]:
    """Turn what the client raises into our tree, by type and reason; a bug stays what it is."""
    from google.api_core import exceptions as api
    from google.auth.exceptions import GoogleAuthError
    from requests import exceptions as http

    try:
        yield
    except api.GoogleAPICallError as error:
        reason = _reason(error)
        if reason in _QUOTAS or isinstance(error, api.TooManyRequests):
            message = f"BigQuery's quota is used up at {what}: try again later."
            raise UnavailableError(message) from error
        if reason in _REFUSALS or isinstance(error, (api.NotFound, api.Forbidden)):
            message = f"BigQuery refused {what}: {_first_line(error)}"
            raise blame(message) from error
        if reason == "stopped":
            message = f"Somebody cancelled BigQuery's job at {what}: run again."
            raise UnavailableError(message) from error
        if isinstance(error, (api.ServerError, api.Aborted, api.Cancelled)):
            message = f"BigQuery failed at {what} ({type(error).__name__}): try again later."
            raise UnavailableError(message) from error
        raise StatementError(_rejection(what, error)) from None
    except GoogleAuthError as error:
        message = f"BigQuery did not accept the credentials at {what}: renew the key or the role."
        raise CredentialsError(message) from error
    except api.RetryError as error:
        message = f"BigQuery failed at {what} ({type(error).__name__}): try again later."
        raise UnavailableError(message) from error
    except (http.RequestException, TimeoutError, ConnectionError) as error:
        message = f"BigQuery can't be reached at {what}: check the network, or try again later."
        raise UnavailableError(message) from error


def _reason(error: Any) -> str:  # noqa: ANN401 - the client's errors are dicts of anything
    first = next(iter(getattr(error, "errors", None) or ()), None)
    return str(first.get("reason", "")) if isinstance(first, dict) else ""  # gRPC's are no dicts


def _first_line(error: Exception) -> str:
    text = str(getattr(error, "message", error)).strip()
    return text.splitlines()[0] if text else type(error).__name__


def _rejection(what: str, error: Exception) -> str:
    """What may be said of a rejected statement: what BigQuery says only where it quotes no row."""
    said = _first_line(error).partition("; reason: ")[0]
    is_about_the_text = re.search(r" at \[\d+:\d+\]$", said) and not said.startswith("Query error")
    told = f": {said}" if is_about_the_text else ""
    reason = _reason(error) or type(error).__name__
    return f"BigQuery rejected {what} ({reason}, job {getattr(error, 'job_id', 'none')}){told}"


def run_query(
    warehouse: Warehouse,
    step: str,
    sql: str,
    parameters: Sequence[Parameter] = (),
    *,
    blame: type[EtlError] = SourceError,
) -> list[dict[str, Any]]:
    """The rows of a statement, or none for DML and DDL.

    `blame` is what a refusal is raised as; other errors of the statement itself are bugs: then it
    is a StatementError.
    """
    with classified(step, blame):
        job = run_statement(warehouse, step, sql, parameters)
        if job.statement_type not in _ROWS:
            return []
        rows = watch(warehouse, start(lambda: list(fetch(job))))
        return [dict(row.items()) for row in rows]


def fetch(job: bigquery.QueryJob) -> RowIterator | _EmptyRowIterator:
    """The rows of a finished job."""
    return job.result(retry=retry(), timeout=HTTP_SECONDS, job_retry=None)


def run_statement(
    warehouse: Warehouse, step: str, sql: str, parameters: Sequence[Parameter] = ()
) -> bigquery.QueryJob:
    """The job of a statement, when it has succeeded: see `run_job`."""
    from google.cloud import bigquery

    config = bigquery.QueryJobConfig(
        query_parameters=list(parameters),
        labels={"app": "posthog-etl", "step": step[:63]},
        use_query_cache=False,
    )
    if warehouse.settings.max_bytes_billed is not None:
        config.maximum_bytes_billed = warehouse.settings.max_bytes_billed

    def submit(job_id: str) -> bigquery.QueryJob:
        return warehouse.clients.bigquery.query(
            sql,
            job_config=config,
            job_id=job_id,
            location=warehouse.settings.location,
            job_retry=None,
            retry=retry(),
            timeout=HTTP_SECONDS,
        )

    job = run_job(warehouse, step, submit)
    warehouse.usage.append((step, job.total_bytes_billed or 0))
    return job


def run_job[Job: (bigquery.QueryJob, bigquery.LoadJob)](
    warehouse: Warehouse, step: str, submit: Callable[[str], Job]
) -> Job:
    """The job that `submit` makes under the id that it is given, when it has succeeded.

    A submission whose answer was lost is met again by its id. A job that BigQuery failed has had no
    effect: where the reason passes, it is submitted again, under another id. What stops the run
    ends its job.
    """
    name = f"posthog_etl_{warehouse.run_id}_{step}_{uuid4().hex[:8]}"
    numbers = itertools.count(1)
    return repeated(
        warehouse, step, lambda: _run_once(warehouse, f"{name}_{next(numbers)}", submit)
    )


def _run_once[Job: (bigquery.QueryJob, bigquery.LoadJob)](
    warehouse: Warehouse, job_id: str, submit: Callable[[str], Job]
) -> Job:
    from google.api_core.exceptions import Conflict, NotFound

    where: Any = {"location": warehouse.settings.location, "timeout": HTTP_SECONDS}
    client = warehouse.clients.bigquery

    def work() -> Job:
        try:
            job = submit(job_id)
        except Conflict:  # it exists; BigQuery may take a moment to find it
            job = cast("Job", client.get_job(job_id, retry=retry(NotFound), **where))
        for pause in _growing(_POLL_SECONDS, _LONGEST_POLL_SECONDS):
            if job.done(retry=retry(), timeout=HTTP_SECONDS):
                break
            time.sleep(pause)
        if failure := job.exception():
            failure.job_id = job_id
            raise failure
        return job

    outcome = start(work)
    try:
        return watch(warehouse, outcome)
    finally:
        if not outcome.done():
            start(lambda: client.cancel_job(job_id, retry=retry(NotFound), **where))


def repeated[T](warehouse: Warehouse, what: str, call: Callable[[], T]) -> T:
    """What the call returns, called again, after growing pauses, where it fails for what passes.

    Only for calls that have no effect when they fail so.
    """
    from google.api_core.exceptions import GoogleAPICallError

    pauses = _growing(_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS)
    for pause in itertools.islice(pauses, _ATTEMPTS - 1):
        try:
            return call()
        except GoogleAPICallError as error:
            if not is_passing(error):
                raise
            reason = _reason(error) or type(error).__name__
            LOG.warning("BigQuery failed at %s (%s): again in %.1f s", what, reason, pause)
        _rest(warehouse, pause)
    return call()


def _growing(first: float, longest: float) -> Iterator[float]:
    from google.api_core.retry import exponential_sleep_generator

    pauses: Iterator[float] = exponential_sleep_generator(first, longest)  # with jitter
    return pauses


def _rest(warehouse: Warehouse, seconds: float) -> None:
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        warehouse.check()
        time.sleep(min(left, _CHECK_SECONDS))


class _Request[T](Protocol):
    def __call__(self, *, retry: Retry, timeout: float) -> T: ...


def ask[T](warehouse: Warehouse, request: _Request[T]) -> T:
    """What a request of the client's comes to, asking meanwhile whether the run goes on."""
    return watch(warehouse, start(lambda: request(retry=retry(), timeout=HTTP_SECONDS)))


def start[T](call: Callable[[], T]) -> Future[T]:
    """Call it in a thread that nobody waits for at the end of the process, should it hang."""
    outcome: Future[T] = Future()

    def work() -> None:
        try:
            outcome.set_result(call())
        except BaseException as error:  # noqa: BLE001 - raised where it is waited for
            outcome.set_exception(error)

    Thread(target=copy_context().run, args=(work,), daemon=True).start()  # log lines say whose
    return outcome


def watch[T](warehouse: Warehouse, outcome: Future[T]) -> T:
    """The outcome, or what stops the run meanwhile."""
    while not wait([outcome], timeout=_CHECK_SECONDS).done:
        warehouse.check()
    return outcome.result()


def retry(*also: type[Exception]) -> Retry:
    """Repeats a request that fails for what passes, or as `also` says, for a bounded time.

    So an address where nobody answers is known in seconds.
    """
    from google.api_core.retry import Retry

    return Retry(
        predicate=lambda error: isinstance(error, also) or is_passing(error),
        initial=0.5,
        maximum=8.0,
        timeout=_RETRY_SECONDS,
    )


def is_passing(error: Exception) -> bool:
    """Whether the same may succeed in a moment: a busy service, a broken connection, no answer."""
    from google.api_core.exceptions import Aborted, DataLoss, GoogleAPICallError
    from google.auth.exceptions import GoogleAuthError, TransportError
    from requests import exceptions as http

    if isinstance(error, GoogleAPICallError):
        reason = _reason(error)
        is_passing_code = error.code in _PASSING_CODES or isinstance(error, (Aborted, DataLoss))
        return reason in _PASSING or (is_passing_code and reason not in _FINAL)
    if isinstance(error, GoogleAuthError):
        return isinstance(error, TransportError) or error.retryable
    if isinstance(error, http.SSLError):  # a connection error, but one that stays
        return False
    broken = (http.ConnectionError, http.Timeout, http.ChunkedEncodingError)
    return isinstance(error, (ConnectionError, TimeoutError, *broken))


def scalar(name: str, type_: str, value: str | int | datetime | date | None) -> Parameter:
    """A query parameter."""
    from google.cloud import bigquery

    return bigquery.ScalarQueryParameter(name, type_, value)


def array(name: str, type_: str, values: Iterable[object]) -> Parameter:
    """An array parameter."""
    from google.cloud import bigquery

    return bigquery.ArrayQueryParameter(name, type_, list(values))


def records(
    name: str, columns: Mapping[str, str], rows: Iterable[Sequence[str | int]]
) -> Parameter:
    """A parameter that is an array of records; `columns`: their types by name."""
    from google.cloud import bigquery

    types = [bigquery.ScalarQueryParameterType(type_, name=key) for key, type_ in columns.items()]
    values = [
        bigquery.StructQueryParameter(
            None,
            *(
                bigquery.ScalarQueryParameter(key, type_, value)
                for (key, type_), value in zip(columns.items(), row, strict=True)
            ),
        )
        for row in rows
    ]
    # With its type spelled out, since an empty array says it nowhere else.
    return bigquery.ArrayQueryParameter(name, bigquery.StructQueryParameterType(*types), values)
