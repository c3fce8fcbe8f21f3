"""One run in progress: its request, its resources and its progress. Knows no job."""

from __future__ import annotations

import resource
import sys
import time
from concurrent.futures import wait
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol, TypedDict
from uuid import uuid4

from bigquery.retries import wait_for
from bigquery.staging import create_staging_table, drop_staging, stage_script, stage_select
from bigquery.warehouse import Warehouse
from runs.errors import DestinationError, EtlError, RepeatedError
from runs.lease_row import LeaseRow, triggers_parameter
from runs.lease_sql import with_trigger
from runs.ledger_row import find_failure, last_statement, start_ledger
from runs.log import log_fields, log_run_finished, log_run_not_begun
from runs.progress import LogProgress, Progress, RunInProgress
from runs.report import RunReport, StepReport
from runs.supervision import check_publication

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from concurrent.futures import Future

    from bigquery.clients import Clients
    from bigquery.parameters import Parameter
    from bigquery.tables import TableId, TableSchema
    from runs.report import RunKind, RunStatus
    from runs.request import RunRequest
    from runs.settings import Engine, Settings
    from runs.supervision import Supervisor


class ReportHead(TypedDict):
    """The fields that every job's report begins with."""

    run_id: str
    job: str
    status: RunStatus
    request: RunRequest
    engine: Engine
    kind: RunKind | None
    reason: str | None
    started_at: datetime
    finished_at: datetime | None
    counts: Mapping[str, int]
    steps: tuple[StepReport, ...]
    peak_memory_bytes: int
    bytes_processed: int
    cost_usd: float
    newest_event_at: datetime | None
    warnings: tuple[str, ...]
    error: str | None
    dry_run: bool


