"""The job `sessions`: one row per user session, in the steps of docs/architecture.md."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Concatenate, Final

import etl_functions as etl
from bigquery.destination import ensure_view, find_table
from bigquery.expiry import keep_tables, kept_days
from bigquery.jobs import run_query
from bigquery.parameters import records, scalar
from bigquery.retries import start, wait_for
from config.metrics_file import metric_table
from jobs.sessions_checks import check_sessions
from jobs.sessions_extraction import extract, find_changes, plan_sessions
from jobs.sessions_verification import explain, verify, verify_and_record
from jobs.sessions_watch import days_to_watch, fallen_metrics, tripled_reasons
from jobs.sessions_work import SessionsWork, begin
from process_persons import (
    daily_activity_sql,
    derived_counts_sql,
    identities_sql,
    persons_sql,
)
from process_sessions import process_sessions
from runs.job import Job, Step
from runs.lease_row import lease_table
from runs.ledger_row import LEDGER_TABLE
from runs.report import FRESH
from sessions import audit, enrichment, freshness, projection, publication, watch
from sessions import plan as planning
from sessions.bigquery_engine import aggregate_sql
from sessions.persons import IDENTITIES, daily_activity_schema, persons_schema
from sessions.report import SessionsReport
from sessions.sources import source_tables
from sessions.tables import aggregated_schema, sessions_schema, undeclared_warnings

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from bigquery.warehouse import Warehouse
    from runs.context import Run
    from sessions.metric_types import MetricTable


def _ensure_destination(work: SessionsWork) -> None:
    """Make the tables and the view where they are missing, and keep what would expire."""
    run = work.run
    lease, ledger = lease_table(run.warehouse, run.request.job), run.warehouse.table(LEDGER_TABLE)
    others = [start(partial(find_table, run.warehouse, each)) for each in (lease, ledger)]
    made = etl.ensure_destination(run.warehouse, work.metric_table, as_it_is=run.request.dry_run)
    work.is_new, table = made["sessions"]
    work.sessions_created_at, work.kept_days = table.created, kept_days(table)
    work.stored_columns = tuple(column.name for column in table.schema)
    declared = etl.destination_tables(work.metric_table)
    for name in ("sessions", "persons"):
        stored = [column.name for column in made[name][1].schema]
        run.warnings += undeclared_warnings(declared[name], run.warehouse.table(name), stored)
    own = [*(each for _, each in made.values()), *(wait_for(run.warehouse, o) for o in others)]
    run.warnings += keep_tables(run.warehouse, own)
    if run.request.dry_run:
        return  # readers see the view at once
    sessions, identities, persons = map(run.table, ("sessions", "identities", "persons"))
    ensure_view(
        run.warehouse,
        "daily_activity",
        daily_activity_sql(
            work.metric_table, sessions=sessions, identities=identities, persons=persons
        ),
        daily_activity_schema(work.metric_table),
    )


def _aggregate(work: SessionsWork) -> None:
    """One row per session in the staging table `aggregated`, by the engine that was asked for."""
    if work.run.engine == "bigquery":
        work.run.stage("aggregated", aggregate_sql(work.metric_table, work.staging().batches))
    else:
        _aggregate_in_pandas(work)


def _aggregate_in_pandas(work: SessionsWork) -> None:
    """Batch by batch; the next one downloads, and the last one loads, meanwhile."""
    run, metric_table, batches = work.run, work.metric_table, work.batches
    schema = aggregated_schema(metric_table)
    table = run.staged["batches"]
    properties = projection.downloaded_properties(metric_table)
    empty = {name: type_ for name, type_ in properties.items() if not work.non_null[name]}
    columns = [name for name in projection.downloaded_columns(metric_table) if name not in empty]
    aggregated = run.stage_empty("aggregated", schema)

    def download(batch: int) -> Callable[[], etl.Download]:
        return etl.start_download(run.warehouse, table, batch=batch, columns=columns, empty=empty)

    def finish_load() -> None:
        if load is not None:
            run.add_seconds("load", load())

    events = 0
    load: Callable[[], float] | None = None
    pending = download(0)
    for batch in range(batches):
        downloaded = pending()
        if batch + 1 < batches:
            pending = download(batch + 1)
        run.add_seconds("download", downloaded.seconds)
        events += len(downloaded.rows)
        started = time.monotonic()
        sessions = process_sessions(downloaded.rows, metric_table)
        run.add_seconds("compute", time.monotonic() - started)
        if downloaded.warning and downloaded.warning not in run.warnings:
            run.warnings.append(downloaded.warning)
        del downloaded
        if len(sessions):
            sessions.insert(0, "batch", batch)
            finish_load()  # one at a time: a load keeps its rows for a retry until done
            load = etl.start_load(run.warehouse, aggregated, sessions, part=batch, schema=schema)
        run.progress.batch(batch + 1, batches, events)
    finish_load()


def _enrich(work: SessionsWork) -> None:
    """Finish the new rows, and those stored rows whose user, documents or channel changed."""
    run = work.run
    staging, sessions = work.staging(), run.table("sessions")
    small = {
        "user_keys": staging.user_keys,
        "documents": staging.documents,
        "channels": staging.channels,
    }
    written = [
        scalar("now", "TIMESTAMP", run.started_at),
        scalar("run_id", "STRING", run.warehouse.run_id),
        scalar("metrics_version", "STRING", work.metrics_version),
    ]
    new_rows = enrichment.new_rows_sql(
        work.metric_table, aggregated=staging.aggregated, planned=staging.planned, **small
    )
    run.stage("staged", new_rows, written)
    if dates := work.outdated_dates:
        work.session_dates |= dates
        names = ", ".join(column.name for column in sessions_schema(work.metric_table).fields)
        select = enrichment.outdated_rows_sql(
            work.metric_table,
            sessions=sessions,
            outdated=staging.outdated,
            dates=planning.dates_sql("s.session_date", dates),
        )
        insert = f"INSERT INTO {staging.staged} ({names})\n{select}"
        run_query(run.warehouse, "staged", insert, written)


def _audit(work: SessionsWork) -> None:
    """Count everything once more, from the staging tables, and refuse what does not add up."""
    run, plan = work.run, work.made_plan
    if work.idle is None:
        now = scalar("now", "TIMESTAMP", run.started_at)
        sql = audit.audit_sql(work.staging(), _newest_sql(work))
        row = run_query(run.warehouse, "audit", sql, [now])[0]
    else:
        row = dict.fromkeys(audit.AuditFigures.__dataclass_fields__, 0) | work.idle
    figures = audit.AuditFigures(**row)
    audit.check_audit(figures, plan, work.rows_by_day, work.read_whole)
    if plan.kind != "dates":  # else neither the run nor the sessions stored need have the newest
        _warn_if_stale(work, figures.newest_at)
    tables = work.found_sources
    if not run.request.force:
        audit.check_firebase(
            figures,
            plan.last_state,
            users=tables.users.shape.table,
            documents=tables.documents.shape.table,
        )
    work.sessions = {
        "touched": figures.touched,
        "deleted": figures.deleted,
        "split": work.split,
        "quarantined": figures.quarantined,
        "outdated": figures.outdated,
        "staged": figures.staged,
    }
    work.firebase = {
        "users": figures.users,
        "documents": figures.documents,
        "ignored_documents": figures.ignored_documents,
        "incomplete_documents": figures.incomplete_documents,
        "creators_unknown": figures.creators_unknown,
        "user_times_unread": figures.user_times_unread,
        "document_times_unread": figures.document_times_unread,
    }
    run.warnings += audit.time_warnings(
        figures, users=tables.users.shape.table, documents=tables.documents.shape.table
    )
    counts = run.counts
    counts.pop("touched", None)
    counts["aggregated"] = figures.aggregated_events
    counts["duplicate"] = figures.duplicate_rows
    counts["quarantined"] = counts.get("quarantined", 0) + figures.quarantined_rows
    counts["bad_timestamp"] = counts.get("bad_timestamp", 0) + plan.unread_rows


def _newest_sql(work: SessionsWork) -> str:
    """The newest valid event of the rows that were read and of the other sessions stored."""
    staging, is_complete = work.staging(), work.made_plan.kind in {"full_load", "dates"}
    return freshness.newest_loaded_sql(
        sessions=None if is_complete else work.run.table("sessions"),
        projected=staging.projected,
        touched=staging.touched,
    )


def _warn_if_stale(work: SessionsWork, newest_at: datetime | None) -> None:
    """Report the source's freshness by its newest valid event."""
    run = work.run
    run.newest_event_at = newest_at
    age = run.started_at - newest_at if newest_at else None
    if age is None:
        table = work.found_sources.events.shape.table
        run.warnings.append(f"Table {table} has no valid events up to now.")
    elif age > FRESH:
        hours = age.total_seconds() / 3600
        run.warnings.append(f"The newest event is {hours:.0f} hours old: is the export running?")


