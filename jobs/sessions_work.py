"""What a run of the sessions job has found so far, shared by its steps. Takes no step itself."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sessions.column_changes import ColumnChanges
from sessions.publication import StagingTables
from sessions.report import SessionsReport

if TYPE_CHECKING:
    from datetime import date, datetime

    from runs.context import Run
    from runs.report import RunKind, RunStatus
    from sessions.metric_types import MetricTable
    from sessions.plan import Plan
    from sessions.sources import SourceTables


@dataclass(kw_only=True)
class SessionsWork:
    """What a run of the sessions job has found so far."""

    run: Run
    metric_table: MetricTable
    metrics_version: str
    is_new: bool = False  # whether `sessions` was missing
    sessions_created_at: datetime | None = None  # which `sessions` table it is
    stored_columns: tuple[str, ...] = ()  # of `sessions`
    changes: ColumnChanges = field(default_factory=ColumnChanges)
    announcement: str | None = None  # what it said before it read anything
    kept_days: int | None = None  # how long `sessions` keeps its partitions; None: for ever
    sources: SourceTables | None = None
    plan: Plan | None = None
    batches: int = 0
    snapshot_at: datetime | None = None  # BigQuery's time: as of then every source is read
    has_changes: bool = True  # False where no day of the source has other rows than before
    idle: dict[str, Any] | None = None  # what the audit counts, where no session is to change
    read_whole: tuple[date, ...] = ()
    read_days: int = 0
    split: int = 0  # ids that were found to be too long for one session
    listed_rows: int = 0  # of the days that were read, by the source's metadata
    non_null: dict[str, bool] = field(default_factory=dict)  # travelling properties: any value?
    outdated_dates: set[date] = field(default_factory=set)
    rows_by_day: dict[date, int] = field(default_factory=dict)
    session_dates: set[date] = field(default_factory=set)  # of stored sessions to replace
    sessions: dict[str, int] = field(default_factory=dict)
    firebase: dict[str, int] = field(default_factory=dict)
    persons: dict[str, int] = field(default_factory=dict)

    @property
    def found_sources(self) -> SourceTables:
        """The source tables, once the step `changes` has found them."""
        return _found(self.sources)

    @property
    def made_plan(self) -> Plan:
        """The plan, once the step `changes` has made it."""
        return _found(self.plan)

    def staging(self) -> StagingTables:
        """The staging tables, by what they hold."""
        names = StagingTables.__dataclass_fields__
        return StagingTables(**{name: self.run.warehouse.staging(name).sql for name in names})

    def report(self, status: RunStatus, error: str | None = None) -> SessionsReport:
        """What the run has done so far, under this status."""
        self.run.kind = self._kind()
        self.run.reason = self.plan.reason if self.plan else None
        return SessionsReport(
            **self.run.head(status, error),
            changed_days=len(self.plan.days) if self.plan else 0,
            read_days=self.read_days,
            sessions=dict(self.sessions),
            firebase=dict(self.firebase),
            persons=dict(self.persons),
            metrics_version=self.metrics_version,
            columns=self.changes.to_json(),
            announcement=self.announcement,
        )

    def _kind(self) -> RunKind | None:
        if self.plan is None:
            return None
        replaced = self.sessions.get("touched", 0) + self.sessions.get("outdated", 0)
        if self.plan.kind == "incremental" and self.sessions and not replaced:
            return "nothing_new"
        return self.plan.kind


def _found[T](value: T | None) -> T:
    if value is None:
        message = "A step came before the step `changes`, which finds what it needs."
        raise RuntimeError(message)
    return value


def begin(metric_table: MetricTable, run: Run) -> SessionsWork:
    """The work of a run that has found nothing yet."""
    version = metric_table.version(run.settings.exclusions)
    return SessionsWork(run=run, metric_table=metric_table, metrics_version=version)
