"""What every page shows before the first run: what to do."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from service.console.live import read_live
from service.console.responses import page
from service.console.summary import Summary, read_summary

if TYPE_CHECKING:
    from flask import Response

    from service.console.site import Site


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstRun:
    """All that the page shows."""

    title: str = "Welcome"
    summary: Summary
    is_running: bool


def show(site: Site) -> Response:
    """The page."""
    now = datetime.now(UTC)
    live = read_live(site, now)
    is_running = bool(live.runs) or live.held is not None
    return page("first_run.html", FirstRun(summary=read_summary(site, now), is_running=is_running))
