"""What a run reads: sources, changed days, touched sessions. The rules are in `sessions.plan`."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import etl_functions as etl
from bigquery.expiry import vanishing_warning
from bigquery.jobs import dry_run, run_query
from bigquery.parameters import Parameter, scalar
from bigquery.refusals import StatementError, classified
from runs.errors import SourceError, SourceMissingError
from runs.log import LOG, NOTICE
from sessions import enrichment, projection, sources, splitting
from sessions import plan as planning
from sessions.budget import Budget, budget_of, unpruned_warning
from sessions.column_changes import announcement, column_changes
from sessions.tables import projected_schema

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from datetime import date

    from jobs.sessions_work import SessionsWork
    from runs.context import Run


def _resolve_sources(run: Run) -> sources.SourceTables:
    """Read each table's real schema, all at once."""
    wanted = sources.source_tables(run.settings)
    with ThreadPoolExecutor(len(wanted)) as pool:
        found = {
            key: pool.submit(copy_context().run, etl.find_source, run.warehouse, table)
            for key, table in wanted.items()
        }
        tables = {key: future.result() for key, future in found.items()}
    for key, source in tables.items():
        run.warnings += sources.source_warnings(key, source)
    return sources.SourceTables(**tables)


def find_changes(work: SessionsWork) -> None:
    """Compare the source's day counts with the state's, and decide what to read."""
    run = work.run
    tables = work.sources = _resolve_sources(run)
    found = etl.read_day_counts(run.warehouse, tables.events)
    work.snapshot_at = found.counted_at
    is_partial = run.request.limit is not None or run.request.start_date is not None
    state = etl.read_state(run.warehouse)
    if not run.request.force:
        _check_still_there(tables, state)
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
    work.changes = column_changes(
        work.metric_table, state.columns if state else None, work.stored_columns
    )
    if plan.is_full_load and plan.days:
        warning = vanishing_warning(
            run.warehouse.table("sessions"), work.kept_days,
            oldest=plan.days[0], today=run.started_at.date(),
        )  # fmt: skip
        run.warnings += [warning] if warning else []
    work.has_changes = (
        plan.kind != "incremental"
        or state is None
        or ((found.counts, found.stamps) != (state.days, state.stamps))
    )


def _check_still_there(tables: sources.SourceTables, state: planning.State | None) -> None:
    """Raise SourceMissingError for a missing optional table that may be being recreated."""
    for source, before in (
        (tables.users, state.users if state else None),
        (tables.documents, state.documents if state else None),
    ):
        if source.shape.is_missing and before:
            message = (
                f"Table {source.shape.table} is gone, in which the last run found {before} usable"
                " ids: bring it back, or run with --force if it is meant to be gone."
            )
            raise SourceMissingError(message)


def extract(work: SessionsWork) -> None:
    """Project the changed days and the small tables, all in parallel, as of one moment.

    Where no day has changed, the small tables show whether any session has to.
    """
    tables = work.found_sources
    snapshot = scalar("snapshot_at", "TIMESTAMP", work.snapshot_at)
    metric_table = work.metric_table
    small: dict[str, tuple[sources.Source, Callable[[sources.Source], str]]] = {
        "user_keys": (tables.users, partial(enrichment.user_keys_sql, metric_table)),
        "documents": (tables.documents, partial(enrichment.documents_sql, metric_table)),
        "channels": (tables.posthog_sessions, partial(enrichment.channels_sql, metric_table)),
    }
    with ThreadPoolExecutor(len(small)) as pool:
        jobs = [
            pool.submit(copy_context().run, _stage_small, work, name, source, select, snapshot)
            for name, (source, select) in small.items()
        ]
        if work.has_changes:
            _project(work, tables.events, snapshot)
        for job in jobs:
            job.result()
    if not work.has_changes and not _find_idle(work):
        _project(work, tables.events, snapshot)


def _stage_small(
    work: SessionsWork,
    name: str,
    source: sources.Source,
    select: Callable[[sources.Source], str],
    snapshot: Parameter,
) -> None:
    """Stage what is read of a small table, as of the run's moment where that is allowed."""

    def stage(source: sources.Source) -> None:
        with etl.blaming_views(source):
            work.run.stage(name, select(source), [snapshot], refused_as=SourceError)

    _read_past(work, source, stage)