def _publish(work: SessionsWork) -> None:
    """Make it visible: sessions, quarantine and state in one transaction."""
    run, plan = work.run, work.made_plan
    sql = publication.publish_sql(
        work.metric_table,
        plan,
        work.staging(),
        destination=publication.DestinationTables(
            sessions=run.table("sessions"),
            split_ids=run.table("split_ids"),
            ties=run.table("ties"),
            quarantined=run.table("quarantined_sessions"),
            state=run.table(etl.STATE_TABLE),
            lease=run.lease.sql,
        ),
        found=publication.Found(
            session_dates=work.session_dates,
            read_whole=work.read_whole,
            has_split=work.split > 0 or plan.is_full_load,
        ),
    )
    parameters = [
        scalar("metrics_version", "STRING", work.metrics_version),
        scalar("sessions_created_at", "TIMESTAMP", work.sessions_created_at),
        scalar("users", "INT64", work.firebase["users"]),
        scalar("documents", "INT64", work.firebase["documents"]),
        records(
            "days",
            {"partition_id": "STRING", "row_count": "INT64", "stamp": "INT64"},
            [(key, plan.counts[key], plan.stamps.get(key)) for key in sorted(plan.counts)],
        ),
        records(
            "columns",
            {"name": "STRING", "version": "STRING"},
            list(work.metric_table.column_versions().items()),
        ),
    ]
    run.publish("publish", sql, parameters)


