"""One run, step by step, and the command line. Not how BigQuery is spoken to."""

from __future__ import annotations

import argparse
import json
import os
import resource
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING
from uuid import uuid4

import etl_functions as etl
from pipeline import VERSION
from pipeline import plan as planning
from pipeline import publish as publishing
from pipeline.errors import (
    EtlError,
    RequestError,
    SettingsError,
    UnavailableError,
)
from pipeline.lease import with_trigger
from pipeline.runs import RunReport, RunRequest, StepReport
from pipeline.settings import Settings
from process_sessions import process_sessions
from reporting import LOG, LogProgress, Progress, TerminalProgress, configure_logging, report_text
from sessions import enrichment, projection, sources
from sessions.metrics import METRICS, metrics_version
from sessions.tables import SESSIONS, Field, TableId, TableSchema, field_of
from supervision import STOP, Supervisor, take_lease

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from concurrent.futures import Future

    from pipeline.plan import Plan
    from pipeline.runs import RunKind, RunStatus

STEPS = (
    "lease",
    "destination",
    "changes",
    "extract",
    "plan",
    "aggregate",
    "enrich",
    "audit",
    "publish",
)
_FRESH_HOURS = 26  # a nightly export, and two hours of grace

AGGREGATED = TableSchema(
    fields=(
        Field(name="batch", type="INT64"),
        Field(name="session_no", type="INT64"),
        *(field_of(metric) for metric in METRICS),
    ),
    description="One run's aggregated rows, before they are enriched.",
)


@dataclass(kw_only=True)
class Run:
    """A run in progress: what it was asked, what it works with, and what it has found so far."""

    request: RunRequest
    warehouse: etl.Warehouse
    metrics_version: str
    started_at: datetime
    progress: Progress
    staged: dict[str, TableId] = field(default_factory=dict)
    steps: list[StepReport] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    sessions: dict[str, int] = field(default_factory=dict)
    firebase: dict[str, int] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    trigger: str | None = None
    supervisor: Supervisor | None = None
    plan: Plan | None = None
    read_whole: tuple[date, ...] = ()
    read_days: int = 0
    rows_by_day: dict[date, int] = field(default_factory=dict)
    session_dates: set[date] = field(default_factory=set)  # of stored sessions to replace
    newest_event_at: datetime | None = None

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
        parameters: Sequence[etl.Parameter] = (),
        *,
        layout: str = "",
    ) -> str:
        """Make a staging table of a SELECT; returns it as it stands in SQL."""
        self.staged[name] = self.warehouse.staging(name)
        return etl.stage_select(self.warehouse, name, sql, parameters, layout=layout).sql

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
        yield
        seconds = time.monotonic() - started
        self.steps.append(
            StepReport(name=name, seconds=seconds, bytes=self.warehouse.bytes_billed - billed)
        )


def main(
    request: RunRequest,
    settings: Settings,
    clients: etl.Clients,
    *,
    trigger: str | None = None,
    progress: Progress | None = None,
) -> RunReport:
    """Bring `posthog_aggregated` up to date as the request says; the steps of docs/architecture.md.

    Raises EtlError for what a person can mend, after writing it to the ledger; nothing is visible
    to readers then. Anything else that is raised is a bug. `trigger` names a scheduled delivery:
    where one of that name has succeeded, the report says `duplicate`, with the id of its run.
    """
    run = _begin(request, settings, clients, progress)
    run.trigger = trigger
    with _lease(run) as supervisor:
        if trigger is not None and trigger in supervisor.triggers and not request.force:
            return replace(_report(run, "duplicate"), run_id=supervisor.triggers[trigger])
        with run.step("destination"):
            created_at = etl.ensure_destination(run.warehouse)
            etl.start_ledger(run.warehouse, _report(run, "running"))
        with run.step("changes"):
            tables = _resolve_sources(run)
            plan = run.plan = _find_changes(run, tables, created_at)
        with run.step("extract"):
            _extract(run, plan, tables)
        with run.step("plan"):
            batches = _plan_sessions(run, plan)
        with run.step("aggregate"):
            _aggregate(run, batches)
        with run.step("enrich"):
            _enrich(run, plan)
        with run.step("audit"):
            _audit(run, plan)
        if not request.dry_run:
            with run.step("publish"):
                _publish(run, plan, supervisor)
        report = _report(run, "succeeded")
        _record(run, report)
    return report


