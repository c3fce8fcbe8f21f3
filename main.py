"""One run, step by step, and the command line. Not how BigQuery is spoken to."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import date
from typing import TYPE_CHECKING

import etl_functions as etl
from connection import connect
from extraction import extract, find_changes, plan_sessions, resolve_sources
from pipeline import VERSION
from pipeline import plan as planning
from pipeline import publish as publishing
from pipeline.errors import (
    EtlError,
    SettingsError,
    UnavailableError,
)
from pipeline.lease import with_trigger
from pipeline.runs import RunReport, RunRequest
from pipeline.settings import ENGINES, Settings
from process_sessions import process_sessions
from reporting import (
    LOG,
    Progress,
    TerminalProgress,
    configure_logging,
    log_run_not_begun,
    report_text,
)
from running import Run, begin, fail, finish, record, report_of, told
from sessions import enrichment, projection
from sessions.metrics import METRICS
from sessions.pushdown import aggregate_sql
from sessions.tables import SESSIONS, Field, TableSchema, field_of
from supervision import STOP, Supervisor, take_lease
from warehouse import Clients, records, run_query, scalar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from pipeline.plan import Plan

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

AGGREGATED = TableSchema(
    fields=(
        Field(name="batch", type="INT64"),
        Field(name="session_no", type="INT64"),
        *(field_of(metric) for metric in METRICS),
    ),
    description="One run's aggregated rows, before they are enriched.",
)


def main(
    request: RunRequest,
    settings: Settings,
    clients: Clients,
    *,
    trigger: str | None = None,
    progress: Progress | None = None,
) -> RunReport:
    """Bring `posthog_aggregated` up to date as the request says; the steps of docs/architecture.md.

    Raises EtlError for what a person can mend, after writing it to the ledger; nothing is visible
    to readers then. Anything else that is raised is a bug. `trigger` names a scheduled delivery:
    where one of that name has succeeded, the report says `duplicate`, with the id of its run.
    """
    run = begin(request, settings, clients, progress)
    run.trigger = trigger
    with _lease(run) as supervisor:
        if trigger is not None and trigger in supervisor.triggers and not request.force:
            return replace(finish(run, "duplicate"), run_id=supervisor.triggers[trigger])
        with run.step("destination"):
            created_at = etl.ensure_destination(run.warehouse)
            etl.start_ledger(run.warehouse, report_of(run, "running"))
        with run.step("changes"):
            tables = resolve_sources(run)
            plan = run.plan = find_changes(run, tables, created_at)
        with run.step("extract"):
            extract(run, plan, tables)
        with run.step("plan"):
            batches = plan_sessions(run, plan)
        with run.step("aggregate"):
            _aggregate(run, batches)
        with run.step("enrich"):
            _enrich(run, plan)
        with run.step("audit"):
            _audit(run, plan)
        if not request.dry_run:
            with run.step("publish"):
                _publish(run, plan, supervisor)
        report = finish(run, "succeeded")
        record(run, report)
    return report


@contextmanager
def _lease(run: Run) -> Iterator[Supervisor]:
    """Hold the job's lease; what goes wrong meanwhile is recorded, and staging is cleared away."""
    with told(run):
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
                record(run, fail(run, error))
                raise
            finally:
                etl.drop_staging(unwatched, run.staged.values())


def _aggregate(run: Run, batches: int) -> None:
    """One row per session in the staging table `aggregated`, by the engine that was asked for."""
    if run.engine == "bigquery":
        run.stage("aggregated", aggregate_sql(run.staging().batches))
    else:
        _aggregate_in_pandas(run, batches)


def _aggregate_in_pandas(run: Run, batches: int) -> None:
    """Batch by batch; the next one downloads, and the last one loads, meanwhile."""
    table = run.staged["batches"]
    columns = projection.travelling_columns()
    aggregated = run.staged["aggregated"] = etl.create_staging_table(
        run.warehouse, "aggregated", AGGREGATED
    )

    def download(batch: int) -> Callable[[], etl.Download]:
        return etl.start_download(run.warehouse, table, batch=batch, columns=columns)

    events = 0
    loads: list[Callable[[], int]] = []
    pending = download(0)
    for batch in range(batches):
        downloaded = pending()
        if batch + 1 < batches:
            pending = download(batch + 1)
        events += len(downloaded.rows)
        sessions = process_sessions(downloaded.rows)
        if downloaded.warning and downloaded.warning not in run.warnings:
            run.warnings.append(downloaded.warning)
        del downloaded
        if len(sessions):
            sessions.insert(0, "batch", batch)
            for finish in loads[-1:]:  # until it is loaded, it is kept to be loaded again
                finish()
            loads.append(
                etl.start_load(run.warehouse, aggregated, sessions, part=batch, schema=AGGREGATED)
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
        scalar("now", "TIMESTAMP", run.started_at),
        scalar("run_id", "STRING", run.warehouse.run_id),
        scalar("metrics_version", "STRING", run.metrics_version),
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
    dates = {row["session_date"] for row in run_query(run.warehouse, "concerned", dates_sql)}
    if dates:
        run.session_dates |= dates
        names = ", ".join(column.name for column in SESSIONS.fields)
        select = enrichment.concerned_rows_sql(
            sessions=sessions,
            concerned=staging.concerned,
            dates=planning.dates_sql("s.session_date", dates),
        )
        insert = f"INSERT INTO {staging.staged} ({names})\n{select}"
        run_query(run.warehouse, "staged", insert, written)


def _audit(run: Run, plan: Plan) -> None:
    """Count everything once more, from the staging tables, and refuse what does not add up."""
    row = run_query(run.warehouse, "audit", publishing.audit_sql(run.staging()))[0]
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
        scalar("metrics_version", "STRING", run.metrics_version),
        scalar("sessions_created_at", "TIMESTAMP", etl.sessions_created_at(run.warehouse)),
        records(
            "days", {"partition_id": "STRING", "row_count": "INT64"}, sorted(plan.counts.items())
        ),
        records(
            "triggers",
            {"trigger": "STRING", "run_id": "STRING"},
            _triggers(run, supervisor).items(),
        ),
    ]
    with supervisor.publishing():
        # From here to the commit only the fence decides: nothing may end the job half-known.
        unwatched = replace(run.warehouse, check=lambda: None)
        etl.publish(unwatched, sql, parameters, fence=supervisor.fence)


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
    with ExitStack() as until_the_end:
        try:
            clients = until_the_end.enter_context(connect(settings, is_local=is_local))
        except EtlError as error:
            log_run_not_begun(request.job, error, str(error))
            raise
        return main(request, settings, clients, trigger=trigger, progress=progress)


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
    parser.add_argument("--engine", choices=ENGINES, help="what aggregates (default: ENGINE)")
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
