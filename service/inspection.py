"""What can be told without a run: the ledger, who holds the lease, the checks of what is there."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import etl_functions as etl
from bigquery.jobs import run_query
from bigquery.parameters import scalar
from bigquery.refusals import classified
from bigquery.retries import HTTP_SECONDS, ask, retry
from runs import ledger
from runs.errors import DestinationError
from runs.report import FRESH
from sessions import checks, sources
from sessions.metrics import metrics_version
from sessions.plan import Plan

if TYPE_CHECKING:
    from google.cloud import bigquery

    from bigquery.tables import TableId
    from bigquery.warehouse import Warehouse
    from runs.ledger import RunsRequest
    from sessions.checks import Check


def lease_holder(warehouse: Warehouse) -> dict[str, object] | None:
    """The run that holds the lease, wherever it runs; None where none does. Bills nothing."""
    name = warehouse.table(etl.LEASE_TABLE)
    table = _find(warehouse, name)
    if table is None:
        return None
    with classified(f"table {name}", DestinationError):
        # Rows are listed for nothing, where a query would be billed.
        rows = warehouse.clients.bigquery.list_rows(
            table, max_results=1, retry=retry(), timeout=HTTP_SECONDS
        )
        row = dict(next(iter(rows)).items())
    if row["run_id"] is None or row["expires_at"] < datetime.now(UTC):
        return None
    return _json_row({name: row[name] for name in ("run_id", "expires_at")})


def _find(warehouse: Warehouse, table: TableId) -> bigquery.Table | None:
    from google.api_core.exceptions import NotFound

    with classified(f"table {table}", DestinationError):
        try:
            return ask(warehouse, partial(warehouse.clients.bigquery.get_table, str(table)))
        except NotFound:
            return None


def _json_row(row: dict[str, Any]) -> dict[str, object]:
    return {
        name: value.astimezone(UTC).isoformat() if isinstance(value, datetime) else value
        for name, value in row.items()
    }


def read_runs(warehouse: Warehouse, page: RunsRequest) -> list[dict[str, object]]:
    """A page of the ledger, the newest run first; empty before the first run."""
    tables = _ledger(warehouse)
    if tables is None:
        return []
    sql = ledger.runs_sql(*tables, limit=page.limit)
    rows = _ask_ledger(warehouse, sql, before=page.before)
    return [_json_row(row) for row in rows]


def read_run(warehouse: Warehouse, run_id: str) -> dict[str, object] | None:
    """A run's report as the ledger has it; None where it has none."""
    tables = _ledger(warehouse)
    if tables is None:
        return None
    rows = _ask_ledger(warehouse, ledger.run_sql(*tables), run_id=run_id)
    return {**json.loads(rows[0]["report"]), "status": rows[0]["status"]} if rows else None


def read_jobs(warehouse: Warehouse, now: datetime) -> list[dict[str, object]]:
    """Each job, with its last run that brought everything up to date and how fresh its data are."""
    last = _last_successes(warehouse)
    return [_freshness(job, last.get(job), now) for job in (etl.JOB,)]


def _freshness(job: str, last: dict[str, Any] | None, now: datetime) -> dict[str, object]:
    if last is None:
        return {"job": job, "last_success": None, "newest_event_at": None, "age_hours": None} | {
            "is_stale": True
        }
    newest_at = last["newest_event_at"]
    age = now - newest_at if newest_at else None
    success = {name: last[name] for name in ("run_id", "kind", "finished_at")}
    return {
        "job": job,
        "last_success": _json_row(success),
        **_json_row({"newest_event_at": newest_at}),
        "age_hours": round(age.total_seconds() / 3600, 2) if age else None,
        "is_stale": age is None or not -FRESH <= age <= FRESH,
    }


def _last_successes(warehouse: Warehouse) -> dict[str, dict[str, Any]]:
    """By job."""
    tables = _ledger(warehouse)
    rows = _ask_ledger(warehouse, ledger.last_successes_sql(tables[0])) if tables else []
    return {row["job"]: row for row in rows}


def _ledger(warehouse: Warehouse) -> tuple[str, str] | None:
    """The ledger and the lease as they stand in SQL; None before the first run."""
    runs = warehouse.table("etl_runs")
    if _find(warehouse, runs) is None:
        return None
    return runs.sql, warehouse.table(etl.LEASE_TABLE).sql


def _ask_ledger(warehouse: Warehouse, sql: str, **parameters: str | None) -> list[dict[str, Any]]:
    values = [scalar(name, "STRING", value) for name, value in parameters.items()]
    return run_query(warehouse, "ledger", sql, values, blame=DestinationError)


def check_load(warehouse: Warehouse, now: datetime) -> list[Check]:
    """Everything that should hold of the sessions that are there.

    Raises DestinationError where there are none yet, SourceError where the source can't be read.
    """
    table = warehouse.table("sessions")
    found = _find(warehouse, table)
    if found is None:
        message = f"Table {table} does not exist yet: run main.py once, without --check."
        raise DestinationError(message)
    sql = checks.figures_sql(table.sql)
    row = run_query(warehouse, "check_figures", sql, blame=DestinationError)[0]
    figures = checks.Figures(**row)
    last = _last_successes(warehouse).get(etl.JOB, {})
    return [
        checks.Check(
            name="destination", outcome="ok", message=f"{figures.sessions} sessions in {table}."
        ),
        checks.check_last_run(last.get("finished_at"), last.get("run_id"), now),
        *_check_source(warehouse, table, now),
        *checks.check_figures(figures),
        checks.check_state(
            etl.read_state(warehouse),
            sessions_created_at=found.created,
            metrics_version=metrics_version(warehouse.settings.exclusions),
        ),
    ]


def _check_source(warehouse: Warehouse, sessions: TableId, now: datetime) -> list[Check]:
    """The newest event, and the source's days against those of the sessions."""
    events = warehouse.source(warehouse.settings.posthog_dataset_id, "events")
    source = sources.resolve(etl.read_shape(warehouse, events), sources.EVENTS)
    counts = etl.read_day_counts(warehouse, source)
    known = Plan(kind="incremental", reason=None, days=(), counts=counts)
    newest_at, _ = etl.read_times(warehouse, source, known, now)
    sql = checks.loaded_days_sql(sessions.sql)
    loaded = run_query(warehouse, "check_days", sql, blame=DestinationError)
    return [
        checks.check_newest_event(newest_at, now),
        checks.check_days(known.known_days, {row["day"] for row in loaded}, now),
    ]
