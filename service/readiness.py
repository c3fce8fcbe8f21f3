"""Whether a run would find each thing that it needs. Bills nothing and starts no run."""

from __future__ import annotations

import threading
import time
from concurrent.futures import wait
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import etl_functions as etl
from bigquery.expiry import dataset_warnings
from bigquery.jobs import dry_run
from bigquery.locations import find_locations, one_location
from bigquery.refusals import StatementError, classified
from bigquery.retries import call, start
from config.metrics_file import metric_table
from config.schedules import read_schedules
from jobs.registry import find_job
from runs.checks import Check
from runs.errors import DestinationError, EtlError, SourceError, SourceMissingError
from sessions import checks, sources

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from bigquery.tables import TableId
    from bigquery.warehouse import Warehouse
    from config.schedules import Schedule
    from runs.checks import Outcome
    from runs.job import Job
    from runs.settings import Settings
    from sessions.sources import Source, SourceTable

type OpenWarehouse = Callable[[], AbstractContextManager[Warehouse]]
# Raises what is wrong, if anything is; returns what a run would warn of.
type Need = Callable[[Warehouse], Sequence[str]]

_PROBE_SECONDS: Final = 10.0  # a probe that has not answered by then has failed
_CACHE_SECONDS: Final = 5.0  # BigQuery is asked at most this often


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """Whether one thing is available: `problem` is a sentence, or None.

    `warnings`: what a run would go on with, and a person should know.
    """

    name: str
    seconds: float
    problem: str | None
    warnings: tuple[str, ...] = ()

    @property
    def status(self) -> Outcome:
        """As a check has it."""
        return "failed" if self.problem else "warning" if self.warnings else "ok"

    @property
    def check(self) -> Check:
        """The same as a line of `--check`."""
        message = self.problem or " ".join(self.warnings) or "Available."
        return Check(name=self.name, outcome=self.status, message=message)

    def to_json(self) -> dict[str, object]:
        """Every field but the name, JSON-ready."""
        return {
            "status": self.status,
            "seconds": round(self.seconds, 3),
            "problem": self.problem,
            "warnings": list(self.warnings),
        }


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


def probe_all(
    settings: Settings, open_warehouse: OpenWarehouse, job: Job[Any] | None = None
) -> tuple[Probe, ...]:
    """A probe for each thing that a run needs; only the first without credentials.

    With `job`, what that one needs; else what the service's jobs need.
    """

    def with_clients(need: Need) -> Sequence[str]:
        with open_warehouse() as warehouse:
            return need(warehouse)

    (credentials,) = _probe({"credentials": lambda: with_clients(lambda _: ())})
    needs = _needs(settings) if job is None or job.sources(settings) else _needs_of(job)
    if credentials.problem:
        not_tried = "Not tried: there are no credentials."
        return credentials, *(Probe(name=name, seconds=0.0, problem=not_tried) for name in needs)
    bound = {name: partial(with_clients, need) for name, need in needs.items()}
    return credentials, *_probe(bound)


def _probe(needs: Mapping[str, Callable[[], Sequence[str]]]) -> Iterator[Probe]:
    """Run all probes at the same time; one that does not answer in time has failed."""
    outcomes = {name: start(partial(_timed, name, need)) for name, need in needs.items()}
    wait(outcomes.values(), timeout=_PROBE_SECONDS)
    problem = f"There was no answer within {_PROBE_SECONDS:.0f} s."
    for name, outcome in outcomes.items():
        late = Probe(name=name, seconds=_PROBE_SECONDS, problem=problem)
        yield outcome.result() if outcome.done() else late


def _timed(name: str, need: Callable[[], Sequence[str]]) -> Probe:
    started = time.monotonic()
    problem: str | None = None
    warnings: Sequence[str] = ()
    try:
        warnings = need()
    except (EtlError, StatementError) as error:
        problem = str(error)
    seconds = time.monotonic() - started
    return Probe(name=name, seconds=seconds, problem=problem, warnings=tuple(warnings))


def _needs_of(job: Job[Any]) -> dict[str, Need]:
    return {"bigquery": _check_bigquery, **_job_needs(job)}


def _needs(settings: Settings) -> dict[str, Need]:
    return {
        "metrics": _check_metrics,
        "bigquery": _check_bigquery,
        "location": _check_location,
        **{
            f"{each.table.dataset}.{each.table.name}": partial(_check_source, name, each)
            for name, each in sources.source_tables(settings).items()
        },
        "read_sessions": _check_read_sessions,
        "destination": _check_destination,
        **jobs_needs(read_schedules()),
    }


def _check_metrics(warehouse: Warehouse) -> Sequence[str]:
    """The file of metrics can be used."""
    metric_table(warehouse.settings.metrics_file)
    return ()


def jobs_needs(schedules: Mapping[str, Schedule]) -> dict[str, Need]:
    """What the other jobs of the service need; no API is called.

    A job that runs as a Cloud Run job has an account and settings of its own.
    """
    here = [each for each in schedules.values() if each.deployed and each.mode == "service"]
    return {
        f"{each.job}.{name}": need
        for each in here
        for name, need in _job_needs(find_job(each.job)).items()
    }


