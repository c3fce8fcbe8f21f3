"""BigQuery as a run speaks to it: clients, jobs that can be met again, retries, errors by class.

Nothing here knows which tables there are.
"""

from __future__ import annotations

from concurrent.futures import Future, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Thread
from typing import TYPE_CHECKING, Any, Final, cast
from uuid import uuid4

from pipeline.errors import CredentialsError, EtlError, SourceError, UnavailableError
from sessions.tables import TableId

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from datetime import date, datetime

    from google.api_core.retry import Retry
    from google.auth.credentials import Credentials
    from google.cloud import bigquery
    from google.cloud.bigquery_storage import BigQueryReadClient

    from pipeline.settings import Settings
    from sandbox.emulator import Endpoints

HTTP_SECONDS: Final = 60.0  # for one request; jobs are polled
_RETRY_SECONDS: Final = 30.0
_CHECK_SECONDS: Final = 0.2
_BIGQUERY_URL: Final = "https://bigquery.googleapis.com"
_QUOTAS: Final = {"rateLimitExceeded", "quotaExceeded", "jobRateLimitExceeded"}
_REFUSALS: Final = {"bytesBilledLimitExceeded", "accessDenied", "notFound"}


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
        if isinstance(error, (api.ServerError, api.Aborted, api.Cancelled)):
            message = f"BigQuery failed at {what} ({type(error).__name__}): try again later."
            raise UnavailableError(message) from error
        raise
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
    errors = getattr(error, "errors", None) or [{}]
    return str(errors[0].get("reason", ""))


def _first_line(error: Exception) -> str:
    text = str(getattr(error, "message", error)).strip()
    return text.splitlines()[0] if text else type(error).__name__


def run_query(
    warehouse: Warehouse,
    step: str,
    sql: str,
    parameters: Sequence[Parameter] = (),
    *,
    blame: type[EtlError] = SourceError,
) -> list[dict[str, Any]]:
    """The rows of a statement, or none for DML, under a job id of our own.

    A submission whose answer was lost is met again by its id. `blame` is what a refusal is raised
    as; other errors of the statement itself are bugs and stay the client's.
    """
    with classified(step, blame):
        job = run_job(warehouse, step, sql, parameters)
        rows = wait_for(warehouse, job, lambda: job.result(retry=retry(), job_retry=None))
        warehouse.usage.append((step, job.total_bytes_billed or 0))
        return [dict(row.items()) for row in rows]


def run_job(
    warehouse: Warehouse, step: str, sql: str, parameters: Sequence[Parameter] = ()
) -> bigquery.QueryJob:
    """Submit a statement under a job id of our own, by which a lost answer is met again."""
    from google.api_core.exceptions import Conflict
    from google.cloud import bigquery

    client = warehouse.clients.bigquery
    config = bigquery.QueryJobConfig(
        query_parameters=list(parameters),
        labels={"app": "posthog-etl", "step": step[:63]},
        use_query_cache=False,
    )
    if warehouse.settings.max_bytes_billed is not None:
        config.maximum_bytes_billed = warehouse.settings.max_bytes_billed
    job_id = f"posthog_etl_{warehouse.run_id}_{step}_{uuid4().hex[:8]}"
    location = warehouse.settings.location
    try:
        return client.query(
            sql,
            job_config=config,
            job_id=job_id,
            location=location,
            job_retry=None,
            retry=retry(),
            timeout=HTTP_SECONDS,
        )
    except Conflict:
        return cast(
            "bigquery.QueryJob",
            client.get_job(job_id, location=location, retry=retry(), timeout=HTTP_SECONDS),
        )


def wait_for[T](
    warehouse: Warehouse, job: bigquery.QueryJob | bigquery.LoadJob, call: Callable[[], T]
) -> T:
    """What the call returns, asking meanwhile whether the run goes on; if not, its job is ended."""
    outcome = start(call)
    try:
        return watch(warehouse, outcome)
    finally:
        if not outcome.done():
            Thread(target=job.cancel, kwargs={"timeout": HTTP_SECONDS}, daemon=True).start()


def start[T](call: Callable[[], T]) -> Future[T]:
    """Call it in a thread that nobody waits for at the end of the process, should it hang."""
    outcome: Future[T] = Future()

    def work() -> None:
        try:
            outcome.set_result(call())
        except BaseException as error:  # noqa: BLE001 - raised where it is waited for
            outcome.set_exception(error)

    Thread(target=work, daemon=True).start()
    return outcome


def watch[T](warehouse: Warehouse, outcome: Future[T]) -> T:
    """The outcome, or what stops the run meanwhile."""
    while not wait([outcome], timeout=_CHECK_SECONDS).done:
        warehouse.check()
    return outcome.result()


def retry() -> Retry:
    """The client's own retry, bounded: an address where nobody answers is known in seconds."""
    from google.cloud.bigquery.retry import DEFAULT_RETRY

    return DEFAULT_RETRY.with_timeout(_RETRY_SECONDS)


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
