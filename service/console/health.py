"""The health page: what is ready, how fresh each job is, what the watch sees, what is kept out."""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from bigquery.destination import find_table, list_rows
from bigquery.parameters import scalar
from bigquery.retries import start
from jobs.registry import JOBS, find_job
from runs.errors import EtlError
from runs.report import RunReport
from service import inspection
from service.console import formats, signals, summary
from service.console.queries import NothingYetError
from service.console.responses import Cost, page
from sessions import watch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from flask.typing import ResponseReturnValue

    from bigquery.warehouse import Warehouse
    from service.console.queries import Answer
    from service.console.signals import Signal, Trend
    from service.console.site import Site
    from service.console.summary import Summary
    from service.readiness import Probe

type Row = Mapping[str, Any]

_RUNS: Final = 60
_VERIFICATIONS: Final = 8
_MOST_QUARANTINED: Final = 50
_OF_EVERY_JOB: Final = {"seconds", *(each.name for each in fields(RunReport))}
_ELSEWHERE: Final = {"metrics_version"}  # has a place of its own


@dataclass(frozen=True, slots=True, kw_only=True)
class JobState:
    """A job: how its last run ended, and how fresh it is."""

    name: str
    description: str
    status: str
    run_id: str | None
    success_at: datetime | None
    success_ago: str
    newest_event_at: datetime | None
    is_stale: bool
    warnings: tuple[str, ...]
    facts: tuple[tuple[str, str], ...]
    """The job's own numbers, of its last success."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """What the watch sees of the last whole day, or why it sees nothing."""

    day: datetime
    signals: tuple[Signal, ...] = ()
    problem: str = ""
    cost: Cost


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """A verification: so many stored sessions compared with the source."""

    run_id: str
    status: str
    ago: str
    sessions: int
    wrong_cells: int
    error: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """All that the page shows."""

    title: str = "Health"
    summary: Summary
    probes: tuple[Probe, ...]
    jobs: tuple[JobState, ...]
    watched: Watched
    reasons: tuple[Trend, ...]
    efforts: tuple[Trend, ...]
    verified: tuple[Verified, ...]
    metrics_version: str | None
    """What the stored rows are built by."""
    deployed_version: str
    """What the next run builds by; where it is another, it loads everything."""
    version_changes: tuple[tuple[datetime | None, str], ...]
    quarantined: tuple[Row, ...]
    """Pieces and sessions that are kept out."""
    split_ids: tuple[Row, ...]
    """Ids that are no session's, whose rows are sessions by person and day."""


def show(site: Site) -> ResponseReturnValue:
    """The page. It bills the reading of the ledger, and of 35 days for the watch."""
    now = datetime.now(UTC)
    found = _asked(site, now)
    reports = found["reports"]
    good = [
        run["report"]
        for run in reversed(reports)
        if run["job"] == "sessions" and run["status"] == "succeeded" and run["kind"] != "verify"
    ]
    view = Health(
        summary=summary.summarize(reports, now),
        probes=found["probes"],
        jobs=tuple(_job(each, reports, now) for each in found["jobs"]),
        watched=found["watched"],
        reasons=tuple(signals.reasons(good)),
        efforts=tuple(signals.efforts(good)),
        verified=tuple(_verified(each, now) for each in found["verified"]),
        metrics_version=found["state"][0]["metrics_version"] if found["state"] else None,
        deployed_version=site.metric_table.version(site.settings.exclusions),
        version_changes=tuple(signals.version_changes(good)),
        quarantined=found["quarantined"],
        split_ids=found["split_ids"],
    )
    return page("health.html", view)


def _asked(site: Site, now: datetime) -> dict[str, Any]:
    """All that is looked at, at once, by the name of what it fills."""
    with site.connect() as warehouse:
        calls: dict[str, Callable[[], Any]] = {
            "probes": site.readiness.probes,
            "reports": partial(inspection.read_reports, warehouse, limit=_RUNS),
            "jobs": partial(inspection.read_jobs, warehouse, now),
            "verified": partial(inspection.read_verifications, warehouse, limit=_VERIFICATIONS),
            "watched": partial(_watched, site, now),
            "quarantined": partial(_rows, warehouse, "quarantined_sessions"),
            "split_ids": partial(_rows, warehouse, "split_ids"),
            "state": partial(_rows, warehouse, "etl_state_sessions"),
        }
        pending = {name: start(each) for name, each in calls.items()}
        return {name: each.result() for name, each in pending.items()}