def _read_past[T](
    work: SessionsWork, source: sources.Source, read: Callable[[sources.Source], T]
) -> tuple[sources.Source, T]:
    """How to read a source: as it is now if BigQuery refuses only its past.

    Raises UnavailableError if the table has no such past because it was just recreated.
    """
    run, table = work.run, source.shape.table
    try:
        return source, read(source)
    except SourceError:
        if not source.shape.as_of:
            raise
    except StatementError:
        if source.shape.as_of and work.snapshot_at:
            etl.check_not_replaced(run.warehouse, table, work.snapshot_at)
        raise
    present = sources.without_past(source)
    found = read(present)
    run.warnings.append(sources.past_warning(table))
    return present, found


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
    now = scalar("now", "TIMESTAMP", run.started_at)
    row = run_query(run.warehouse, "outdated_count", sql, [now])[0]
    state = work.made_plan.last_state
    known = (state.users, state.documents) if state else None
    if row.pop("outdated") or known != (row["users"], row["documents"]):
        return False  # the state must record the current counts
    work.idle = row
    return True


def _project(work: SessionsWork, events: sources.Source, snapshot: Parameter) -> None:
    """Fill `projected` with every row the run needs, and `touched` with the sessions to build."""
    run, plan = work.run, work.made_plan
    projected = run.warehouse.staging("projected").sql
    quarantined = run.table("quarantined_sessions")
    budget = budget_of(run.request, plan, events, run.settings)
    project = _Projector(work=work, source=events, snapshot=snapshot, budget=budget)
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
    if warning := unpruned_warning(events, budget, total=project.size):
        run.warnings.append(warning)
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
    budget: Budget
    size: int = 0  # bytes that BigQuery said it would read, in all statements

    def __call__(self, days: Iterable[date], *, sessions: str | None = None) -> None:
        """Read these days: whole, or only the rows of the sessions in a table of ids.

        Raises BudgetError before a statement that would read more than the run may.
        """
        run, metric_table = self.work.run, self.work.metric_table
        days = tuple(days)
        if days:
            self._check_size(days, sessions)
        if "projected" not in run.staged and not days:
            # A SELECT of no day reads all of a table that is not partitioned.
            run.stage_empty("projected", projected_schema(metric_table))
        elif days:
            with etl.blaming_views(self.source):
                self._read(self._sql(self.source, days, sessions))

    def _read(self, select: str) -> None:
        run = self.work.run
        if "projected" not in run.staged:
            run.stage(
                "projected", select, self._parameters,
                layout="CLUSTER BY session_id", refused_as=SourceError,
            )  # fmt: skip
            return
        columns = ", ".join(projection.projected_columns(self.work.metric_table))
        insert = f"INSERT INTO {run.warehouse.staging('projected').sql} ({columns})\n{select}"
        run_query(run.warehouse, "projected", insert, self._parameters)

    def _check_size(self, days: Sequence[date], sessions: str | None) -> None:
        run = self.work.run

        def estimate(source: sources.Source) -> int:
            with etl.blaming_views(source), classified("projected", SourceError):
                return dry_run(run.warehouse, self._sql(source, days, sessions), self._parameters)

        self.source, size = _read_past(self.work, self.source, estimate)
        _announce(self.work, self.source, self.budget, size)
        self.size += size
        self.budget.check(self.source.shape.table, query=size, total=self.size)

    def _sql(self, source: sources.Source, days: Iterable[date], sessions: str | None) -> str:
        conditions, _ = etl.exclusions(self.work.run.settings)
        return projection.project_sql(
            self.work.metric_table,
            source,
            planning.ranges_sql(source, days),
            exclusions=conditions,
            sessions=sessions,
            split_ids=self._split_ids,
        )

    @property
    def _split_ids(self) -> str | None:
        """The ids known to be split; a full load examines each id again."""
        return None if self.work.made_plan.is_full_load else self.work.run.table("split_ids")

    @property
    def _parameters(self) -> list[Parameter]:
        return [self.snapshot, *etl.exclusions(self.work.run.settings)[1]]


def _announce(work: SessionsWork, source: sources.Source, budget: Budget, size: int) -> None:
    """Say once what is about to be read: in a dry run, and where the metrics changed."""
    run, plan = work.run, work.made_plan
    if work.announcement or not (run.request.dry_run or plan.has_other_metrics):
        return
    work.announcement = announcement(
        plan, work.changes, table=source.shape.table, budget=budget, size=size
    )
    LOG.log(NOTICE, "%s", work.announcement)


def _project_latest(work: SessionsWork, project: _Projector) -> tuple[date, ...]:
    """Read changed days from the newest back, until they hold enough sessions for the limit."""
    run, plan = work.run, work.made_plan
    if not plan.days:
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

    Outdated stored sessions are found in parallel. If the days surely fit into one batch,
    nothing waits for the count.
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
            if warning := planning.large_batch_warning(touched, max_batch_events=limit):
                work.run.warnings.append(warning)
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
    """Judge the touched sessions and cut them into batches; find which columns have values."""
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
