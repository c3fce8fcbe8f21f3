"""The health page: what is ready, how fresh each job is, what is kept out, and how that went."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from bigquery.destination import list_rows
from jobs.registry import JOBS, find_job
from service import inspection
from service.console import formats, news
from service.console.answers import page
from service.console.charts import Spark

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from flask.typing import ResponseReturnValue

    from service.console.news import News
    from service.console.site import Site
    from service.readiness import Probe

_RUNS: Final = 60
_MOST_QUARANTINED: Final = 50
_RUNS_THAT_COUNT: Final = {"full_load", "incremental"}


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
class Trend:
    """A number of the runs, the oldest first: a reason's share, say."""

    name: str
    now: str
    usual: str
    spark: Spark | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """All that the page shows."""

    title: str = "Health"
    news: News
    probes: tuple[Probe, ...]
    jobs: tuple[JobState, ...]
    reasons: tuple[Trend, ...]
    signals: tuple[Trend, ...]
    metrics_version: str | None
    version_changes: tuple[tuple[datetime | None, str], ...]
    """When rows began to be built by another metric table, the latest first."""
    quarantined: tuple[Mapping[str, Any], ...]
    """Pieces and sessions that are kept out."""
    split_ids: tuple[Mapping[str, Any], ...]
    """Ids that are no session's, whose rows are sessions by person and day."""


def show(site: Site) -> ResponseReturnValue:
    """The page. It bills only the reading of the ledger."""
    now = datetime.now(UTC)
    probes = site.readiness.probes()
    with site.connect() as warehouse:
        reports = inspection.read_reports(warehouse, limit=_RUNS)
        states = inspection.read_jobs(warehouse, now)
        quarantined = list_rows(warehouse, warehouse.table("quarantined_sessions")) or []
        split_ids = list_rows(warehouse, warehouse.table("split_ids")) or []
    good = [
        run["report"]
        for run in reversed(reports)
        if run["job"] == "sessions" and run["status"] == "succeeded"
    ]
    view = Health(
        news=news.tell(reports, now),
        probes=probes,
        jobs=tuple(_job(state, reports, now) for state in states),
        reasons=tuple(_reasons(good)),
        signals=tuple(_signals(good)),
        metrics_version=good[-1].get("metrics_version") if good else None,
        version_changes=tuple(_version_changes(good)),
        quarantined=tuple(quarantined[:_MOST_QUARANTINED]),
        split_ids=tuple(split_ids[:_MOST_QUARANTINED]),
    )
    return page("health.html", view)


def _job(state: Mapping[str, Any], reports: Sequence[Mapping[str, Any]], now: datetime) -> JobState:
    name = state["job"]
    mine = [run for run in reports if run["job"] == name]
    success = state["last_success"] or {}
    good: Mapping[str, Any] = next(
        (run["report"] for run in mine if run["status"] == "succeeded"), {}
    )
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
        warnings=tuple(good.get("warnings") or ()),
        facts=tuple(_facts(good)),
    )


def _facts(report: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for group, values in report.items():
        if group not in {"counts", "request"} and isinstance(values, dict):
            for name, value in values.items():
                if isinstance(value, (int, float)):
                    yield f"{name.replace('_', ' ')}", formats.number(value)


def _reasons(good: Sequence[Mapping[str, Any]]) -> Iterator[Trend]:
    """Each reason's share of a run's rows, in runs that read any."""
    counted = [each for each in good if sum((each.get("counts") or {}).values())]
    names = dict.fromkeys(name for each in counted for name in each["counts"])
    for name in names:
        shares = [each["counts"].get(name, 0) / sum(each["counts"].values()) for each in counted]
        yield Trend(
            name=name.replace("_", " "),
            now=formats.share(shares[-1]),
            usual=formats.share(sum(shares[:-1]) / len(shares[:-1]) if shares[:-1] else None),
            spark=Spark.of(shares),
        )


def _signals(good: Sequence[Mapping[str, Any]]) -> Iterator[Trend]:
    """What a run takes: its seconds, memory and bytes, of runs that load."""
    loads = [each for each in good if each.get("kind") in _RUNS_THAT_COUNT]
    written = (
        ("seconds", "duration", formats.duration),
        ("peak_memory_bytes", "memory at most", formats.size),
        ("bytes_processed", "billed", formats.size),
    )
    for field, name, write in written:
        values = [float(each.get(field) or 0) for each in loads]
        if values:
            before = values[:-1]
            usual = write(sum(before) / len(before)) if before else formats.NONE
            yield Trend(name=name, now=write(values[-1]), usual=usual, spark=Spark.of(values))


def _version_changes(
    good: Sequence[Mapping[str, Any]],
) -> Iterator[tuple[datetime | None, str]]:
    found = []
    known: str | None = None
    for report in good:
        version = report.get("metrics_version")
        if version and version != known:
            found.append((formats.parsed(report.get("started_at")), str(version)))
            known = version
    yield from reversed(found)
