"""What should hold of the tables of `claude_usage`: its part of `--check`. Changes nothing."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from apis import publication
from apis.tables import CLAUDE_TABLES
from bigquery.destination import find_table
from bigquery.jobs import run_query
from bigquery.parameters import scalar
from config.schedules import usual_age
from runs.checks import Check, check_last_run
from runs.errors import DestinationError
from runs.ledger_row import last_successes

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import date, datetime

    from bigquery.parameters import Parameter
    from bigquery.tables import TableId
    from bigquery.warehouse import Warehouse

NAME: Final = "claude_usage"
_MONTHS: Final = 3  # whose totals are shown
_LATE: Final = timedelta(days=2)  # Anthropic's figures are at times a day late


def check_claude_usage(warehouse: Warehouse, now: datetime) -> list[Check]:
    """The last run, the latest day of each table, the days without costs, the latest months.

    Raises DestinationError where there is no table yet.
    """
    tables = _tables(warehouse)
    yesterday = now.date() - timedelta(days=1)
    last = last_successes(warehouse).get(NAME, {})
    latest = _query(warehouse, "check_days", publication.latest_days_sql(tables))
    missing = _query(
        warehouse,
        "check_gaps",
        publication.missing_days_sql(tables["claude_costs"]),
        [scalar("yesterday", "DATE", yesterday)],
    )
    months = _query(
        warehouse, "check_totals", publication.monthly_totals_sql(tables["claude_costs"])
    )
    return [
        check_last_run(
            last.get("finished_at"), last.get("run_id"), now, job=NAME, fresh=usual_age(NAME)
        ),
        *(_check_latest(row, yesterday) for row in latest),
        _check_missing([row["day"] for row in missing]),
        *(_month(row) for row in months[:_MONTHS]),
    ]


def usage_table(warehouse: Warehouse, name: str) -> TableId:
    """A table of the job."""
    return warehouse.table(name, dataset=warehouse.settings.claude_dataset_id)


def _tables(warehouse: Warehouse) -> dict[str, str]:
    """Each table as it stands in SQL."""
    names = {name: usage_table(warehouse, name) for name in CLAUDE_TABLES}
    for table in names.values():
        if find_table(warehouse, table) is None:
            message = (
                f"Table {table} does not exist yet: run main.py --job {NAME}, without --check."
            )
            raise DestinationError(message)
    return {name: table.sql for name, table in names.items()}


def _query(
    warehouse: Warehouse, step: str, sql: str, parameters: Sequence[Parameter] = ()
) -> list[dict[str, Any]]:
    return run_query(warehouse, step, sql, parameters, refused_as=DestinationError)


def _check_latest(row: dict[str, Any], yesterday: date) -> Check:
    name, latest = row["table_name"], row["latest_day"]
    if latest is None:
        return Check(name=name, outcome="warning", message="It has no rows yet.")
    message = f"{row['row_count']} rows of {row['days']} days, the latest {latest}."
    is_late = yesterday - latest > _LATE
    return Check(name=name, outcome="warning" if is_late else "ok", message=message)


def _check_missing(days: Sequence[date]) -> Check:
    message = publication.missing_days_message(days)
    return Check(name="missing days", outcome="warning" if days else "ok", message=message)


def _month(row: dict[str, Any]) -> Check:
    message = f"{row['amount_usd']:,.2f} USD on {row['days']} days."
    return Check(name=f"{row['month']:%Y-%m}", outcome="ok", message=message)
