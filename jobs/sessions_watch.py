"""The watch over metrics, beside the last step of a run and in `--check`. Decides nothing itself.

What is compared with what is in `sessions/watch.py`.
"""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from typing import TYPE_CHECKING

from bigquery.jobs import run_query
from bigquery.parameters import scalar
from runs.checks import Check
from runs.errors import DestinationError
from runs.ledger_row import LEDGER_TABLE, query_ledger
from sessions import watch

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from datetime import datetime

    from bigquery.warehouse import Warehouse
    from jobs.sessions_work import SessionsWork
    from sessions.metric_table import MetricTable


@contextmanager
def watched(work: SessionsWork) -> Iterator[None]:
    """Beside what is done within, look at the metrics; then warn of what fell.

    Runs with dates or a limit leave the table incomplete, and are not judged.
    """
    if not work.made_plan.is_ordinary:
        yield
        return
    run = work.run
    with ThreadPoolExecutor(2) as pool:
        days = pool.submit(
            copy_context().run, _day_warnings, work.metric_table, run.warehouse, run.started_at
        )
        reasons = pool.submit(copy_context().run, _reason_warnings, work)
        yield
        run.warnings += [*days.result(), *reasons.result()]


def _day_warnings(metric_table: MetricTable, warehouse: Warehouse, now: datetime) -> list[str]:
    last = watch.last_day(now)
    sql = watch.days_sql(metric_table, warehouse.table("sessions").sql)
    parameters = [
        scalar("first_day", "DATE", watch.first_day(last)),
        scalar("last_day", "DATE", last),
    ]
    rows = run_query(warehouse, "watch_days", sql, parameters, refused_as=DestinationError)
    days = [watch.DayFigures(**row) for row in rows]
    return watch.day_warnings(watch.watched_names(metric_table), days, last)


def _reason_warnings(work: SessionsWork) -> list[str]:
    """Of an incremental run that changed something: others read nothing, or other days."""
    run = work.run
    if work.idle is not None or work.made_plan.kind != "incremental":
        return []
    sql = watch.reports_sql(run.table(LEDGER_TABLE))
    rows = query_ledger(run.warehouse, sql, run_id=run.warehouse.run_id)
    return watch.reason_warnings(run.counts, [json.loads(row["counts"]) for row in rows])


def check_watch(
    metric_table: MetricTable, warehouse: Warehouse, now: datetime, stored: Collection[str]
) -> Check:
    """What fell, as a check: the warnings that a run of today has.

    `stored`: the columns that `sessions` has; the next run adds those that are missing.
    """
    if new := [each.name for each in metric_table.metrics if each.name not in stored]:
        message = f"The next run adds {', '.join(new)}: only then metrics are compared."
        return Check(name="fallen metrics", outcome="warning", message=message)
    told = _day_warnings(metric_table, warehouse, now)
    message = " ".join(told) or "No metric fell against the four weeks before."
    return Check(name="fallen metrics", outcome="warning" if told else "ok", message=message)