def _begin(
    request: RunRequest, settings: Settings, clients: etl.Clients, progress: Progress | None
) -> Run:
    engine = request.engine or settings.engine
    if engine != "pandas":
        message = f"There is no engine {engine} in this release: use pandas."
        raise RequestError(message)
    if request.job != "sessions":
        message = f"There is no job {request.job}: the only one is sessions."
        raise RequestError(message)
    started_at = datetime.now(UTC)
    run_id = f"{started_at:%Y%m%dT%H%M%S}_{uuid4().hex[:8]}"
    warehouse = etl.Warehouse(clients=clients, settings=settings, run_id=run_id)
    exclusions = (
        settings.exclude_distinct_ids,
        settings.exclude_libs,
        settings.exclude_emulators,
        settings.exclude_bots,
    )
    return Run(
        request=request,
        warehouse=warehouse,
        metrics_version=metrics_version(exclusions),
        started_at=started_at,
        progress=progress or LogProgress(run_id),
    )


@contextmanager
def _lease(run: Run) -> Iterator[Supervisor]:
    """Hold the job's lease; what goes wrong meanwhile is recorded, and staging is cleared away."""
    try:
        with run.step("lease"):
            etl.ensure_dataset(run.warehouse)
            run.supervisor = take_lease(run.warehouse)
        unwatched = run.warehouse
        run.warehouse = replace(unwatched, check=run.supervisor.check)
        with run.supervisor as supervisor:
            try:
                yield supervisor
            except Exception as error:
                run.warehouse = unwatched
                status = error.status if isinstance(error, EtlError) else "failed"
                text = str(error) if isinstance(error, EtlError) else type(error).__name__
                _record(run, _report(run, status, text))
                raise
            finally:
                etl.drop_staging(unwatched, run.staged.values())
    finally:
        run.progress.close()


def _record(run: Run, report: RunReport) -> None:
    """Bring the run's ledger row up to date; nothing depends on it, so no run fails by it."""
    try:
        etl.finish_ledger(run.warehouse, report)
    except EtlError as error:
        LOG.warning("the ledger could not be written: %s", error)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sources:
    """The four source tables, as they are read in this run."""

    events: sources.Source
    users: sources.Source
    documents: sources.Source
    posthog_sessions: sources.Source


def _resolve_sources(run: Run) -> _Sources:
    """Read each table's real schema, all at once."""
    posthog, firebase = run.settings.posthog_dataset_id, run.settings.firebase_dataset_id
    wanted = {
        "events": (posthog, "events", sources.EVENTS),
        "posthog_sessions": (posthog, "sessions", sources.POSTHOG_SESSIONS),
        "users": (firebase, "users", sources.USERS),
        "documents": (firebase, "events", sources.DOCUMENTS),
    }

    def resolve(
        dataset: str, name: str, logical: tuple[sources.LogicalColumn, ...]
    ) -> sources.Source:
        shape = etl.read_shape(run.warehouse, run.warehouse.source(dataset, name))
        return sources.resolve(shape, logical)

    with ThreadPoolExecutor(len(wanted)) as pool:
        found = {key: pool.submit(resolve, *table) for key, table in wanted.items()}
        tables = _Sources(**{key: future.result() for key, future in found.items()})
    for name, column in (("users", "phone"), ("users", "email"), ("users", "created_at")):
        source = getattr(tables, name)
        if column not in source.sql:
            run.warnings.append(f"Table {source.shape.table} has no column for {column}.")
    return tables


