"""What a run reads: sources, changed days, touched sessions. The rules are in `sessions.plan`."""

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
from sessions import enrichment, projection, sources, splitting
from sessions import plan as planning

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
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
    found = etl.read_day_counts(run.warehouse, tables.events)
    work.snapshot_at = found.counted_at
    is_partial = run.request.limit is not None or run.request.start_date is not None
    state = etl.read_state(run.warehouse)
    destination = planning.Destination(
        state=state,
        sessions_created_at=None if work.is_new else work.sessions_created_at,
        has_rows_of_another_version=is_partial
        and etl.has_rows_of_another_version(run.warehouse, work.metrics_version),
    )
    plan = work.plan = planning.make_plan(
        run.request,
        found.counts,
        destination,
        stamps=found.stamps,
        metrics_version=work.metrics_version,
        today=run.started_at.date(),
    )
    work.has_changes = (
        plan.kind != "incremental"
        or state is None
        or ((found.counts, found.stamps) != (state.days, state.stamps))
    )


def _look_for_newest_event(work: SessionsWork) -> None:
    """Tell how fresh the source is, by its newest event."""
    run, events = work.run, work.found_sources.events
    run.newest_event_at = etl.read_newest_event_at(
        run.warehouse, events, work.made_plan, run.started_at
    )
    age = run.started_at - run.newest_event_at if run.newest_event_at else None
    if age is None:
        run.warnings.append(f"Table {events.shape.table} has no events.")
    elif age > FRESH:
        hours = age.total_seconds() / 3600
        run.warnings.append(f"The newest event is {hours:.0f} hours old: is the export running?")


def extract(work: SessionsWork) -> None:
    """Project the changed days and the small tables, all in parallel, as of one moment.

    Where no day has changed, the small tables tell whether any session has to.
    """
    run, tables = work.run, work.found_sources
    snapshot = scalar("snapshot_at", "TIMESTAMP", work.snapshot_at)
    small = {
        "user_keys": enrichment.user_keys_sql(work.metric_table, tables.users),
        "documents": enrichment.documents_sql(tables.documents),
        "channels": enrichment.channels_sql(work.metric_table, tables.posthog_sessions),
    }
    with ThreadPoolExecutor(len(small) + 1) as pool:
        jobs = [
            pool.submit(
                copy_context().run, run.stage, name, sql, [snapshot], refused_as=SourceError
            )
            for name, sql in small.items()
        ]
        newest = pool.submit(copy_context().run, _look_for_newest_event, work)
        if work.has_changes:
            _project(work, tables.events, snapshot)
        for job in jobs:
            job.result()
        newest.result()
    if not work.has_changes and not _find_idle(work):
        _project(work, tables.events, snapshot)


def _find_idle(work: SessionsWork) -> bool:
    """Whether the small tables leave every stored session as it is."""
    run, staging = work.run, work.staging()
    sql = enrichment.outdated_count_sql(
        work.metric_table,
        sessions=run.table("sessions"),
        user_keys=staging.user_keys,
        documents=staging.documents,
        channels=staging.channels,
    )
    row = run_query(run.warehouse, "outdated_count", sql)[0]
    state = work.made_plan.last_state
    known = (state.users, state.documents) if state else None
    if row.pop("outdated") or known != (row["users"], row["documents"]):
        return False  # the state is to remember how many there are now
    work.idle = row
    return True


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
    sessions, name = run.table("sessions"), "touched" if plan.limit is None else "found"
    touched = run.warehouse.staging(name).sql
    touched_sql = planning.touched_sql(
        work.metric_table, plan, projected=projected, sessions=sessions, quarantined=quarantined
    )
    split = run.warehouse.staging("split").sql
    split_sql = splitting.split_sql(work.metric_table, projected=projected, touched=touched)
    tables = {name: (touched_sql, ""), "split": (split_sql, "")}
    others: list[date] = []
    if plan.is_full_load:
        work.split = run.stage_script(name, tables, splitting.count_sql(split))[0]["split"]
    else:
        others_sql = planning.other_days_sql(touched=touched, sessions=sessions, split=split)
        stored = run.stage_script(name, tables, others_sql)[0]
        work.split = stored["split"]
        others = _other_days(work, stored)
        if others:
            project(others, sessions=touched)
            split_tables = {"split": (split_sql, "")}
            count_sql = splitting.count_sql(split)
            work.split = run.stage_script("split", split_tables, count_sql)[0]["split"]
    if work.split:
        _split(work, name)
    work.read_days = len(others)
    work.listed_rows = sum(plan.rows_of(day) for day in (*work.read_whole, *others))
    work.read_days += len(work.read_whole)
    if plan.limit is not None:
        run.stage(
            "touched", planning.latest_sql(projected=projected, found=touched, limit=plan.limit)
        )