def _job_needs(job: Job[Any]) -> dict[str, Need]:
    found: dict[str, Need] = {name: partial(_silent, probe) for name, probe in job.probes.items()}
    if job.needs:
        found["settings"] = partial(
            _silent, lambda warehouse: job.check_settings(warehouse.settings)
        )
    if table_of := job.destination:
        found["destination"] = lambda warehouse: _check_writable(warehouse, table_of(warehouse))
    return found


def _silent(probe: Callable[[Warehouse], None], warehouse: Warehouse) -> Sequence[str]:
    """A probe that has nothing to warn of."""
    probe(warehouse)
    return ()


def _check_bigquery(warehouse: Warehouse) -> Sequence[str]:
    """BigQuery accepts statements in this project from this account."""
    with classified("a dry run", SourceError):
        dry_run(warehouse, checks.nothing_sql())
    return ()


def _check_location(warehouse: Warehouse) -> Sequence[str]:
    """All that a run reads and writes is in one place."""
    wanted = sources.source_tables(warehouse.settings).values()
    one_location(find_locations(warehouse, [each.table for each in wanted]))
    return ()


def _check_source(name: str, wanted: SourceTable, warehouse: Warehouse) -> Sequence[str]:
    """The table is there, has the columns, and its rows may be read."""
    source = etl.find_source(warehouse, wanted)
    warnings = sources.source_warnings(name, source)
    if source.shape.is_missing:
        return warnings
    if not _are_granted(warehouse, wanted.table, "bigquery.tables.getData"):
        message = (
            f"Table {wanted.table} may not be read: grant roles/bigquery.dataViewer on its dataset."
        )
        raise SourceMissingError(message)
    return [*warnings, *_check_past(warehouse, source)]


def _check_past(warehouse: Warehouse, source: Source) -> Sequence[str]:
    """A warning if only an administrator may read the table's past."""
    for each in (source, sources.without_past(source)):
        try:
            with classified(f"table {source.shape.table}", SourceError):
                dry_run(warehouse, checks.past_sql(each))
        except SourceError:
            if not each.shape.as_of:
                raise
        else:
            return () if each is source else [sources.past_warning(source.shape.table)]
    return ()


def _are_granted(warehouse: Warehouse, table: TableId, *permissions: str) -> bool:
    with classified(f"the permissions on table {table}", SourceError):
        client = warehouse.clients.bigquery
        found = call(warehouse, partial(client.test_iam_permissions, str(table), permissions))
        return set(found.get("permissions", ())) >= set(permissions)


def _check_read_sessions(warehouse: Warehouse) -> Sequence[str]:
    """The Storage Read API is allowed: a read session is opened and not read."""
    from google.api_core.exceptions import PermissionDenied
    from google.cloud.bigquery_storage import DataFormat, ReadSession

    table = _any_table(warehouse)
    if table is None:  # only views: no run has made a table yet
        return ()
    session = ReadSession(
        table=f"projects/{table.project}/datasets/{table.dataset}/tables/{table.name}",
        data_format=DataFormat.ARROW,
    )
    with classified("read sessions", SourceError):
        try:
            warehouse.clients.storage.create_read_session(
                parent=f"projects/{warehouse.settings.project_id}",
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
    return ()


def _any_table(warehouse: Warehouse) -> TableId | None:
    """A table, not a view, to open a read session on."""
    for wanted in sources.source_tables(warehouse.settings).values():
        try:
            if etl.read_shape(warehouse, wanted.table).is_table:
                return wanted.table
        except SourceError:  # that table's own probe says so
            continue
    return None


def _check_destination(warehouse: Warehouse) -> Sequence[str]:
    return _check_writable(warehouse, warehouse.table("sessions"))


def _check_writable(warehouse: Warehouse, table: TableId) -> Sequence[str]:
    """Tables may be created in its dataset, and it may be changed if it exists."""
    from google.api_core.exceptions import NotFound

    client, dataset = warehouse.clients.bigquery, table.dataset
    with classified(f"the destination dataset {dataset}", DestinationError):
        try:
            found = call(warehouse, partial(client.get_dataset, f"{table.project}.{dataset}"))
        except NotFound:
            return [f"Dataset {dataset} does not exist: the first run makes it, if it may."]
        warnings = dataset_warnings(found)
        readiness = warehouse.table("readiness", dataset=dataset)
        dry_run(warehouse, checks.creation_sql(readiness.sql))
        try:
            call(warehouse, partial(client.get_table, str(table)))
        except NotFound:
            return warnings
        dry_run(warehouse, checks.change_sql(table.sql))
    if not _are_granted(warehouse, table, "bigquery.tables.updateData"):
        message = (
            f"Table {table} may not be changed: grant roles/bigquery.dataEditor on its dataset."
        )
        raise DestinationError(message)
    return warnings
