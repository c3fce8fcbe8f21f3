"""A run's page: what it did when, what became of every row, and how to do it again."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

from runs.ledger_sql import is_run_id
from runs.request import RunRequest
from service import inspection
from service.console import formats
from service.console.live import Live, read_live
from service.console.responses import page
from service.console.runs import kind_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from flask.typing import ResponseReturnValue

    from service.console.site import Site

_COLOURS: Final = 7
_DEFAULTS: Final = RunRequest().to_json()


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """A step, or a part of one, as it lies in the run's time; `x` and `width` in percent."""

    name: str
    seconds: float
    bytes: int
    x: float
    width: float
    is_part: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """How many source rows came to one end, and where it lies in the bar, in percent."""

    name: str
    rows: int
    share: float
    x: float
    width: float
    colour: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RunView:
    """All that the page shows."""

    title: str
    run_id: str
    job: str
    status: str
    kind: str
    reason: str | None
    trigger: str
    engine: str
    started_at: datetime | None
    finished_at: datetime | None
    seconds: float | None
    bytes_processed: int
    cost_usd: float
    peak_memory_bytes: int
    newest_event_at: datetime | None
    error: str | None
    warnings: tuple[str, ...]
    bars: tuple[Bar, ...]
    accounts: tuple[Account, ...]
    total_rows: int
    figures: tuple[tuple[str, tuple[tuple[str, object], ...]], ...]
    body: str
    command: str
    again: str | None
    """Where the same is started from; None: only by the command."""
    live: Live | None
    report: str


def show(site: Site, run_id: str) -> ResponseReturnValue:
    """The page of a run, 404 where there is none."""
    now = datetime.now(UTC)
    live = read_live(site, now)
    found, trigger = None, formats.NONE
    if is_run_id(run_id):
        with site.connect() as warehouse:
            found = inspection.read_run(warehouse, run_id)
            trigger = inspection.read_triggers(warehouse).get(run_id, trigger)
    is_live = live.shows(run_id)
    if found is None and not is_live:
        return page("missing.html", Missing(what=f"There is no run {run_id[:40]}."), status=404)
    view = view_of(run_id, found or {"status": "running"}, live if is_live else None, trigger)
    return page("run.html", view)


@dataclass(frozen=True, slots=True, kw_only=True)
class Missing:
    """What is not there."""

    title: str = "Not found"
    what: str


def view_of(
    run_id: str, report: Mapping[str, Any], live: Live | None, trigger: str = formats.NONE
) -> RunView:
    """The view of a report as the ledger keeps it."""
    asked = {
        name: value
        for name, value in (report.get("request") or {}).items()
        if value != _DEFAULTS.get(name)
    }
    run = {"kind": report.get("kind"), "report": report}
    counts = report.get("counts") or {}
    is_check = report.get("kind") == "verify"
    return RunView(
        title=f"Run {run_id}",
        run_id=run_id,
        job=report.get("job", "sessions"),
        status=report["status"],
        kind=kind_of(run) or formats.NONE,
        reason=report.get("reason"),
        trigger=trigger,
        engine=report.get("engine", formats.NONE),
        started_at=formats.parsed(report.get("started_at")),
        finished_at=formats.parsed(report.get("finished_at")),
        seconds=report.get("seconds"),
        bytes_processed=report.get("bytes_processed", 0),
        cost_usd=report.get("cost_usd", 0.0),
        peak_memory_bytes=report.get("peak_memory_bytes", 0),
        newest_event_at=formats.parsed(report.get("newest_event_at")),
        error=report.get("error"),
        warnings=tuple(report.get("warnings") or ()),
        bars=tuple(_bars(report.get("steps") or ())),
        accounts=tuple(_accounts(counts)) if not is_check else (),
        total_rows=sum(counts.values()),
        figures=tuple(_figures(report)),
        body=json.dumps(asked),
        command=_verification(counts) if is_check else _command(asked),
        again=None if is_check else _again(asked),
        live=live,
        report=json.dumps(report, indent=2),
    )


def _bars(steps: Any) -> Iterator[Bar]:  # noqa: ANN401 - of a JSON report
    """Steps follow each other; a step's parts begin with it, and run side by side."""
    total = sum(step["seconds"] for step in steps) or 1.0
    begun = 0.0
    for step in steps:
        yield _bar(step["name"], step["seconds"], begun, total, bytes_=step.get("bytes", 0))
        for name, seconds in (step.get("parts") or {}).items():
            yield _bar(name, seconds, begun, total, is_part=True)
        begun += step["seconds"]


def _bar(
    name: str, seconds: float, begun: float, total: float, *, bytes_: int = 0, is_part: bool = False
) -> Bar:
    x = 100 * begun / total
    return Bar(
        name=name,
        seconds=seconds,
        bytes=bytes_,
        x=round(x, 2),
        width=round(min(max(100 * seconds / total, 0.4), 100 - x), 2),
        is_part=is_part,
    )


def _accounts(counts: Mapping[str, int]) -> Iterator[Account]:
    """The most frequent first; together they are every row that was read or counted."""
    total = sum(counts.values())
    x = 0.0
    ordered = sorted(counts.items(), key=lambda each: (-each[1], each[0]))
    for place, (name, rows) in enumerate(each for each in ordered if each[1]):
        width = 100 * rows / total
        yield Account(
            name=name.replace("_", " "),
            rows=rows,
            share=rows / total,
            x=round(x, 3),
            width=round(width, 3),
            colour=min(place + 1, _COLOURS),
        )
        x += width


def _figures(report: Mapping[str, Any]) -> Iterator[tuple[str, tuple[tuple[str, object], ...]]]:
    """The job's own counts: every group of numbers that the report has besides those of rows."""
    for name, value in report.items():
        is_shown = name != "request" and (name != "counts" or report.get("kind") == "verify")
        if is_shown and isinstance(value, dict) and value:
            plain = tuple((key.replace("_", " "), each) for key, each in value.items())
            yield formats.words(name), plain


def _command(asked: Mapping[str, Any]) -> str:
    """The command line that asks for the same."""
    options = [".venv/bin/python", "main.py"]
    for name, value in asked.items():
        if name != "params":
            flag = f"--{name.replace('_', '-')}"
            options += [flag] if value is True else [flag, str(value)]
    return shlex.join(options)


def _verification(counts: Mapping[str, int]) -> str:
    """The command line that verifies as many sessions."""
    return f".venv/bin/python main.py --check --verify {counts.get('sessions', 1)}"


def _again(asked: Mapping[str, Any]) -> str:
    """The form of a new run, filled in with the same."""
    return f"/runs/new?{urlencode({name: v for name, v in asked.items() if name != 'params'})}"