@dataclass(kw_only=True)
class Run:
    """A run in progress: what all jobs have in common."""

    request: RunRequest
    warehouse: Warehouse
    started_at: datetime
    progress: Progress
    trigger: str | None = None
    staged: dict[str, TableId] = field(default_factory=dict)
    steps: list[StepReport] = field(default_factory=list)
    parts: dict[str, float] = field(default_factory=dict)  # of the step in progress
    counts: dict[str, int] = field(default_factory=dict)  # source rows by outcome
    warnings: list[str] = field(default_factory=list)
    kind: RunKind | None = None
    reason: str | None = None
    newest_event_at: datetime | None = None
    supervisor: Supervisor | None = None
    ledger: Future[None] | None = None  # the row in the ledger, while it is inserted
    finished: RunReport | None = None  # once it is over

    @property
    def engine(self) -> Engine:
        """The engine of the request, else of the settings."""
        return self.request.engine or self.settings.engine

    @property
    def settings(self) -> Settings:
        """The deployment's settings."""
        return self.warehouse.settings

    @property
    def lease(self) -> LeaseRow:
        """The row of the job's lease."""
        return LeaseRow(warehouse=self.warehouse, job=self.request.job)

    def table(self, name: str) -> str:
        """A destination table's name in SQL."""
        return self.warehouse.table(name).sql

    def stage(
        self,
        name: str,
        sql: str,
        parameters: Sequence[Parameter] = (),
        *,
        layout: str = "",
        refused_as: type[EtlError] = DestinationError,
    ) -> str:
        """Create a staging table from a SELECT; returns its name in SQL."""
        self.staged[name] = self.warehouse.staging(name)
        table = stage_select(
            self.warehouse, name, sql, parameters, layout=layout, refused_as=refused_as
        )
        return table.sql

    def stage_empty(self, name: str, schema: TableSchema) -> TableId:
        """Make an empty staging table."""
        self.staged[name] = self.warehouse.staging(name)
        return create_staging_table(self.warehouse, name, schema)

    def stage_script(
        self, step: str, tables: Mapping[str, tuple[str, str]], then: str | None
    ) -> list[dict[str, Any]]:
        """Create staging tables, each from a SELECT and a layout, and read `then`, in one job."""
        self.staged |= {name: self.warehouse.staging(name) for name in tables}
        return stage_script(self.warehouse, step, tables, then)

    def publish(self, step: str, sql: str, parameters: Sequence[Parameter] = ()) -> None:
        """Run the transaction that readers see, once: it holds the fence by `hold_lease_sql`.

        @triggers is set too, for a job that publishes and completes in one transaction.
        """
        self._transact(step, sql, parameters, publishes=True)

    def complete(
        self, step: str, sql: str, parameters: Sequence[Parameter] = ()
    ) -> list[dict[str, Any]]:
        """Run the last transaction of a run: it holds `complete_sql`.

        Returns the rows of the SELECT that follows it, where one does.
        """
        return self._transact(step, sql, parameters, publishes=False)

    def _transact(
        self, step: str, sql: str, parameters: Sequence[Parameter], *, publishes: bool
    ) -> list[dict[str, Any]]:
        supervisor = self._supervisor
        given = [*parameters, self._triggers] if "@triggers" in sql else parameters
        with supervisor.publishing():
            lease = self.lease
            if publishes:  # until the commit only the fence or its time limit stops it
                check = check_publication()
                lease = replace(lease, warehouse=replace(self.warehouse, check=check))
            return lease.transact(step, sql, given, fence=supervisor.fence, publishes=publishes)

    def set_stop_message(self, outcome: str) -> None:
        """Set what messages say the run has done, if something stops it from now on."""
        self._supervisor.set_stop_message(outcome)

    @property
    def _supervisor(self) -> Supervisor:
        if self.supervisor is None:
            message = "A run publishes only while it holds its lease."
            raise RuntimeError(message)
        return self.supervisor

    @property
    def _triggers(self) -> Parameter:
        """The deliveries that are settled once this run has settled its own."""
        triggers = self._supervisor.triggers
        if self.trigger is not None:
            triggers = with_trigger(triggers, self.trigger, self.warehouse.run_id)
        return triggers_parameter(triggers)

    def settle(self, error: Exception) -> None:
        """After a permanent failure, keep other attempts at the delivery from repeating it.

        A bug may be a temporary conflict, so it does not count.
        """
        if self.trigger is not None and isinstance(error, EtlError) and error.is_final:
            self._supervisor.settle(self._triggers)

    @property
    def settled_before(self) -> str | None:
        """The run that settled this scheduled delivery before, unless the request is forced."""
        if self.trigger is None or self.request.force:
            return None
        return self._supervisor.triggers.get(self.trigger)

    def check(self) -> None:
        """Raise what stops the run, if anything does: a lost lease, the deadline, SIGTERM."""
        if self.supervisor:
            self.supervisor.check()

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Time a step and report it as progress; what stops the run stops it here."""
        self.check()
        self.progress.step(name)
        started, billed = time.monotonic(), self.warehouse.bytes_billed
        self.parts.clear()
        yield
        self.steps.append(
            StepReport(
                name=name,
                seconds=time.monotonic() - started,
                bytes=self.warehouse.bytes_billed - billed,
                parts=dict(self.parts),
            )
        )

    def add_seconds(self, part: str, seconds: float) -> None:
        """Add to the seconds of a part of the step, which may run beside others."""
        self.parts[part] = self.parts.get(part, 0.0) + seconds

    def head(self, status: RunStatus, error: str | None) -> ReportHead:
        """What every job's report begins with."""
        billed = self.warehouse.bytes_billed
        return {
            "run_id": self.warehouse.run_id,
            "job": self.request.job,
            "status": status,
            "request": self.request,
            "engine": self.engine,
            "kind": self.kind,
            "reason": self.reason,
            "started_at": self.started_at,
            "finished_at": None if status == "running" else datetime.now(UTC),
            "counts": dict(self.counts),
            "steps": tuple(self.steps),
            "peak_memory_bytes": _peak_memory_bytes(),
            "bytes_processed": billed,
            "cost_usd": billed / 2**40 * self.settings.usd_per_tib,
            "newest_event_at": self.newest_event_at,
            "warnings": tuple(self.warnings),
            "error": error,
            "dry_run": self.request.dry_run,
        }


class Work(Protocol):
    """What a job has found in one run so far."""

    @property
    def run(self) -> Run:
        """The run that it works in."""

    def report(self, status: RunStatus, error: str | None = None) -> RunReport:
        """What it has done so far, under this status."""