def _split(work: SessionsWork, touched: str) -> None:
    """Make pieces of the ids that are too long; a run with a limit leaves them to a later one."""
    run, split = work.run, work.run.warehouse.staging("split").sql
    name = run.warehouse.staging(touched).sql
    if work.made_plan.limit is not None:
        sql = splitting.left_out_sql(touched=name, split=split)
        work.split = 0
    else:
        sql = splitting.pieces_sql(
            projected=run.warehouse.staging("projected").sql,
            touched=name,
            split=split,
            is_full_load=work.made_plan.is_full_load,
        )
    run_query(run.warehouse, "split", sql)


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
            split_ids=None if self.work.made_plan.is_full_load else run.table("split_ids"),
        )
        parameters = [
            self.snapshot,
            array("excluded_distinct_ids", "STRING", settings.exclude_distinct_ids),
            array("excluded_libs", "STRING", settings.exclude_libs),
        ]
        if "projected" not in run.staged:
            run.stage(
                "projected", sql, parameters, layout="CLUSTER BY session_id", refused_as=SourceError
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


def _other_days(work: SessionsWork, stored: Mapping[str, Iterable[date]]) -> list[date]:
    """The days besides those read on which the touched sessions have rows, or may have."""
    plan = work.made_plan
    work.session_dates |= set(stored["session_dates"])
    days = set(stored["days"])
    if not plan.is_ordinary:
        days |= planning.neighbours(work.metric_table, plan, work.read_whole)
    return sorted(days.difference(work.read_whole))


def plan_sessions(work: SessionsWork) -> None:
    """Count every row that was read, judge the touched sessions, and cut them into batches.

    Meanwhile the stored sessions are found that are outdated. Where the rows of the days leave
    no doubt that one batch will do, nothing waits for the count.
    """
    limit = work.run.settings.max_batch_events
    work.batches = planning.batch_count(work.listed_rows, max_batch_events=limit)
    with ThreadPoolExecutor(2) as pool:
        later = [pool.submit(copy_context().run, _find_outdated, work)]
        if work.batches == 1:
            later.append(pool.submit(copy_context().run, _stage_batches, work))
        _count_rows(work)
        if work.batches > 1:
            touched = work.run.counts.get("touched", 0)
            work.batches = planning.batch_count(touched, max_batch_events=limit)
            _stage_batches(work)
        for each in later:
            each.result()


def _count_rows(work: SessionsWork) -> None:
    """Count every row that was read, by what becomes of it."""
    run, plan, staging = work.run, work.made_plan, work.staging()
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


def _stage_batches(work: SessionsWork) -> None:
    """Judge the touched sessions and cut them into batches; tell which columns have values."""
    staging, batches = work.staging(), work.batches
    planned = planning.planned_sql(
        work.metric_table, projected=staging.projected, touched=staging.touched, batches=batches
    )
    rows = projection.batches_sql(
        work.metric_table, projected=staging.projected, planned=staging.planned
    )
    layout = f"PARTITION BY RANGE_BUCKET(batch, GENERATE_ARRAY(0, {batches}, 1))"
    tables = {"planned": (planned, ""), "batches": (rows, layout)}
    if work.run.engine == "bigquery":  # nothing travels
        work.run.stage_script("batches", tables, None)
    else:
        then = projection.non_null_sql(work.metric_table, staging.batches)
        work.non_null = work.run.stage_script("batches", tables, then)[0]


def _find_outdated(work: SessionsWork) -> None:
    """Stage the stored sessions, the touched apart, whose user, documents or channel changed."""
    run, staging, sessions = work.run, work.staging(), work.run.table("sessions")
    if work.made_plan.kind != "incremental":
        # a full load builds every row, the others only what they name
        run.stage("outdated", enrichment.none_outdated_sql(work.metric_table, sessions=sessions))
        return
    sql = enrichment.outdated_sql(
        work.metric_table,
        sessions=sessions,
        touched=staging.touched,
        user_keys=staging.user_keys,
        documents=staging.documents,
        channels=staging.channels,
    )
    dates_sql = f"SELECT DISTINCT session_date FROM {staging.outdated}"
    rows = run.stage_script("outdated", {"outdated": (sql, "")}, dates_sql)
    work.outdated_dates = {row["session_date"] for row in rows}
