"""Is everything fine? Each job's last run and freshness, in words. Asks the ledger alone."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Literal

from runs.progress import IN_PROGRESS
from service import inspection
from service.console import formats

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from service.console.site import Site

_RUNS: Final = 40  # several jobs write to the ledger
_VERIFY: Final = "verify"

type Level = Literal["good", "warn", "bad", "new"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """One sentence, and what it rests on."""

    level: Level
    headline: str
    details: tuple[str, ...]
    warnings: tuple[str, ...]
    """Of the last run that succeeded: each a sentence with its remedy."""
    last_run_id: str | None
    newest_event_at: datetime | None
    last_success_at: datetime | None


def read_summary(site: Site, now: datetime) -> Summary:
    """What the ledger says of the sessions job."""
    with site.connect() as warehouse:
        runs = inspection.read_reports(warehouse, limit=_RUNS)
    return summarize(runs, now)


def summarize(runs: Sequence[Mapping[str, Any]], now: datetime) -> Summary:
    """The sentence for these runs, the newest first."""
    of_sessions = [run for run in runs if run["job"] == "sessions"]
    mine = [run for run in of_sessions if run["kind"] != _VERIFY]
    verified = next((run for run in of_sessions if run["kind"] == _VERIFY), None)
    ended = [run for run in mine if run["status"] != "running"]
    good = next((run for run in ended if run["status"] == "succeeded"), None)
    if good is None:
        return _nothing_yet(mine, ended)
    report = good["report"]
    newest = formats.parsed(report.get("newest_event_at"))
    warnings = tuple(report.get("warnings") or ())
    failed = ended[0]["status"] not in {"succeeded", "duplicate"}
    is_stale = newest is None or (now - newest).total_seconds() > 26 * 3600
    until = f"{formats.moment(newest)} UTC" if newest else "an unknown time"
    ended_at = formats.parsed(report.get("finished_at"))
    headline, level = _headline(until, failed=failed, is_stale=is_stale, warnings=len(warnings))
    details = [f"The last run succeeded {formats.ago(ended_at, now)}."]
    blamed = ended[0]
    if failed:
        details.insert(0, f"{blamed['error'] or 'It left no message.'}")
    elif verified is not None and verified["status"] == "failed":
        headline, level, blamed = "The last verification found wrong cells.", "bad", verified
        details.insert(0, str(verified["error"]))
    return Summary(
        level=level,
        headline=headline,
        details=tuple(details),
        warnings=warnings,
        last_run_id=blamed["run_id"],
        newest_event_at=newest,
        last_success_at=ended_at,
    )


def _headline(until: str, *, failed: bool, is_stale: bool, warnings: int) -> tuple[str, Level]:
    if failed:
        return f"The last run failed. What was published is complete until {until}.", "bad"
    if is_stale:
        return f"The newest event is of {until}: look at PostHog's export.", "warn"
    if warnings:
        several = "a warning" if warnings == 1 else f"{warnings} warnings"
        return f"Fresh until {until}, with {several}.", "warn"
    return f"Everything is fine. Fresh until {until}.", "good"


def _nothing_yet(mine: Sequence[Mapping[str, Any]], ended: Sequence[Mapping[str, Any]]) -> Summary:
    headline = "No run has succeeded yet."
    if IN_PROGRESS.all() or len(mine) > len(ended):
        headline = "The first run is in progress."
    error = (ended[0]["error"],) if ended and ended[0]["error"] else ()
    return Summary(
        level="bad" if error else "new",
        headline=headline,
        details=error,
        warnings=(),
        last_run_id=mine[0]["run_id"] if mine else None,
        newest_event_at=None,
        last_success_at=None,
    )


def now() -> datetime:
    """The time of a request."""
    return datetime.now(UTC)
