"""What should hold of Redis and the watermarks of `tmdb_changes`: its part of `--check`."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from apis import publication
from apis.redis_documents import RedisDocuments
from apis.tmdb import KINDS
from bigquery.destination import find_table
from bigquery.jobs import run_query
from config.schedules import usual_age
from jobs.tmdb_changes_setup import NAME, STATE_TABLE, redis_server
from runs.checks import Check, check_last_run
from runs.errors import DestinationError
from runs.ledger_row import last_successes

if TYPE_CHECKING:
    from datetime import date, datetime

    from bigquery.warehouse import Warehouse

_LATE: Final = timedelta(days=1)  # behind yesterday: one night was missed


def check_redis(warehouse: Warehouse) -> None:
    """Raise what would keep documents out of Redis."""
    with RedisDocuments(redis_server(warehouse.settings), check=warehouse.check) as documents:
        documents.check_ready()


def check_tmdb_changes(warehouse: Warehouse, now: datetime) -> list[Check]:
    """Whether Redis takes documents, the last run, and how far each kind is.

    Raises DestinationError where no run has been yet, UnavailableError where there is no Redis.
    """
    state = warehouse.table(STATE_TABLE)
    if find_table(warehouse, state) is None:
        message = f"Table {state} does not exist yet: run main.py --job {NAME}, without --check."
        raise DestinationError(message)
    check_redis(warehouse)
    sql = publication.watermarks_sql(state.sql)
    rows: list[dict[str, Any]] = run_query(
        warehouse, "check_watermarks", sql, refused_as=DestinationError
    )
    watermarks = {row["kind"]: row["watermark"] for row in rows}
    last = last_successes(warehouse).get(NAME, {})
    yesterday = now.date() - timedelta(days=1)
    return [
        Check(name="destination", outcome="ok", message="Redis takes documents."),
        check_last_run(
            last.get("finished_at"), last.get("run_id"), now, job=NAME, fresh=usual_age(NAME)
        ),
        *(_check_watermark(kind, watermarks.get(kind), yesterday) for kind in KINDS),
    ]


def _check_watermark(kind: str, watermark: date | None, yesterday: date) -> Check:
    if watermark is None:
        return Check(name=kind, outcome="warning", message="No day is done yet.")
    if yesterday - watermark > _LATE:
        message = f"Done up to {watermark}: did the runs since then fail?"
        return Check(name=kind, outcome="warning", message=message)
    return Check(name=kind, outcome="ok", message=f"Done up to {watermark}.")
