"""The list of runs: how each ended, how long it took, what it brought and cost."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from flask import request

from jobs.registry import JOBS
from runs.ledger_sql import is_run_id
from service import inspection
from service.console import formats
from service.console.charts import Spark
from service.console.live import Live, read_live
from service.console.responses import page

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from flask.typing import ResponseReturnValue

    from service.console.site import Site

_PAGE: Final = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A run in the list."""

    run_id: str
    job: str
    status: str
    kind: str
    trigger: str
    started_at: datetime | None
    seconds: float | None
    sessions: int | None
    rows: int | None
    bytes_processed: int | None
    cost_usd: float | None
    warnings: int
    error: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A number of the last run, and how it went over those before."""

    title: str
    text: str
    spark: Spark | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Runs:
    """All that the page shows."""

    title: str = "Runs"
    rows: tuple[Row, ...]
    figures: tuple[Figure, ...]
    next: str | None
    live: Live
    jobs: tuple[str, ...]


def show(site: Site) -> ResponseReturnValue:
    """The page; `?before=` a run's id is the next one."""
    before = request.args.get("before")
    before = before if before is not None and is_run_id(before) else None
    now = datetime.now(UTC)
    with site.connect() as warehouse:
        reports = inspection.read_reports(warehouse, limit=_PAGE, before=before)
        triggers = inspection.read_triggers(warehouse)
    rows = tuple(_row(each, triggers) for each in reports)
    view = Runs(
        rows=rows,
        figures=_figures(rows),
        next=f"/runs?before={rows[-1].run_id}" if len(rows) == _PAGE else None,
        live=read_live(site, now),
        jobs=tuple(JOBS),
    )
    return page("runs.html", view)


def _row(run: Mapping[str, Any], triggers: Mapping[str, str]) -> Row:
    report = run["report"]
    counts = report.get("counts") or {}
    is_check = run["kind"] == "verify"
    return Row(
        run_id=run["run_id"],
        job=run["job"],
        status=run["status"],
        kind=kind_of(run),
        trigger=triggers.get(run["run_id"], formats.NONE),
        started_at=run["started_at"],
        seconds=report.get("seconds"),
        sessions=counts.get("sessions") if is_check else _staged(report),
        rows=sum(counts.values()) if counts and not is_check else None,
        bytes_processed=report.get("bytes_processed"),
        cost_usd=report.get("cost_usd"),
        warnings=len(report.get("warnings") or ()),
        error=run["error"],
    )


def _staged(report: Mapping[str, Any]) -> int | None:
    return (report.get("sessions") or {}).get("staged")


def kind_of(run: Mapping[str, Any]) -> str:
    """What kind of run it was, in words."""
    kind = (run["kind"] or "").replace("_", " ")
    return ", ".join(filter(None, (kind, "dry run" if run["report"].get("dry_run") else "")))


def _figures(rows: Sequence[Row]) -> tuple[Figure, ...]:
    """Of the runs that succeeded, the oldest first."""
    good = [
        row
        for row in reversed(rows)
        if row.status == "succeeded" and row.job == "sessions" and row.kind != "verify"
    ]
    if not good:
        return ()
    last = good[-1]
    return (
        Figure(
            title="Duration",
            text=formats.duration(last.seconds),
            spark=Spark.of([row.seconds for row in good]),
        ),
        Figure(
            title="Sessions written",
            text=formats.number(last.sessions),
            spark=Spark.of([row.sessions for row in good]),
        ),
        Figure(
            title="Source rows",
            text=formats.number(last.rows),
            spark=Spark.of([row.rows for row in good]),
        ),
        Figure(
            title="Cost",
            text=formats.dollars(last.cost_usd),
            spark=Spark.of([row.cost_usd for row in good]),
        ),
    )