def _find_changes(run: Run, tables: _Sources, created_at: datetime | None) -> Plan:
    """Compare the source's day counts with the state's, and decide what to read."""
    counts = etl.read_day_counts(run.warehouse, tables.events)
    is_partial = run.request.limit is not None or run.request.start_date is not None
    destination = planning.Destination(
        state=etl.read_state(run.warehouse),
        sessions_created_at=created_at,
        has_rows_of_another_version=is_partial
        and etl.has_rows_of_another_version(run.warehouse, run.metrics_version),
    )
    plan = planning.make_plan(
        run.request,
        counts,
        destination,
        metrics_version=run.metrics_version,
        today=run.started_at.date(),
    )
    run.newest_event_at = etl.read_newest_event(run.warehouse, tables.events, plan, run.started_at)
    age = run.started_at - run.newest_event_at if run.newest_event_at else None
    if age is None:
        run.warnings.append(f"Table {tables.events.shape.table} has no events.")
    elif age.total_seconds() > _FRESH_HOURS * 3600:
        hours = age.total_seconds() / 3600
        run.warnings.append(f"The newest event is {hours:.0f} hours old: is the export running?")
    return plan


def _extract(run: Run, plan: Plan, tables: _Sources) -> None:
    """Project the changed days and the small tables, all in parallel, as of one moment."""
    snapshot = etl.scalar("snapshot_at", "TIMESTAMP", etl.read_snapshot_time(run.warehouse))
    small = {
        "user_keys": enrichment.user_keys_sql(tables.users),
        "documents": enrichment.documents_sql(tables.documents),
        "channels": enrichment.channels_sql(tables.posthog_sessions),
    }
    with ThreadPoolExecutor(len(small)) as pool:
        jobs = [pool.submit(run.stage, name, sql, [snapshot]) for name, sql in small.items()]
        _project(run, plan, tables.events, snapshot)
        for job in jobs:
            job.result()


def _project(run: Run, plan: Plan, events: sources.Source, snapshot: etl.Parameter) -> None:
    """Fill `projected` with every row the run needs, and `touched` with the sessions to build."""
    projected = run.warehouse.staging("projected").sql
    quarantined = run.table("quarantined_sessions")
    project = _Projector(run=run, source=events, snapshot=snapshot)
    if plan.limit is None:
        run.read_whole = plan.days
        project(plan.days)
    else:
        run.read_whole = _project_latest(run, plan, project)
    touched = run.stage(
        "touched" if plan.limit is None else "found",
        planning.touched_sql(
            plan, projected=projected, sessions=run.table("sessions"), quarantined=quarantined
        ),
    )
    if not plan.is_full_load:
        others = _other_days(run, plan, touched)
        if others:
            project(others, sessions=touched)
            run.read_days = len(others)
    run.read_days += len(run.read_whole)
    if plan.limit is not None:
        run.stage(
            "touched", planning.latest_sql(projected=projected, found=touched, limit=plan.limit)
        )


@dataclass(kw_only=True)
class _Projector:
    """Adds the valid rows of some days to `projected`; the first call makes the table."""

    run: Run
    source: sources.Source
    snapshot: etl.Parameter

    def __call__(self, days: Iterable[date], *, sessions: str | None = None) -> None:
        """Read these days: whole, or only the rows of the sessions in a table of ids."""
        settings, warehouse = self.run.settings, self.run.warehouse
        sql = projection.project_sql(
            self.source,
            planning.ranges_sql(self.source, days),
            exclusions=projection.exclusion_sql(
                distinct_ids=bool(settings.exclude_distinct_ids),
                libs=bool(settings.exclude_libs),
                emulators=settings.exclude_emulators,
                bots=settings.exclude_bots,
            ),
            sessions=sessions,
        )
        parameters = [
            self.snapshot,
            etl.array("excluded_distinct_ids", "STRING", settings.exclude_distinct_ids),
            etl.array("excluded_libs", "STRING", settings.exclude_libs),
        ]
        if "projected" not in self.run.staged:
            self.run.stage("projected", sql, parameters, layout="CLUSTER BY session_id")
        else:
            columns = ", ".join(name for name, _ in projection.PROJECTED_COLUMNS)
            insert = f"INSERT INTO {warehouse.staging('projected').sql} ({columns})\n{sql}"
            etl.run_query(warehouse, "projected", insert, parameters)