def _rebuild_persons(work: SessionsWork) -> None:
    """Rebuild what follows from `sessions` and Firebase; this completes the delivery."""
    run, staging = work.run, work.staging()
    sessions, identities, persons = map(run.table, ("sessions", "identities", "persons"))
    selects = {
        identities: (
            IDENTITIES,
            identities_sql(work.metric_table, ties=run.table("ties"), user_keys=staging.user_keys),
        ),
        persons: (
            persons_schema(work.metric_table),
            persons_sql(
                work.metric_table,
                sessions=sessions,
                identities=identities,
                user_keys=staging.user_keys,
                documents=staging.documents,
                churn_days=run.settings.churn_days,
            ),
        ),
    }
    parameters = [
        scalar("now", "TIMESTAMP", run.started_at),
        scalar("today", "DATE", run.started_at.date()),
    ]
    days, of_days = days_to_watch(work)
    counts = derived_counts_sql(
        sessions=sessions, identities=identities, persons=persons, watched_days=days
    )
    sql = publication.replace_sql(run.lease.sql, selects, counts=counts)
    reasons = start(partial(tripled_reasons, work))
    found = run.complete("persons", sql, [*parameters, *of_days])[0]
    run.warnings += fallen_metrics(work, found.pop("watched_days", None))
    tripled = wait_for(run.warehouse, reasons)
    run.warnings += tripled
    run.warnings += watch.unmatched_warnings(
        users=work.firebase["users"],
        table=str(work.found_sources.users.shape.table),
        sessions=found.pop("sessions_of_persons"),
        of_users=found.pop("sessions_of_users"),
    )
    work.persons = found


def _unless_idle(step: Callable[[SessionsWork], None]) -> Callable[[SessionsWork], None]:
    """The step, skipped if no session changes."""

    def work_unless_idle(work: SessionsWork) -> None:
        if work.idle is None:
            step(work)

    return work_unless_idle


def _begin(run: Run) -> SessionsWork:
    return begin(metric_table(run.settings.metrics_file), run)


def _with_metric_table[**P, T](
    work: Callable[Concatenate[MetricTable, Warehouse, P], T],
) -> Callable[Concatenate[Warehouse, P], T]:
    """The function, for the metric table of the file that the settings name."""

    def of_the_file(warehouse: Warehouse, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return work(metric_table(warehouse.settings.metrics_file), warehouse, *args, **kwargs)

    return of_the_file


EXPLAIN: Final = _with_metric_table(explain)
VERIFY_AND_RECORD: Final = _with_metric_table(verify_and_record)
VERIFY: Final = _with_metric_table(verify)
"""Verifies stored sessions: see `jobs/sessions_verification.py`."""


JOB: Final = Job(
    name="sessions",
    description="PostHog's events and Firebase's users to one row per user session.",
    begin=_begin,
    steps=(
        Step(name="destination", work=_ensure_destination),
        Step(name="changes", work=find_changes),
        Step(name="extract", work=extract),
        Step(name="plan", work=_unless_idle(plan_sessions)),
        Step(name="aggregate", work=_unless_idle(_aggregate)),
        Step(name="enrich", work=_unless_idle(_enrich)),
        Step(name="audit", work=_audit),
        Step(name="publish", work=_unless_idle(_publish), publishes=True),
        Step(name="persons", work=_rebuild_persons, publishes=True),
    ),
    report_type=SessionsReport,
    sources=lambda settings: [each.table for each in source_tables(settings).values()],
    check=_with_metric_table(check_sessions),
)
