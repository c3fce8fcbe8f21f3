"""What a run reads: source tables, changed days, touched sessions. Decides by `pipeline.plan`."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import etl_functions as etl
from bigquery.jobs import run_query
from bigquery.parameters import Parameter, array, scalar
from runs.errors import SourceError
from runs.report import FRESH
from sessions import enrichment, projection, sources
from sessions import plan as planning

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import date

    from jobs.sessions_work import SessionsWork
    from runs.context import Run


def _resolve_sources(run: Run) -> sources.SourceTables:
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
        found = {
            key: pool.submit(copy_context().run, partial(resolve, *table))
            for key, table in wanted.items()
        }
        tables = sources.SourceTables(**{key: future.result() for key, future in found.items()})
    for name, column in (("users", "phone"), ("users", "email"), ("users", "created_at")):
        source = getattr(tables, name)
        if column not in source.sql:
            run.warnings.append(f"Table {source.shape.table} has no column for {column}.")
    return tables


def find_changes(work: SessionsWork) -> None:
    """Compare the source's day counts with the state's, and decide what to read."""
    run = work.run
    tables = work.sources = _resolve_sources(run)
    counts = etl.read_day_counts(run.warehouse, tables.events)
    is_partial = run.request.limit is not None or run.request.start_date is not None
    destination = planning.Destination(
        state=etl.read_state(run.warehouse),
        sessions_created_at=None if work.is_new else work.sessions_created_at,
        has_rows_of_another_version=is_partial
        and etl.has_rows_of_another_version(run.warehouse, work.metrics_version),
    )
    plan = work.plan = planning.make_plan(
        run.request,
        counts,
        destination,
        metrics_version=work.metrics_version,
        today=run.started_at.date(),
    )
    run.newest_event_at, work.snapshot_at = etl.read_times(
        run.warehouse, tables.events, plan, run.started_at
    )
    age = run.started_at - run.newest_event_at if run.newest_event_at else None
    if age is None:
        run.warnings.append(f"Table {tables.events.shape.table} has no events.")
    elif age > FRESH:
        hours = age.total_seconds() / 3600
        run.warnings.append(f"The newest event is {hours:.0f} hours old: is the export running?")


def extract(work: SessionsWork) -> None:
    """Project the changed days and the small tables, all in parallel, as of one moment."""
    run, tables = work.run, work.found_sources
    snapshot = scalar("snapshot_at", "TIMESTAMP", work.snapshot_at)
    small = {
        "user_keys": enrichment.user_keys_sql(work.metric_table, tables.users),
        "documents": enrichment.documents_sql(tables.documents),
        "channels": enrichment.channels_sql(work.metric_table, tables.posthog_sessions),
    }
    with ThreadPoolExecutor(len(small)) as pool:
        jobs = [
            pool.submit(copy_context().run, run.stage, name, sql, [snapshot], blame=SourceError)
            for name, sql in small.items()
        ]
        _project(work, tables.events, snapshot)
        for job in jobs:
            job.result()


def _project(work: SessionsWork, events: sources.Source, snapshot: Parameter) -> None:
    """Fill `projected` with every row the run needs, and `touched` with the sessions to build."""
    run, plan = work.run, work.made_plan
    projected = run.warehouse.staging("projected").sql
    quarantined = run.table("quarantined_sessions")
    project = _Projector(work=work, source=events, snapshot=snapshot)
    if plan.limit is None:
        work.read_whole = plan.days
        project(plan.days)
    else:
        work.read_whole = _project_latest(work, project)
    touched = run.stage(
        "touched" if plan.limit is None else "found",
        planning.touched_sql(
            work.metric_table,
            plan,
            projected=projected,
            sessions=run.table("sessions"),
            quarantined=quarantined,
        ),
    )
    if not plan.is_full_load:
        others = _other_days(work, touched)
        if others:
            project(others, sessions=touched)
            work.read_days = len(others)
    work.read_days += len(work.read_whole)
    if plan.limit is not None:
        run.stage(
            "touched", planning.latest_sql(projected=projected, found=touched, limit=plan.limit)
        )


@dataclass(kw_only=True)
class _Projector:
    """Adds the valid rows of some days to `projected`; the first call makes the table."""

    work: SessionsWork
    source: sources.Source
    snapshot: Parameter

    def __call__(self, days: Iterable[date], *, sessions: str | None = None) -> None:
        """Read these days: whole, or only the rows of the sessions in a table of ids."""
        run, metric_table = self.work.run, self.work.metric_table
        settings = run.settings
        sql = projection.project_sql(
            metric_table,
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
            array("excluded_distinct_ids", "STRING", settings.exclude_distinct_ids),
            array("excluded_libs", "STRING", settings.exclude_libs),
        ]
        if "projected" not in run.staged:
            run.stage(
                "projected", sql, parameters, layout="CLUSTER BY session_id", blame=SourceError
            )
        else:
            columns = ", ".join(projection.projected_columns(metric_table))
            insert = f"INSERT INTO {run.warehouse.staging('projected').sql} ({columns})\n{sql}"
            run_query(run.warehouse, "projected", insert, parameters)


def _project_latest(work: SessionsWork, project: _Projector) -> tuple[date, ...]:
    """Read changed days from the newest back, until they hold enough sessions for the limit."""
    run, plan = work.run, work.made_plan
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
        oldest = scalar("oldest_day", "DATE", read[-1])
        found = run_query(run.warehouse, "found", found_sql, [oldest])[0]["found"]
    return read


def _other_days(work: SessionsWork, touched: str) -> list[date]:
    """The days besides those read on which the touched sessions have rows, or may have."""
    run, plan = work.run, work.made_plan
    sql = planning.other_days_sql(touched=touched, sessions=run.table("sessions"))
    stored = run_query(run.warehouse, "other_days", sql)[0]
    work.session_dates |= set(stored["session_dates"])
    days = set(stored["days"])
    if not plan.is_ordinary:
        days |= planning.neighbours(work.metric_table, plan, work.read_whole)
    return sorted(days.difference(work.read_whole))


def plan_sessions(work: SessionsWork) -> None:
    """Count every row that was read, judge the touched sessions, and cut them into batches."""
    run, plan = work.run, work.made_plan
    staging = work.staging()
    accounts = run_query(
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
            work.rows_by_day[row["day"]] = work.rows_by_day.get(row["day"], 0) + row["row_count"]
    batches = work.batches = planning.batch_count(
        run.counts.get("touched", 0), max_batch_events=run.settings.max_batch_events
    )
    run.stage(
        "planned",
        planning.planned_sql(
            work.metric_table,
            projected=staging.projected,
            touched=staging.touched,
            batches=batches,
        ),
    )
    run.stage(
        "batches",
        projection.batches_sql(
            work.metric_table, projected=staging.projected, planned=staging.planned
        ),
        layout=f"PARTITION BY RANGE_BUCKET(batch, GENERATE_ARRAY(0, {batches}, 1))",
    )
