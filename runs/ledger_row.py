"""A run's row in the ledger `etl_runs`: inserted as running, updated at its end."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from bigquery.destination import ensure_table, find_table
from bigquery.jobs import run_query
from bigquery.parameters import scalar
from bigquery.refusals import classified
from bigquery.retries import start
from runs.errors import DestinationError
from runs.ledger_sql import failure_sql, last_successes_sql
from runs.tables import RUNS

if TYPE_CHECKING:
    from concurrent.futures import Future

    from bigquery.parameters import Parameter
    from bigquery.warehouse import Warehouse
    from runs.report import RunReport

LEDGER_TABLE: Final = "etl_runs"


def start_ledger(warehouse: Warehouse, report: RunReport) -> Future[None]:
    """Begin to write the run's row, as running; the run goes on meanwhile."""
    return start(lambda: _insert(warehouse, report))


def _insert(warehouse: Warehouse, report: RunReport) -> None:
    """Create the table if it is missing."""
    with classified("the run ledger", DestinationError):
        ensure_table(warehouse, warehouse.table(LEDGER_TABLE), RUNS)
    values = _values(report)
    sql = f"""INSERT INTO {warehouse.table(LEDGER_TABLE).sql} ({", ".join(values)})
VALUES ({", ".join(f"@{name}" for name in values)})"""
    run_query(warehouse, "ledger", sql, list(values.values()), refused_as=DestinationError)


def last_statement(warehouse: Warehouse, report: RunReport) -> tuple[str, list[Parameter]]:
    """The statement that updates the run's row with its outcome, and its parameters."""
    values = _values(report)
    changes = ", ".join(f"{name} = @{name}" for name in values if name != "run_id")
    sql = f"UPDATE {warehouse.table(LEDGER_TABLE).sql}\nSET {changes}\nWHERE run_id = @run_id"
    return sql, list(values.values())


def _values(report: RunReport) -> dict[str, Parameter]:
    texts = {
        "run_id": report.run_id,
        "job": report.job,
        "status": report.status,
        "kind": report.kind,
        "engine": report.engine,
        "error": report.error,
        "report": json.dumps(report.to_json()),
    }
    times = {"started_at": report.started_at, "finished_at": report.finished_at}
    return {
        **{name: scalar(name, "STRING", value) for name, value in texts.items()},
        **{name: scalar(name, "TIMESTAMP", value) for name, value in times.items()},
    }


def query_ledger(warehouse: Warehouse, sql: str, **parameters: str | None) -> list[dict[str, Any]]:
    """The rows of a query of the ledger, with these text parameters."""
    values = [scalar(name, "STRING", value) for name, value in parameters.items()]
    return run_query(warehouse, "ledger", sql, values, refused_as=DestinationError)


def find_failure(warehouse: Warehouse, run_id: str) -> str | None:
    """What ended a run, in a sentence; None if it succeeded or is not in the ledger."""
    table = warehouse.table(LEDGER_TABLE)
    if find_table(warehouse, table) is None:
        return None
    rows = query_ledger(warehouse, failure_sql(table.sql), run_id=run_id)
    return rows[0]["error"] or "it was a bug" if rows else None


def last_successes(warehouse: Warehouse) -> dict[str, dict[str, Any]]:
    """Each job's last run that brought everything up to date, by job."""
    table = warehouse.table(LEDGER_TABLE)
    if find_table(warehouse, table) is None:
        return {}
    return {row["job"]: row for row in query_ledger(warehouse, last_successes_sql(table.sql))}