def _project_latest(run: Run, plan: Plan, project: _Projector) -> tuple[date, ...]:
    """Read changed days from the newest back, until they hold enough sessions for the limit."""
    project(())
    found_sql = planning.found_sql(
        projected=run.warehouse.staging("projected").sql,
        quarantined=run.table("quarantined_sessions"),
    )
    read: tuple[date, ...] = ()
    found = 0
    while found < (plan.limit or 0):
        days = planning.next_days(plan, read=len(read), found=found)
        if not days:
            break
        project(days)
        read += days
        oldest = etl.scalar("oldest_day", "DATE", read[-1])
        found = etl.run_query(run.warehouse, "found", found_sql, [oldest])[0]["found"]
    return read


def _other_days(run: Run, plan: Plan, touched: str) -> list[date]:
    """The days besides those read on which the touched sessions have rows, or may have."""
    sql = planning.other_days_sql(touched=touched, sessions=run.table("sessions"))
    stored = etl.run_query(run.warehouse, "other_days", sql)[0]
    run.session_dates |= set(stored["session_dates"])
    days = set(stored["days"])
    if not plan.is_ordinary:
        days |= planning.neighbours(plan, run.read_whole)
    return sorted(days.difference(run.read_whole))


def _plan_sessions(run: Run, plan: Plan) -> int:
    """Count every row that was read, judge the touched sessions, and cut them into batches."""
    staging = run.staging()
    accounts = etl.run_query(
        run.warehouse,
        "accounts",
        planning.accounts_sql(
            projected=staging.projected,
            touched=staging.touched,
            quarantined=run.table("quarantined_sessions"),
            rest="unselected" if plan.kind == "limit" else "unchanged",
        ),
    )
    for row in accounts:
        run.counts[row["account"]] = run.counts.get(row["account"], 0) + row["row_count"]
        if row["day"] is not None:
            run.rows_by_day[row["day"]] = run.rows_by_day.get(row["day"], 0) + row["row_count"]
    batches = planning.batch_count(
        run.counts.get("touched", 0), max_batch_events=run.settings.max_batch_events
    )
    run.stage(
        "planned",
        planning.planned_sql(projected=staging.projected, touched=staging.touched, batches=batches),
    )
    run.stage(
        "batches",
        projection.batches_sql(projected=staging.projected, planned=staging.planned),
        layout=f"PARTITION BY RANGE_BUCKET(batch, GENERATE_ARRAY(0, {batches}, 1))",
    )
    return batches


def _aggregate(run: Run, batches: int) -> None:
    """Batch by batch in pandas; the next one downloads, and the last one loads, meanwhile."""
    table = run.staged["batches"]
    columns = projection.travelling_columns()
    aggregated = run.staged["aggregated"] = etl.create_staging_table(
        run.warehouse, "aggregated", AGGREGATED
    )
    events, loads = 0, []
    with ThreadPoolExecutor(1) as downloads:

        def download(batch: int) -> Future[etl.Download]:
            return downloads.submit(
                etl.download_batch, run.warehouse, table, batch=batch, columns=columns
            )

        pending = download(0)
        for batch in range(batches):
            run.check()
            downloaded = pending.result()
            if batch + 1 < batches:
                pending = download(batch + 1)
            events += len(downloaded.rows)
            sessions = process_sessions(downloaded.rows)
            if downloaded.warning and downloaded.warning not in run.warnings:
                run.warnings.append(downloaded.warning)
            del downloaded
            if len(sessions):
                sessions.insert(0, "batch", batch)
                loads.append(
                    etl.start_load(
                        run.warehouse, aggregated, sessions, part=batch, schema=AGGREGATED
                    )
                )
            run.progress.batch(batch + 1, batches, events)
    for finish in loads:
        finish()