def _rows(warehouse: Warehouse, table: str) -> tuple[Row, ...]:
    """The first rows of a table, at no cost; none where it is not there yet."""
    return tuple((list_rows(warehouse, warehouse.table(table)) or [])[:_MOST_QUARANTINED])


def _watched(site: Site, now: datetime) -> Watched:
    """The last whole day beside those before, as the warnings of a run have it."""
    last = watch.last_day(now)
    day = datetime(last.year, last.month, last.day, tzinfo=UTC)
    try:
        if new := _not_stored(site):
            problem = f"The next run adds {', '.join(new)}: only then metrics are compared."
            return Watched(day=day, problem=problem, cost=Cost())
        answer = _ask_watch(site, now)
    except NothingYetError as error:
        return Watched(day=day, problem=str(error), cost=Cost())
    except EtlError as error:
        return Watched(day=day, problem=f"The sessions can't be counted: {error}", cost=Cost())
    names = watch.watched_names(site.metric_table)
    found = signals.signals(names, answer.rows, last)
    return Watched(day=day, signals=found, cost=Cost.of([answer]))


def _not_stored(site: Site) -> list[str]:
    site.queries.check()
    with site.connect() as warehouse:
        table = find_table(warehouse, warehouse.table("sessions"))
    stored = {column.name for column in table.schema} if table else set()
    return [metric.name for metric in site.metric_table.metrics if metric.name not in stored]


def _ask_watch(site: Site, now: datetime) -> Answer:
    last = watch.last_day(now)
    days = {"first_day": watch.first_day(last), "last_day": last}
    sql = watch.days_sql(site.metric_table, site.tables.sessions)
    return site.queries.ask("watch", sql, [scalar(name, "DATE", day) for name, day in days.items()])


def _verified(run: Row, now: datetime) -> Verified:
    counts = run["report"].get("counts") or {}
    return Verified(
        run_id=run["run_id"],
        status=run["status"],
        ago=formats.ago(run["finished_at"], now),
        sessions=counts.get("sessions", 0),
        wrong_cells=counts.get("wrong_cells", 0),
        error=run["error"],
    )


def _job(state: Row, reports: Sequence[Row], now: datetime) -> JobState:
    name = state["job"]
    mine = [run for run in reports if run["job"] == name and run["kind"] != "verify"]
    success = state["last_success"] or {}
    good: Row = next((run["report"] for run in mine if run["status"] == "succeeded"), {})
    success_at = formats.parsed(success.get("finished_at"))
    return JobState(
        name=name,
        description=find_job(name).description if name in JOBS else "",
        status=mine[0]["status"] if mine else "never run",
        run_id=mine[0]["run_id"] if mine else None,
        success_at=success_at,
        success_ago=formats.ago(success_at, now),
        newest_event_at=formats.parsed(state["newest_event_at"]),
        is_stale=bool(state["is_stale"]),
        # Those of sessions stand at the top of the page.
        warnings=() if name == "sessions" else tuple(good.get("warnings") or ()),
        facts=tuple(job_facts(good)),
    )


def job_facts(report: Row) -> Iterator[tuple[str, str]]:
    """What the report of a job has besides what every report has; zeros are left out."""
    counts = report.get("counts") if report.get("job", "sessions") != "sessions" else None
    own = {name: value for name, value in report.items() if name not in _OF_EVERY_JOB}
    for name, value in {**(counts or {}), **own}.items():
        if isinstance(value, dict):
            yield from _group_facts(value)
        elif value and name not in _ELSEWHERE:
            yield _said(name), _text(name, value)


def _group_facts(group: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, value in group.items():
        if isinstance(value, dict):
            inner = [f"{_text('', n)} {_said(key)}" for key, n in value.items() if _is_news(n)]
            yield _said(name), ", ".join(inner)
        elif _is_news(value):
            yield _said(name), _text(name, value)


def _is_news(value: object) -> bool:
    return isinstance(value, (int, float)) and bool(value)


def _said(name: str) -> str:
    return name.removesuffix("_usd").replace("_", " ")


def _text(name: str, value: Any) -> str:  # noqa: ANN401 - of a JSON report
    if name.endswith("_usd"):
        return formats.dollars(float(value))
    return formats.number(value) if isinstance(value, (int, float)) else str(value)
