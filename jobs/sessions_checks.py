"""What should hold of the sessions that are there: the job's part of `--check`. Changes nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import etl_functions as etl
from bigquery.destination import find_table
from bigquery.jobs import run_query
from jobs.sessions_watch import check_reasons, check_watch
from runs.checks import Check, check_last_run
from runs.errors import DestinationError
from runs.ledger_row import last_successes
from sessions import checks, sources
from sessions.plan import Plan
from sessions.tables import undeclared_warnings

if TYPE_CHECKING:
    from datetime import datetime

    from bigquery.tables import TableId
    from bigquery.warehouse import Warehouse
    from sessions.metric_types import MetricTable


def check_sessions(metric_table: MetricTable, warehouse: Warehouse, now: datetime) -> list[Check]:
    """Everything that should hold of the sessions that are there.

    Raises SourceError where the source can't be read.
    """
    table = warehouse.table("sessions")
    found = find_table(warehouse, table)
    if found is None:
        message = f"Table {table} does not exist yet: run main.py once, without --check."
        return [Check(name="sessions", outcome="warning", message=message)]
    sql = checks.figures_sql(table.sql)
    row = run_query(warehouse, "check_figures", sql, refused_as=DestinationError)[0]
    figures = checks.Figures(**row)
    last = last_successes(warehouse).get("sessions", {})
    return [
        Check(name="sessions", outcome="ok", message=f"{figures.sessions} sessions in {table}."),
        check_last_run(last.get("finished_at"), last.get("run_id"), now),
        *_check_source(metric_table, warehouse, table, now),
        *checks.check_figures(figures),
        check_watch(metric_table, warehouse, now, {column.name for column in found.schema}),
        *([check_reasons(warehouse)] if last else []),
        _check_columns(metric_table, warehouse),
        checks.check_state(
            etl.read_state(warehouse),
            sessions_created_at=found.created,
            metrics_version=metric_table.version(warehouse.settings.exclusions),
        ),
    ]


def _check_columns(metric_table: MetricTable, warehouse: Warehouse) -> Check:
    """Whether the tables have columns that nothing declares any more."""
    warnings: list[str] = []
    for name in ("sessions", "persons"):
        table, schema = warehouse.table(name), etl.destination_tables(metric_table)[name]
        if found := find_table(warehouse, table):
            stored = [column.name for column in found.schema]
            warnings += undeclared_warnings(schema, table, stored)
    message = " ".join(warnings) or "Every column is declared."
    return Check(name="columns", outcome="warning" if warnings else "ok", message=message)


def _check_source(
    metric_table: MetricTable, warehouse: Warehouse, sessions: TableId, now: datetime
) -> list[Check]:
    """The newest event, and the source's days against those of the sessions."""
    source = etl.find_source(warehouse, sources.source_tables(warehouse.settings)["events"])
    counts = etl.read_day_counts(warehouse, source).counts
    known = Plan(kind="incremental", reason=None, days=(), counts=counts)
    newest_at = etl.read_newest_event_at(warehouse, metric_table, source, known, now)
    sql = checks.loaded_days_sql(sessions.sql)
    loaded = run_query(warehouse, "check_days", sql, refused_as=DestinationError)
    return [
        checks.check_newest_event(newest_at, now),
        checks.check_days(known.counted_days, {row["day"] for row in loaded}, now),
    ]
