"""One run in progress: what it was asked, what it works with, and what it has found so far."""

from __future__ import annotations

import resource
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING
from uuid import uuid4

import etl_functions as etl
from bigquery.warehouse import Warehouse
from runs import VERSION
from runs.errors import DestinationError, EtlError, RequestError
from runs.log import LOG, log_fields, log_run_finished
from runs.progress import LogProgress, Progress, RunInProgress
from runs.report import RunReport, StepReport
from sessions import publication as publishing
from sessions.metrics import metrics_version

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bigquery.clients import Clients
    from bigquery.parameters import Parameter
    from bigquery.tables import TableId
    from runs.report import RunKind, RunStatus
    from runs.request import RunRequest
    from runs.settings import Engine, Settings
    from runs.supervision import Supervisor
    from sessions.plan import Plan


@dataclass(kw_only=True)
class Run:
    """A run in progress: what it was asked, what it works with, and what it has found so far."""

    request: RunRequest
    warehouse: Warehouse
    metrics_version: str
    started_at: datetime
    progress: Progress
    staged: dict[str, TableId] = field(default_factory=dict)
    steps: list[StepReport] = field(default_factory=list)
    parts: dict[str, float] = field(default_factory=dict)  # of the step in progress
    counts: dict[str, int] = field(default_factory=dict)
    sessions: dict[str, int] = field(default_factory=dict)
    firebase: dict[str, int] = field(default_factory=dict)
    persons: dict[str, int] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    trigger: str | None = None
    supervisor: Supervisor | None = None
    plan: Plan | None = None
    read_whole: tuple[date, ...] = ()
    read_days: int = 0
    rows_by_day: dict[date, int] = field(default_factory=dict)
    session_dates: set[date] = field(default_factory=set)  # of stored sessions to replace
    newest_event_at: datetime | None = None
    snapshot_at: datetime | None = None  # BigQuery's time: as of then every source is read
    sessions_created_at: datetime | None = None  # which `sessions` table it is
    report: RunReport | None = None  # once it is over

    @property
    def engine(self) -> Engine:
        """What aggregates: as the request says, else the settings."""
        return self.request.engine or self.settings.engine

    @property
    def settings(self) -> Settings:
        """The deployment's settings."""
        return self.warehouse.settings

    def table(self, name: str) -> str:
        """A destination table, as it stands in SQL."""
        return self.warehouse.table(name).sql

    def stage(
        self,
        name: str,
        sql: str,
        parameters: Sequence[Parameter] = (),
        *,
        layout: str = "",
        blame: type[EtlError] = DestinationError,
    ) -> str:
        """Make a staging table of a SELECT; returns it as it stands in SQL."""
        self.staged[name] = self.warehouse.staging(name)
        table = etl.stage_select(self.warehouse, name, sql, parameters, layout=layout, blame=blame)
        return table.sql

    def staging(self) -> publishing.StagingTables:
        """The staging tables, by what they hold."""
        names = publishing.StagingTables.__dataclass_fields__
        return publishing.StagingTables(
            **{name: self.warehouse.staging(name).sql for name in names}
        )

    def check(self) -> None:
        """Raise what stops the run, if anything does: a lost lease, the deadline, SIGTERM."""
        if self.supervisor:
            self.supervisor.check()

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Time a step, and tell whoever watches; what stops the run stops it here."""
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

    def took(self, part: str, seconds: float) -> None:
        """Note what a part of the step took, perhaps beside others."""
        self.parts[part] = self.parts.get(part, 0.0) + seconds


def begin(
    request: RunRequest, settings: Settings, clients: Clients, progress: Progress | None
) -> Run:
    """A run with an id of its own; RequestError for a job that there is not."""
    if request.job != "sessions":
        message = f"There is no job {request.job}: the only one is sessions."
        raise RequestError(message)
    started_at = datetime.now(UTC)
    run_id = f"{started_at:%Y%m%dT%H%M%S}_{uuid4().hex[:8]}"
    warehouse = Warehouse(clients=clients, settings=settings, run_id=run_id)
    here = RunInProgress(run_id=run_id, job=request.job, started_at=started_at)
    return Run(
        request=request,
        warehouse=warehouse,
        metrics_version=metrics_version(settings.exclusions),
        started_at=started_at,
        progress=progress or LogProgress(here),
    )


@contextmanager
def told(run: Run) -> Iterator[None]:
    """Every log line within carries the run's id, and the last one says how the run ended."""
    error_type = None
    with log_fields({"run_id": run.warehouse.run_id, "job": run.request.job}):
        try:
            yield
        except BaseException as error:
            fail(run, error)
            error.add_note(f"In run {run.warehouse.run_id}.")  # whoever logs it tells of the run
            error_type = type(error).__name__
            raise
        finally:
            run.progress.close()
            log_run_finished(run.report or report_of(run, "failed"), error_type=error_type)


def finish(run: Run, status: RunStatus, error: str | None = None) -> RunReport:
    """What came of the run, for the caller, the ledger and the log alike."""
    run.report = report_of(run, status, error)
    return run.report


def fail(run: Run, error: BaseException) -> RunReport:
    """What came of a run that this error ended; of a bug only its type is told."""
    if isinstance(error, EtlError):
        return finish(run, error.status, str(error))
    return finish(run, "failed", type(error).__name__)


def report_of(run: Run, status: RunStatus, error: str | None = None) -> RunReport:
    """What the run has done so far, under this status."""
    plan = run.plan
    return RunReport(
        run_id=run.warehouse.run_id,
        job=run.request.job,
        status=status,
        request=run.request,
        engine=run.engine,
        kind=_kind(run),
        reason=plan.reason if plan else None,
        started_at=run.started_at,
        finished_at=None if status == "running" else datetime.now(UTC),
        changed_days=len(plan.days) if plan else 0,
        read_days=run.read_days,
        counts=dict(run.counts),
        sessions=dict(run.sessions),
        firebase=dict(run.firebase),
        persons=dict(run.persons),
        steps=tuple(run.steps),
        peak_memory_bytes=_peak_memory_bytes(),
        bytes_processed=run.warehouse.bytes_billed,
        cost_usd=run.warehouse.bytes_billed / 2**40 * run.settings.usd_per_tib,
        newest_event_at=run.newest_event_at,
        warnings=tuple(run.warnings),
        error=error,
        dry_run=run.request.dry_run,
        metrics_version=run.metrics_version,
        version=VERSION,
    )


def _peak_memory_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux counts in KiB


def _kind(run: Run) -> RunKind | None:
    if run.plan is None:
        return None
    touched = run.sessions.get("touched", 0) + run.sessions.get("concerned", 0)
    if run.plan.kind == "incremental" and run.sessions and not touched:
        return "nothing_new"
    return run.plan.kind


def record(run: Run, report: RunReport) -> None:
    """Bring the run's ledger row up to date; nothing depends on it, so no run fails by it."""
    try:
        etl.finish_ledger(run.warehouse, report)
    except EtlError as error:
        LOG.warning("the ledger could not be written: %s", error)