def _enrich(run: Run, plan: Plan) -> None:
    """Finish the new rows, and those stored rows whose user, documents or channel changed."""
    staging, sessions = run.staging(), run.table("sessions")
    small = {
        "user_keys": staging.user_keys,
        "documents": staging.documents,
        "channels": staging.channels,
    }
    written = [
        etl.scalar("now", "TIMESTAMP", run.started_at),
        etl.scalar("run_id", "STRING", run.warehouse.run_id),
        etl.scalar("metrics_version", "STRING", run.metrics_version),
    ]
    new_rows = enrichment.new_rows_sql(
        aggregated=staging.aggregated, planned=staging.planned, **small
    )
    run.stage("staged", new_rows, written)
    if plan.kind != "incremental":  # a full load builds every row, the others only what they name
        run.stage("concerned", enrichment.nobody_concerned_sql(sessions=sessions))
        return
    run.stage(
        "concerned",
        enrichment.concerned_sql(sessions=sessions, touched=staging.touched, **small),
    )
    dates_sql = f"SELECT DISTINCT session_date FROM {staging.concerned}"
    dates = {row["session_date"] for row in etl.run_query(run.warehouse, "concerned", dates_sql)}
    if dates:
        run.session_dates |= dates
        names = ", ".join(column.name for column in SESSIONS.fields)
        select = enrichment.concerned_rows_sql(
            sessions=sessions,
            concerned=staging.concerned,
            dates=planning.dates_sql("s.session_date", dates),
        )
        insert = f"INSERT INTO {staging.staged} ({names})\n{select}"
        etl.run_query(run.warehouse, "staged", insert, written)


def _audit(run: Run, plan: Plan) -> None:
    """Count everything once more, from the staging tables, and refuse what does not add up."""
    row = etl.run_query(run.warehouse, "audit", publishing.audit_sql(run.staging()))[0]
    figures = publishing.AuditFigures(**row)
    publishing.check_audit(figures, plan, run.rows_by_day, run.read_whole)
    run.sessions = {
        "touched": figures.touched,
        "emptied": figures.emptied,
        "quarantined": figures.quarantined,
        "concerned": figures.concerned,
        "staged": figures.staged,
    }
    run.firebase = {
        "users": figures.users,
        "documents": figures.documents,
        "incomplete_documents": figures.incomplete_documents,
    }
    counts = run.counts
    counts.pop("touched", None)
    counts["aggregated"] = figures.aggregated_events
    counts["duplicate"] = figures.duplicate_rows
    counts["quarantined"] = counts.get("quarantined", 0) + figures.quarantined_rows
    counts["bad_timestamp"] = counts.get("bad_timestamp", 0) + plan.unread_rows


def _triggers(run: Run, supervisor: Supervisor) -> Mapping[str, str]:
    if run.trigger is None:
        return supervisor.triggers
    return with_trigger(supervisor.triggers, run.trigger, run.warehouse.run_id)


def _publish(run: Run, plan: Plan, supervisor: Supervisor) -> None:
    """Make it visible: sessions, quarantine and state in one transaction."""
    sql = publishing.publish_sql(
        plan,
        run.staging(),
        destination=publishing.DestinationTables(
            sessions=run.table("sessions"),
            quarantined=run.table("quarantined_sessions"),
            state=run.table(etl.STATE_TABLE),
            lease=run.table(etl.LEASE_TABLE),
        ),
        session_dates=run.session_dates,
    )
    parameters = [
        *etl.lease_parameters(run.warehouse, supervisor.fence),
        etl.scalar("metrics_version", "STRING", run.metrics_version),
        etl.scalar("sessions_created_at", "TIMESTAMP", etl.sessions_created_at(run.warehouse)),
        etl.records(
            "days", {"partition_id": "STRING", "row_count": "INT64"}, sorted(plan.counts.items())
        ),
        etl.records(
            "triggers",
            {"trigger": "STRING", "run_id": "STRING"},
            _triggers(run, supervisor).items(),
        ),
    ]
    with supervisor.publishing():
        # From here to the commit only the fence decides: nothing may end the job half-known.
        unwatched = replace(run.warehouse, check=lambda: None)
        etl.publish(unwatched, sql, parameters, fence=supervisor.fence)


