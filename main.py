"""One run, step by step, and the command line. Not how BigQuery is spoken to."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING

import etl_functions as etl
from bigquery.connection import connect
from bigquery.jobs import run_query
from bigquery.parameters import records, scalar
from bigquery.tables import Field, TableSchema
from bigquery.warehouse import Warehouse
from jobs.sessions_extraction import extract, find_changes, plan_sessions, resolve_sources
from process_persons import (
    daily_activity_sql,
    derived_counts_sql,
    identities_sql,
    persons_sql,
)
from process_sessions import process_sessions
from runs import VERSION
from runs.context import Run, begin, fail, finish, record, report_of, told
from runs.errors import AuditError, DestinationError, EtlError, RequestError
from runs.execution import Execution
from runs.lease import with_trigger
from runs.log import LOG, configure_logging, log_run_not_begun
from runs.progress import Progress, TerminalProgress
from runs.report_text import report_text
from runs.request import RunRequest
from runs.settings import ENGINES, Settings
from runs.supervision import STOP, Supervisor, take_lease
from service.inspection import check_load
from sessions import enrichment, projection
from sessions import plan as planning
from sessions import publication as publishing
from sessions.checks import worst
from sessions.metrics import METRICS
from sessions.persons import DAILY_ACTIVITY, IDENTITIES, PERSONS
from sessions.pushdown import aggregate_sql
from sessions.tables import SESSIONS, field_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from bigquery.clients import Clients
    from runs.report import RunReport
    from sessions.plan import Plan

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
    "persons",
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
            is_new = _ensure_destination(run)
            etl.start_ledger(run.warehouse, report_of(run, "running"))
        with run.step("changes"):
            tables = resolve_sources(run)
            plan = run.plan = find_changes(run, tables, is_new=is_new)
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
            with run.step("persons"):
                _rebuild_persons(run, supervisor)
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


def _ensure_destination(run: Run) -> bool:
    """Make the tables and the view where missing; tells whether `sessions` was."""
    is_new, run.sessions_created_at = etl.ensure_destination(run.warehouse)
    sessions, identities, persons = map(run.table, ("sessions", "identities", "persons"))
    etl.ensure_view(
        run.warehouse,
        "daily_activity",
        daily_activity_sql(sessions=sessions, identities=identities, persons=persons),
        DAILY_ACTIVITY,
    )
    return is_new


def _aggregate(run: Run, batches: int) -> None:
    """One row per session in the staging table `aggregated`, by the engine that was asked for."""
    if run.engine == "bigquery":
        run.stage("aggregated", aggregate_sql(run.staging().batches))
    else:
        _aggregate_in_pandas(run, batches)


def _aggregate_in_pandas(run: Run, batches: int) -> None:
    """Batch by batch; the next one downloads, and the last one loads, meanwhile."""
    table = run.staged["batches"]
    filled = run_query(run.warehouse, "filled", projection.filled_sql(table.sql))[0]
    properties = projection.travelling_properties()
    empty = {name: type_ for name, type_ in properties.items() if not filled[name]}
    columns = [name for name in projection.travelling_columns() if name not in empty]
    aggregated = run.staged["aggregated"] = etl.create_staging_table(
        run.warehouse, "aggregated", AGGREGATED
    )

    def download(batch: int) -> Callable[[], etl.Download]:
        return etl.start_download(run.warehouse, table, batch=batch, columns=columns, empty=empty)

    def finish_load() -> None:
        if load is not None:
            run.took("load", load())

    events = 0
    load: Callable[[], float] | None = None
    pending = download(0)
    for batch in range(batches):
        downloaded = pending()
        if batch + 1 < batches:
            pending = download(batch + 1)
        run.took("download", downloaded.seconds)
        events += len(downloaded.rows)
        started = time.monotonic()
        sessions = process_sessions(downloaded.rows)
        run.took("compute", time.monotonic() - started)
        if downloaded.warning and downloaded.warning not in run.warnings:
            run.warnings.append(downloaded.warning)
        del downloaded
        if len(sessions):
            sessions.insert(0, "batch", batch)
            finish_load()  # one at a time: until it is done, a load keeps its rows to try again
            load = etl.start_load(
                run.warehouse, aggregated, sessions, part=batch, schema=AGGREGATED
            )
        run.progress.batch(batch + 1, batches, events)
    finish_load()


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
        scalar("sessions_created_at", "TIMESTAMP", run.sessions_created_at),
        records(
            "days", {"partition_id": "STRING", "row_count": "INT64"}, sorted(plan.counts.items())
        ),
    ]
    with supervisor.publishing():
        # From here to the commit only the fence decides: nothing may end the job half-known.
        unwatched = replace(run.warehouse, check=lambda: None)
        etl.publish(unwatched, sql, parameters, fence=supervisor.fence)


def _rebuild_persons(run: Run, supervisor: Supervisor) -> None:
    """Rebuild what follows from `sessions` and Firebase; with it the scheduled delivery is done."""
    sessions, identities, persons = map(run.table, ("sessions", "identities", "persons"))
    staging = run.staging()
    selects = {
        identities: (IDENTITIES, identities_sql(sessions=sessions, user_keys=staging.user_keys)),
        persons: (
            PERSONS,
            persons_sql(
                sessions=sessions,
                identities=identities,
                user_keys=staging.user_keys,
                documents=staging.documents,
                churn_days=run.settings.churn_days,
            ),
        ),
    }
    parameters = [
        *etl.lease_parameters(run.warehouse, supervisor.fence),
        scalar("now", "TIMESTAMP", run.started_at),
        scalar("today", "DATE", run.started_at.date()),
        records(
            "triggers",
            {"trigger": "STRING", "run_id": "STRING"},
            _triggers(run, supervisor).items(),
        ),
    ]
    sql = publishing.replace_sql(run.table(etl.LEASE_TABLE), selects)
    with supervisor.publishing():
        etl.rebuild(run.warehouse, sql, parameters, fence=supervisor.fence)
    counts = derived_counts_sql(sessions=sessions, identities=identities, persons=persons)
    run.persons = run_query(run.warehouse, "persons", counts, blame=DestinationError)[0]


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
    LOG.info("run requested", extra={"fields": {"request": request.shown(), "trigger": trigger}})
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
    parser.add_argument("--check", action="store_true", help="look at what is there, run nothing")
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
    execution = Execution.from_environment(os.environ)
    fields = execution.log_fields if execution else {}
    configure_logging(sys.stderr, as_json=not on_terminal, fields=fields)
    if execution and execution.idle:
        LOG.warning("%s", execution.idle)
        return 0
    try:
        request = _request(options)
        settings = Settings.from_environment(os.environ, local=options.local)
        if options.check:
            return _check(request, settings, options)
        return _run(request, settings, options, execution, on_terminal=on_terminal)
    except EtlError as error:
        LOG.error("%s", error, extra={"fields": {"type": type(error).__name__}})
        return error.exit_code
    except Exception:  # noqa: BLE001 - nothing is above this entry point
        LOG.exception("Something unforeseen happened: this is a bug.")
        return 1


def _request(options: argparse.Namespace) -> RunRequest:
    return RunRequest(
        full_load=options.full_load,
        limit=options.limit,
        start_date=options.start_date,
        end_date=options.end_date,
        engine=options.engine,
        dry_run=options.dry_run,
        force=options.force,
        job=options.job,
    )


def _run(
    request: RunRequest,
    settings: Settings,
    options: argparse.Namespace,
    execution: Execution | None,
    *,
    on_terminal: bool,
) -> int:
    """A run; its report goes to stdout, but for a Cloud Run job's, whose log has all of it."""
    progress = TerminalProgress(steps=len(STEPS)) if on_terminal else None
    trigger = execution.trigger if execution else None
    try:
        report = run(request, settings, is_local=options.local, trigger=trigger, progress=progress)
    finally:
        if progress:
            progress.close()
    if options.json:
        sys.stdout.write(f"{json.dumps(report.to_json(), indent=2)}\n")
    elif not execution:
        sys.stdout.write(f"{report_text(report)}\n")
    return 0


def _check(request: RunRequest, settings: Settings, options: argparse.Namespace) -> int:
    """A line for each thing that should hold of what is there, and no run."""
    if request != RunRequest():
        message = "--check runs nothing: leave out the options of a run."
        raise RequestError(message)
    with connect(settings, is_local=options.local) as clients:
        warehouse = Warehouse(clients=clients, settings=settings, run_id="check")
        found = check_load(warehouse, datetime.now(UTC))
    outcome = worst(found)
    if options.json:
        shown = {"outcome": outcome, "checks": [each.to_json() for each in found]}
        sys.stdout.write(f"{json.dumps(shown, indent=2)}\n")
    else:
        sys.stdout.writelines(
            f"{each.outcome:<8} {each.name:<14} {each.message}\n" for each in found
        )
    return AuditError.exit_code if outcome == "failed" else 0


if __name__ == "__main__":
    sys.exit(command_line(sys.argv[1:]))
