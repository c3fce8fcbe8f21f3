"""What can be read without a run: the ledger, and who holds a lease. Changes nothing."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from bigquery.destination import find_table, list_rows
from config.schedules import read_schedules
from jobs.registry import JOBS, find_job
from runs import ledger_sql
from runs.lease_row import lease_table
from runs.ledger_row import LEDGER_TABLE, last_successes, query_ledger
from runs.report import FRESH

if TYPE_CHECKING:
    from bigquery.tables import TableId
    from bigquery.warehouse import Warehouse
    from config.schedules import Schedule
    from runs.ledger_sql import RunsRequest
    from runs.settings import Settings


def lease_holder(warehouse: Warehouse) -> dict[str, object] | None:
    """A run that holds its job's lease, wherever it runs; None where none does. Bills nothing."""
    held = (_holder(warehouse, lease_table(warehouse, job)) for job in JOBS)
    return next((holder for holder in held if holder), None)


def _holder(warehouse: Warehouse, name: TableId) -> dict[str, object] | None:
    for row in list_rows(warehouse, name) or ():  # free, where a query would be billed
        run_id, expires_at = row.get("run_id"), row.get("expires_at")
        if run_id is not None and expires_at is not None and expires_at >= datetime.now(UTC):
            return _json_row({"run_id": run_id, "expires_at": expires_at})
    return None


def read_triggers(warehouse: Warehouse) -> dict[str, str]:
    """The latest deliveries and executions that are settled, by the run that did it.

    Bills nothing, as listing rows is free.
    """
    rows = (list_rows(warehouse, lease_table(warehouse, job)) or () for job in JOBS)
    leases = (row for found in rows for row in found)
    return {each["run_id"]: each["trigger"] for lease in leases for each in lease["triggers"]}


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
    sql = ledger_sql.runs_sql(*tables, limit=page.limit)
    rows = query_ledger(warehouse, sql, before=page.before)
    return [_json_row(row) for row in rows]


def read_reports(
    warehouse: Warehouse, *, limit: int, before: str | None = None
) -> list[dict[str, Any]]:
    """Runs of the ledger with their reports and times as such, the newest run first."""
    tables = _ledger(warehouse)
    if tables is None:
        return []
    rows = query_ledger(warehouse, ledger_sql.reports_sql(*tables, limit=limit), before=before)
    return [{**row, "report": json.loads(row["report"])} for row in rows]


def read_verifications(warehouse: Warehouse, *, limit: int) -> list[dict[str, Any]]:
    """The last verifications of the ledger with their reports, the newest first."""
    tables = _ledger(warehouse)
    if tables is None:
        return []
    rows = query_ledger(warehouse, ledger_sql.verifications_sql(tables[0], limit=limit))
    return [{**row, "report": json.loads(row["report"])} for row in rows]


def read_run(warehouse: Warehouse, run_id: str) -> dict[str, object] | None:
    """A run's report from the ledger; None if the run is not there."""
    tables = _ledger(warehouse)
    if tables is None:
        return None
    rows = query_ledger(warehouse, ledger_sql.run_sql(*tables), run_id=run_id)
    return {**json.loads(rows[0]["report"]), "status": rows[0]["status"]} if rows else None


def read_jobs(warehouse: Warehouse, now: datetime) -> list[dict[str, object]]:
    """Each job, with its last run that brought everything up to date and how fresh its data are."""
    last = last_successes(warehouse)
    schedules = read_schedules()
    return [
        {
            **_freshness(job, last.get(job), now, schedules.get(job)),
            "schedule": schedules[job].to_json() if job in schedules else None,
        }
        for job in JOBS
    ]


def _freshness(
    job: str, last: dict[str, Any] | None, now: datetime, schedule: Schedule | None
) -> dict[str, object]:
    """Nobody misses a job that is not deployed and has never run."""
    if last is None:
        return {
            "job": job,
            "last_success": None,
            "newest_event_at": None,
            "age_hours": None,
            "is_stale": True if schedule is None or schedule.deployed else None,
        }
    fresh = timedelta(hours=schedule.stale_after_hours) if schedule else FRESH
    newest_at = last["newest_event_at"]
    # Only a job that reads events has a kind then; another is as fresh as its last success.
    fresh_at = newest_at if last["kind"] else last["finished_at"]
    age = now - fresh_at if fresh_at else None
    success = {name: last[name] for name in ("run_id", "kind", "finished_at")}
    return {
        "job": job,
        "last_success": _json_row(success),
        **_json_row({"newest_event_at": newest_at}),
        "age_hours": round(age.total_seconds() / 3600, 2) if age else None,
        "is_stale": age is None or not -FRESH <= age <= fresh,
    }


def describe_jobs(settings: Settings) -> dict[str, dict[str, object]]:
    """What each job is, takes and lacks, by name; and what it says of itself, like its rules."""
    jobs = {name: find_job(name) for name in JOBS}
    return {
        name: {
            "description": job.description,
            "options": sorted(job.options),
            "missing": job.missing(settings),
            **job.shown,
        }
        for name, job in jobs.items()
    }


def _ledger(warehouse: Warehouse) -> tuple[str, str] | None:
    """The ledger, and every job's lease, as they stand in SQL; None before the first run."""
    runs = warehouse.table(LEDGER_TABLE)
    if find_table(warehouse, runs) is None:
        return None
    names = [lease_table(warehouse, job) for job in JOBS]
    leases = [name.sql for name in names if find_table(warehouse, name)]
    return runs.sql, ledger_sql.leases_sql(leases)