def _report(run: Run, status: RunStatus, error: str | None = None) -> RunReport:
    plan = run.plan
    return RunReport(
        run_id=run.warehouse.run_id,
        job=run.request.job,
        status=status,
        request=run.request,
        engine=run.request.engine or run.settings.engine,
        kind=_kind(run),
        reason=plan.reason if plan else None,
        started_at=run.started_at,
        finished_at=None if status == "running" else datetime.now(UTC),
        changed_days=len(plan.days) if plan else 0,
        read_days=run.read_days,
        counts=dict(run.counts),
        sessions=dict(run.sessions),
        firebase=dict(run.firebase),
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


def run(
    request: RunRequest,
    settings: Settings,
    *,
    is_local: bool = False,
    trigger: str | None = None,
    progress: Progress | None = None,
) -> RunReport:
    """A run with clients of its own, closed at its end.

    Made from the settings' credentials or, when `is_local`, those of the sandbox's emulator.
    """
    LOG.info("run requested", extra={"fields": {"request": request.to_json(), "trigger": trigger}})
    with _local_clients(settings) if is_local else _clients(settings) as clients:
        return main(request, settings, clients, trigger=trigger, progress=progress)


@contextmanager
def _clients(settings: Settings) -> Iterator[etl.Clients]:
    with closing(etl.make_clients(settings, etl.fetch_credentials(settings))) as clients:
        yield clients


@contextmanager
def _local_clients(settings: Settings) -> Iterator[etl.Clients]:
    """Clients of the sandbox's emulator, which is started where it does not run yet."""
    try:
        from sandbox import emulator
        from sandbox.errors import SandboxError
    except ModuleNotFoundError as error:
        message = (
            "--local needs the development packages: run make setup, and use .venv/bin/python."
        )
        raise SettingsError(message) from error
    try:
        with (
            emulator.attach(settings.sandbox_dir) as endpoints,
            closing(etl.local_clients(endpoints)) as clients,
        ):
            yield clients
    except SandboxError as error:
        raise UnavailableError(str(error)) from error


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line; help and usage errors end the process, the latter with code 2."""
    parser = argparse.ArgumentParser(
        prog="main.py",
        description="Bring posthog_aggregated up to date: one row per user session.",
        epilog="Without options: whatever changed since the last successful run.",
    )
    parser.add_argument("--full-load", action="store_true", help="rebuild every session")
    parser.add_argument(
        "--limit", type=int, metavar="N", help="only the N sessions that start last"
    )
    parser.add_argument("--start-date", type=date.fromisoformat, metavar="D", help="first UTC day")
    parser.add_argument(
        "--end-date", type=date.fromisoformat, metavar="D", help="last UTC day (default: today)"
    )
    parser.add_argument("--engine", choices=["pandas"], help="what aggregates (default: ENGINE)")
    parser.add_argument("--dry-run", action="store_true", help="everything but publishing")
    parser.add_argument("--force", action="store_true", help="run also where the trigger succeeded")
    parser.add_argument("--job", default="sessions", metavar="NAME", help="default: sessions")
    parser.add_argument("--local", action="store_true", help="against the sandbox's emulator")
    parser.add_argument("--json", action="store_true", help="the report as JSON, alone on stdout")
    parser.add_argument("--version", action="version", version=f"posthog-etl {VERSION}")
    return parser.parse_args(arguments)


def _stop(number: int, _: object) -> None:
    """Stop the run at its next check; the same signal once more ends the process at once."""
    STOP.set()
    signal.signal(number, signal.SIG_DFL)


def command_line(arguments: Sequence[str]) -> int:
    """Run as the command line says; returns the exit code."""
    options = parse_arguments(arguments)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _stop)
    on_terminal = sys.stderr.isatty()
    configure_logging(sys.stderr, as_json=not on_terminal)
    progress = TerminalProgress(steps=len(STEPS)) if on_terminal else None
    try:
        request = RunRequest(
            full_load=options.full_load,
            limit=options.limit,
            start_date=options.start_date,
            end_date=options.end_date,
            engine=options.engine,
            dry_run=options.dry_run,
            force=options.force,
            job=options.job,
        )
        settings = Settings.from_environment(os.environ, local=options.local)
        report = run(request, settings, is_local=options.local, progress=progress)
    except EtlError as error:
        LOG.error("%s", error, extra={"fields": {"type": type(error).__name__}})
        return error.exit_code
    finally:
        if progress:
            progress.close()
    text = json.dumps(report.to_json(), indent=2) if options.json else report_text(report)
    sys.stdout.write(f"{text}\n")
    return 0


if __name__ == "__main__":
    sys.exit(command_line(sys.argv[1:]))