def _peak_memory_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux counts in KiB


def begin(
    request: RunRequest,
    settings: Settings,
    clients: Clients,
    *,
    trigger: str | None,
    progress: Progress | None,
    unit: str = "events",
) -> Run:
    """A run with an id of its own, which has done nothing yet."""
    started_at = datetime.now(UTC)
    run_id = f"{started_at:%Y%m%dT%H%M%S}_{uuid4().hex[:8]}"
    here = RunInProgress(run_id=run_id, job=request.job, started_at=started_at, unit=unit)
    return Run(
        request=request,
        warehouse=Warehouse(clients=clients, settings=settings, run_id=run_id),
        started_at=started_at,
        trigger=trigger,
        progress=progress or LogProgress(here),
    )


@contextmanager
def logging_refusals(run: Run, log_names: Iterable[str]) -> Iterator[None]:
    """Wraps a run's start: if the run is refused, logs that as the end of a run."""
    try:
        yield
    except EtlError as error:
        run.progress.close()
        log_run_not_begun(run.request.job, error, str(error), log_names)
        raise


@contextmanager
def recorded(work: Work) -> Iterator[None]:
    """In this block, each log line carries the run's id; the last says how it ended."""
    run, error_type = work.run, None
    with log_fields({"run_id": run.warehouse.run_id, "job": run.request.job}):
        try:
            yield
        except BaseException as error:
            fail(work, error)
            error.add_note(f"In run {run.warehouse.run_id}.")  # for whoever logs it
            error_type = type(error).__name__
            raise
        finally:
            run.progress.close()
            log_run_finished(run.finished or work.report("failed"), error_type=error_type)


@contextmanager
def supervised(work: Work, supervisor: Supervisor) -> Iterator[None]:
    """In this block, the lease is renewed and watched. Records failures and drops staging."""
    run = work.run
    unwatched = run.warehouse
    run.warehouse = replace(unwatched, check=supervisor.check)
    try:
        with supervisor:
            try:
                yield
            except Exception as error:
                run.warehouse = unwatched
                record(run, fail(work, error))
                run.settle(error)
                raise
    finally:
        drop_staging(unwatched, run.staged.values())


def finish(work: Work, status: RunStatus, error: str | None = None) -> RunReport:
    """The final report, for the caller, the ledger and the log alike."""
    report = work.run.finished = work.report(status, error)
    return report


def fail(work: Work, error: BaseException) -> RunReport:
    """The final report of a run that this error ended; for a bug it has only the type."""
    if isinstance(error, EtlError):
        return finish(work, error.status, str(error))
    return finish(work, "failed", type(error).__name__)


def answer_again(work: Work, run_id: str) -> RunReport:
    """The answer to a scheduled delivery that the run of this id has settled: `duplicate`.

    Raises RepeatedError if that run failed: this one would fail as well.
    """
    error = find_failure(work.run.warehouse, run_id)
    if error is None:
        return replace(finish(work, "duplicate"), run_id=run_id)
    message = (
        f"This delivery is not tried again, because run {run_id} failed permanently:"
        f" {error.rstrip('.')}. Fix that, then start a run by hand."
    )
    raise RepeatedError(message)


def enter_ledger(work: Work) -> None:
    """Start writing the run's ledger row; what stops the run does not stop this."""
    run = work.run
    unwatched = replace(run.warehouse, check=lambda: None)
    run.ledger = start_ledger(unwatched, work.report("running"))


def await_ledger(run: Run) -> None:
    """Wait for the run's ledger row. Raises if writing it failed: nobody could follow the run."""
    if run.ledger is not None:
        wait_for(run.warehouse, run.ledger)


def record(run: Run, report: RunReport) -> None:
    """Write the outcome to the ledger as the lease is released; no run fails because of it."""
    if run.ledger is None or run.supervisor is None:
        return
    wait([run.ledger])  # why it failed, if it did, was raised by `await_ledger`
    run.supervisor.set_final_statement(*last_statement(run.warehouse, report))
