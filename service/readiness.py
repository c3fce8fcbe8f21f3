"""Whether a run would find each thing that it needs. Bills nothing and starts no run."""

from __future__ import annotations

import threading
import time
from concurrent.futures import wait
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import etl_functions as etl
from bigquery.refusals import StatementError, classified
from bigquery.retries import HTTP_SECONDS, call, retry, start
from jobs.registry import find_job
from jobs.schedules import read_schedules
from runs.errors import DestinationError, EtlError, SourceError, SourceMissingError
from sessions import checks, sources

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from contextlib import AbstractContextManager

    from bigquery.tables import TableId
    from bigquery.warehouse import Warehouse
    from jobs.schedules import Schedule
    from runs.job import Job
    from runs.settings import Settings
    from sessions.sources import LogicalColumn

type OpenWarehouse = Callable[[], AbstractContextManager[Warehouse]]
type Need = Callable[[Warehouse], None]  # raises what is wrong, if anything is

_PROBE_SECONDS: Final = 10.0  # a probe that has not answered by then has failed
_CACHE_SECONDS: Final = 5.0  # BigQuery is asked at most this often


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """Whether one thing is available: `problem` is a sentence, or None."""

    name: str
    seconds: float
    problem: str | None

    def to_json(self) -> dict[str, object]:
        """Every field but the name, JSON-ready."""
        status = "failed" if self.problem else "ok"
        return {"status": status, "seconds": round(self.seconds, 3), "problem": self.problem}


class Readiness:
    """The results of the probes, at most a few seconds old."""

    def __init__(self, settings: Settings, open_warehouse: OpenWarehouse) -> None:
        self._settings = settings
        self._open_warehouse = open_warehouse
        self._lock = threading.Lock()
        self._found: tuple[Probe, ...] = ()
        self._found_at = 0.0

    def probes(self) -> tuple[Probe, ...]:
        """One for each thing that a run needs, the credentials first."""
        with self._lock:
            if not self._found or time.monotonic() - self._found_at > _CACHE_SECONDS:
                self._found = probe_all(self._settings, self._open_warehouse)
                self._found_at = time.monotonic()
            return self._found


def probe_all(settings: Settings, open_warehouse: OpenWarehouse) -> tuple[Probe, ...]:
    """A probe for each thing that a run needs; only the first without credentials."""

    def with_clients(need: Need) -> None:
        with open_warehouse() as warehouse:
            need(warehouse)

    (credentials,) = _probe({"credentials": lambda: with_clients(lambda _: None)})
    needs = _needs(settings)
    if credentials.problem:
        not_tried = "Not tried: there are no credentials."
        return credentials, *(Probe(name=name, seconds=0.0, problem=not_tried) for name in needs)
    bound = {name: partial(with_clients, need) for name, need in needs.items()}
    return credentials, *_probe(bound)


def _probe(needs: Mapping[str, Callable[[], None]]) -> Iterator[Probe]:
    """Run all probes at the same time; one that does not answer in time has failed."""
    outcomes = {name: start(partial(_timed, need)) for name, need in needs.items()}
    wait(outcomes.values(), timeout=_PROBE_SECONDS)
    for name, outcome in outcomes.items():
        late = _PROBE_SECONDS, f"There was no answer within {_PROBE_SECONDS:.0f} s."
        seconds, problem = outcome.result() if outcome.done() else late
        yield Probe(name=name, seconds=seconds, problem=problem)


def _timed(need: Callable[[], None]) -> tuple[float, str | None]:
    started = time.monotonic()
    try:
        need()
    except (EtlError, StatementError) as error:
        return time.monotonic() - started, str(error)
    return time.monotonic() - started, None


def _needs(settings: Settings) -> dict[str, Need]:
    posthog, firebase = settings.posthog_dataset_id, settings.firebase_dataset_id
    return {
        "bigquery": _check_bigquery,
        f"{posthog}.events": partial(_check_source, posthog, "events", sources.EVENTS),
        f"{posthog}.sessions": partial(
            _check_source, posthog, "sessions", sources.POSTHOG_SESSIONS
        ),
        f"{firebase}.users": partial(_check_source, firebase, "users", sources.USERS),
        f"{firebase}.events": partial(_check_source, firebase, "events", sources.DOCUMENTS),
        "read_sessions": _check_read_sessions,
        "destination": _check_destination,
        **jobs_needs(read_schedules()),
    }


