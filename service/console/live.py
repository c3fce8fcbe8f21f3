"""The run in progress: how far it has come, or who else holds the lease."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from flask import request

from runs.errors import EtlError
from runs.progress import IN_PROGRESS
from service import inspection
from service.console import formats
from service.console.responses import page

if TYPE_CHECKING:
    from flask.typing import ResponseReturnValue

    from runs.progress import RunInProgress
    from service.console.site import Site


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """The lease, and the run that holds it: one of here, of another process, or one that died."""

    run_id: str
    expires_at: datetime | None
    seconds_left: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Live:
    """The runs of this process, and the lease where somebody holds it."""

    title: str = "Run in progress"
    runs: tuple[RunInProgress, ...]
    held: Held | None
    now: datetime

    def shows(self, run_id: str) -> bool:
        """Whether this run is in progress, here or elsewhere."""
        here = any(run.run_id == run_id for run in self.runs)
        return here or (self.held is not None and self.held.run_id == run_id)

    @property
    def is_held_elsewhere(self) -> bool:
        """Whether a run that is none of this process holds the lease."""
        return self.held is not None and self.held.run_id not in {run.run_id for run in self.runs}

    def seconds(self, run: RunInProgress) -> float:
        """How long a run has taken so far."""
        return (self.now - run.started_at).total_seconds()


def show(site: Site) -> ResponseReturnValue:
    """A part of a page: one line, or with `?more` everything known of the run in progress.

    The line asks nobody but this process. With `&run=`, the page that asks is loaded again once
    that run is over, since it has a report then.
    """
    is_long = "more" in request.args
    view = read_live(site, datetime.now(UTC), asks_lease=is_long)
    answer = page("live_more.html" if is_long else "live.html", view)
    watched = request.args.get("run")
    if watched and not view.shows(watched):
        answer.headers["HX-Refresh"] = "true"
    return answer


def read_live(site: Site, now: datetime, *, asks_lease: bool = True) -> Live:
    """What is in progress. Bills nothing. A lease that can't be read is none."""
    here = tuple(IN_PROGRESS.all())
    held = _held(site, now) if asks_lease else None
    return Live(runs=here, held=held, now=now)


def _held(site: Site, now: datetime) -> Held | None:
    try:
        with site.connect() as warehouse:
            holder: dict[str, Any] | None = inspection.lease_holder(warehouse)
    except EtlError:
        return None
    if holder is None:
        return None
    expires_at = formats.parsed(holder["expires_at"])
    left = (expires_at - now).total_seconds() if expires_at else 0.0
    return Held(run_id=str(holder["run_id"]), expires_at=expires_at, seconds_left=left)
