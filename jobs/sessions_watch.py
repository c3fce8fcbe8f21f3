"""The watch over metrics, in the last step of a run and in `--check`. Decides nothing itself.

What is compared with what is in `sessions/watch.py`.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from bigquery.jobs import run_query
from bigquery.parameters import scalar
from runs.checks import Check
from runs.errors import DestinationError
from runs.ledger_row import LEDGER_TABLE, query_ledger
from sessions import watch

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping
    from datetime import datetime

    from bigquery.parameters import Parameter
    from bigquery.warehouse import Warehouse
    from jobs.sessions_work import SessionsWork
    from sessions.metric_types import MetricTable


def days_to_watch(work: SessionsWork) -> tuple[str | None, list[Parameter]]:
    """A SELECT of the days that are compared, as structs, and its parameters; none for some runs.

    Those with dates or a limit leave the table incomplete, and are not judged.
    """
    if not work.made_plan.is_ordinary:
        return None, []
    sql = watch.days_sql(work.metric_table, work.run.table("sessions"), as_struct=True)
    return sql, _parameters(work.run.started_at)


def fallen_metrics(work: SessionsWork, rows: Iterable[Mapping[str, Any]] | None) -> list[str]:
    """What fell, by the rows of `days_to_watch`; nothing where there are none."""
    return [] if rows is None else _compared(work.metric_table, rows, work.run.started_at)


def tripled_reasons(work: SessionsWork) -> list[str]:
    """Of an ordinary incremental run that changed something: others read nothing, or other days."""
    run, plan = work.run, work.made_plan
    if work.idle is not None or plan.kind != "incremental" or not plan.is_ordinary:
        return []
    sql = watch.reports_sql(run.table(LEDGER_TABLE))
    rows = query_ledger(run.warehouse, sql, run_id=run.warehouse.run_id)
    return watch.reason_warnings(run.counts, [json.loads(row["counts"]) for row in rows])


def _parameters(now: datetime) -> list[Parameter]:
    last = watch.last_day(now)
    return [
        scalar("first_day", "DATE", watch.first_day(last)),
        scalar("last_day", "DATE", last),
    ]


def _compared(
    metric_table: MetricTable, rows: Iterable[Mapping[str, Any]], now: datetime
) -> list[str]:
    days = [watch.DayFigures(**row) for row in rows]
    return watch.day_warnings(watch.watched_names(metric_table), days, watch.last_day(now))


def check_reasons(warehouse: Warehouse) -> Check:
    """What tripled in the last incremental run, as a check: the warnings that this run had."""
    ledger = warehouse.table(LEDGER_TABLE).sql
    sql = watch.reports_sql(ledger, runs=watch.KNOWN_RUNS + 1)
    rows = query_ledger(warehouse, sql, run_id="~")  # which stands after every id
    counts = [json.loads(row["counts"]) for row in rows]
    warnings = watch.reason_warnings(counts[0], counts[1:]) if counts else []
    message = " ".join(warnings) or "No reason tripled in the last incremental run."
    return Check(name="rows set aside", outcome="warning" if warnings else "ok", message=message)


def check_watch(
    metric_table: MetricTable, warehouse: Warehouse, now: datetime, stored: Collection[str]
) -> Check:
    """The warnings of a run of today about metrics, as a check.

    `stored`: the columns that `sessions` has; the next run adds those that are missing.
    """
    if new := [each.name for each in metric_table.metrics if each.name not in stored]:
        message = f"The next run adds {', '.join(new)}: only then metrics are compared."
        return Check(name="fallen metrics", outcome="warning", message=message)
    sql = watch.days_sql(metric_table, warehouse.table("sessions").sql)
    rows = run_query(warehouse, "watch_days", sql, _parameters(now), refused_as=DestinationError)
    warnings = _compared(metric_table, rows, now)
    message = " ".join(warnings) or "No metric fell against the four weeks before."
    return Check(name="fallen metrics", outcome="warning" if warnings else "ok", message=message)