def jobs_needs(schedules: Mapping[str, Schedule]) -> dict[str, Need]:
    """What the other jobs need that the service is to run; APIs are asked for nothing.

    A job that runs as a Cloud Run job has an account and settings of its own.
    """
    here = [each for each in schedules.values() if each.deployed and each.mode == "service"]
    return {
        f"{each.job}.{name}": need
        for each in here
        for name, need in _job_needs(find_job(each.job)).items()
    }


def _job_needs(job: Job[Any]) -> dict[str, Need]:
    found: dict[str, Need] = dict(job.probes)
    if job.needs:
        found["settings"] = lambda warehouse: job.check_settings(warehouse.settings)
    if table_of := job.destination:
        found["destination"] = lambda warehouse: _check_writable(warehouse, table_of(warehouse))
    return found


def _check_bigquery(warehouse: Warehouse) -> None:
    """BigQuery accepts statements in this project from this account."""
    with classified("a dry run", SourceError):
        _dry_run(warehouse, checks.nothing_sql())


def _dry_run(warehouse: Warehouse, sql: str) -> None:
    from google.cloud import bigquery

    config = bigquery.QueryJobConfig(dry_run=True, use_query_cache=False)
    location = warehouse.settings.location
    warehouse.clients.bigquery.query(
        sql, job_config=config, location=location, retry=retry(), timeout=HTTP_SECONDS
    )


def _check_source(
    dataset: str, name: str, logical: tuple[LogicalColumn, ...], warehouse: Warehouse
) -> None:
    """The table is there, has the columns, and its rows may be read."""
    table = warehouse.source(dataset, name)
    sources.resolve(etl.read_shape(warehouse, table), logical)
    if not _are_granted(warehouse, table, "bigquery.tables.getData"):
        message = f"Table {table} may not be read: grant roles/bigquery.dataViewer on its dataset."
        raise SourceMissingError(message)


def _are_granted(warehouse: Warehouse, table: TableId, *permissions: str) -> bool:
    with classified(f"the permissions on table {table}", SourceError):
        client = warehouse.clients.bigquery
        found = call(warehouse, partial(client.test_iam_permissions, str(table), permissions))
        return set(found.get("permissions", ())) >= set(permissions)


def _check_read_sessions(warehouse: Warehouse) -> None:
    """The Storage Read API is allowed: a read session is opened and not read."""
    from google.api_core.exceptions import PermissionDenied
    from google.cloud.bigquery_storage import DataFormat, ReadSession

    table = _any_table(warehouse)
    if table is None:  # only views: no run has made a table yet
        return
    session = ReadSession(
        table=f"projects/{table.project}/datasets/{table.dataset}/tables/{table.name}",
        data_format=DataFormat.ARROW,
    )
    with classified("read sessions", SourceError):
        try:
            warehouse.clients.storage.create_read_session(
                parent=f"projects/{table.project}",
                read_session=session,
                max_stream_count=1,
                retry=None,
                timeout=_PROBE_SECONDS,
            )
        except PermissionDenied as error:
            message = (
                "The Storage Read API is not allowed: grant roles/bigquery.readSessionUser, or"
                " batches are read by REST, which is slower."
            )
            raise SourceError(message) from error


def _any_table(warehouse: Warehouse) -> TableId | None:
    """A table, not a view, to open a read session on."""
    settings = warehouse.settings
    for dataset, name in (
        (settings.posthog_dataset_id, "events"),
        (settings.posthog_dataset_id, "sessions"),
        (settings.firebase_dataset_id, "users"),
        (settings.firebase_dataset_id, "events"),
    ):
        table = warehouse.source(dataset, name)
        try:
            if etl.read_shape(warehouse, table).is_table:
                return table
        except SourceError:  # that table's own probe says so
            continue
    return None


def _check_destination(warehouse: Warehouse) -> None:
    _check_writable(warehouse, warehouse.table("sessions"))


def _check_writable(warehouse: Warehouse, table: TableId) -> None:
    """Tables may be created in its dataset, and it may be changed if it exists."""
    from google.api_core.exceptions import NotFound

    client, dataset = warehouse.clients.bigquery, table.dataset
    with classified(f"the destination dataset {dataset}", DestinationError):
        try:
            call(warehouse, partial(client.get_dataset, f"{table.project}.{dataset}"))
        except NotFound:  # the first run creates it; whether it is allowed to can't be checked
            return
        readiness = warehouse.table("readiness", dataset=dataset)
        _dry_run(warehouse, checks.creation_sql(readiness.sql))
        try:
            call(warehouse, partial(client.get_table, str(table)))
        except NotFound:
            return
    if not _are_granted(warehouse, table, "bigquery.tables.updateData"):
        message = (
            f"Table {table} may not be changed: grant roles/bigquery.dataEditor on its dataset."
        )
        raise DestinationError(message)
