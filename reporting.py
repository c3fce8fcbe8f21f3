"""What a run shows while it works, and when it is done: progress, log lines, the report."""

from __future__ import annotations

import json
import logging
import threading
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Protocol, TextIO

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pipeline.runs import RunReport

LOG = logging.getLogger("posthog_etl")

# Of the thread at work: one that it starts takes them along by contextvars.copy_context().
_FIELDS: Final[ContextVar[Mapping[str, object]]] = ContextVar(
    "log_fields", default=MappingProxyType({})
)


@contextmanager
def log_fields(fields: Mapping[str, object]) -> Iterator[None]:
    """Every log line that is written within carries these fields, too."""
    token = _FIELDS.set({**_FIELDS.get(), **fields})
    try:
        yield
    finally:
        _FIELDS.reset(token)


class Progress(Protocol):
    """Somebody who is told how a run goes."""

    def step(self, name: str) -> None:
        """A step begins."""

    def batch(self, done: int, total: int, events: int) -> None:
        """So many batches of `total` are aggregated, of `events` events together."""

    def close(self) -> None:
        """The run is over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunInProgress:
    """How far a run of this process has come; None where it has no step or batch yet."""

    run_id: str
    job: str
    started_at: datetime
    step: str | None = None
    batch: int | None = None
    batches: int | None = None
    events: int | None = None
    """Aggregated so far."""

    def to_json(self, now: datetime) -> dict[str, object]:
        """Every field and the seconds so far, JSON-ready."""
        return {
            "run_id": self.run_id,
            "job": self.job,
            "started_at": self.started_at.astimezone(UTC).isoformat(),
            "seconds": (now - self.started_at).total_seconds(),
            "step": self.step,
            "batch": self.batch,
            "batches": self.batches,
            "events": self.events,
        }


class RunsInProgress:
    """The runs of this process, as any thread may ask for them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._runs: dict[str, RunInProgress] = {}

    def put(self, run: RunInProgress) -> None:
        """Add a run, or say how far it has come since."""
        with self._lock:
            self._runs[run.run_id] = run

    def remove(self, run_id: str) -> None:
        """It is over."""
        with self._lock:
            self._runs.pop(run_id, None)

    def all(self) -> list[RunInProgress]:
        """Those that are not over, by their start."""
        with self._lock:
            return sorted(self._runs.values(), key=lambda run: (run.started_at, run.run_id))


IN_PROGRESS: Final = RunsInProgress()
"""What `LogProgress` is told, of every run of this process."""


class LogProgress:
    """Progress as log lines and in IN_PROGRESS: in the service, and where no terminal is."""

    def __init__(self, run: RunInProgress) -> None:
        self._run = run
        IN_PROGRESS.put(run)

    def step(self, name: str) -> None:
        """Log the step."""
        self._tell(f"step {name}", step=name)

    def batch(self, done: int, total: int, events: int) -> None:
        """Log the batch."""
        message = f"batch {done} of {total}, {events} events"
        self._tell(message, batch=done, batches=total, events=events)

    def close(self) -> None:
        """Forget the run."""
        IN_PROGRESS.remove(self._run.run_id)

    def _tell(self, message: str, **changed: Any) -> None:  # noqa: ANN401 - fields of the record
        self._run = replace(self._run, **changed)
        IN_PROGRESS.put(self._run)
        LOG.info("%s", message, extra={"fields": {"run_id": self._run.run_id, **changed}})


class TerminalProgress:
    """Progress bars on a terminal: one for the steps, one for the batches."""

    def __init__(self, steps: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as Bars

        self._bars = Bars(
            TextColumn("{task.description:<24}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        self._steps = self._bars.add_task("starting", total=steps)
        self._batches = self._bars.add_task("batches", total=None, visible=False)
        self._bars.start()

    def step(self, name: str) -> None:
        """Move the first bar on."""
        self._bars.update(self._steps, description=name, advance=1)

    def batch(self, done: int, total: int, events: int) -> None:
        """Move the second bar on."""
        text = f"{events:,} events"
        self._bars.update(
            self._batches, completed=done, total=total, description=text, visible=True
        )

    def close(self) -> None:
        """Take the bars away."""
        self._bars.stop()


class JsonFormatter(logging.Formatter):
    """One JSON object a line, with the fields that Cloud Logging knows, and some of every line."""

    def __init__(self, fields: Mapping[str, object] = MappingProxyType({})) -> None:
        super().__init__()
        self._fields = dict(fields)

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        line = {
            "severity": record.levelname,
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "message": record.getMessage(),
            "logger": record.name,
            **self._fields,
            **_FIELDS.get(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def configure_logging(
    stream: TextIO, *, as_json: bool, fields: Mapping[str, object] = MappingProxyType({})
) -> None:
    """Send log lines to the stream: as JSON, or warnings and worse as text for a person.

    `fields` are in every line of JSON. People aren't told of events: the report says the same.
    """
    handler = logging.StreamHandler(stream)
    text = logging.Formatter("%(levelname)s: %(message)s")
    handler.setFormatter(JsonFormatter(fields) if as_json else text)
    if not as_json:
        handler.addFilter(lambda record: "event" not in getattr(record, "fields", {}))
    LOG.handlers[:] = [handler]
    LOG.setLevel(logging.INFO if as_json else logging.WARNING)
    LOG.propagate = False


# What the line that ends a run carries of its report.
_OF_THE_REPORT: Final = (
    "status",
    "run_id",
    "job",
    "kind",
    "engine",
    "dry_run",
    "seconds",
    "error",
    "newest_event_at",
    "warnings",
    "sessions",
    "bytes_processed",
    "cost_usd",
    "version",
)


def log_run_finished(report: RunReport, *, error_type: str | None = None) -> None:
    """The one line that says how a run ended: alerts and queries filter on its fields.

    `error_type`: the class of what ended it, where it did not succeed.
    """
    shown = report.to_json()
    fields = {name: shown[name] for name in _OF_THE_REPORT}
    fields |= {"error_type": error_type, "is_stale": report.is_stale, "rows": shown["counts"]}
    level = logging.WARNING if report.warnings else logging.INFO
    if report.status not in {"succeeded", "duplicate"}:
        level = logging.ERROR
    seconds = f" in {report.seconds:.0f} s" if report.seconds is not None else ""
    error = f": {report.error}" if report.error else ""
    _log_run_finished(level, f"run {report.status}{seconds}{error}", fields)


def log_run_not_begun(job: str, error: Exception, sentence: str) -> None:
    """The same line for a run that failed before it had an id: its credentials, say."""
    fields = dict.fromkeys((*_OF_THE_REPORT, "error_type", "is_stale", "rows"))
    told = {"status": "failed", "job": job, "error": sentence, "error_type": type(error).__name__}
    _log_run_finished(logging.ERROR, f"run failed: {sentence}", fields | told)


def _log_run_finished(level: int, message: str, fields: Mapping[str, object]) -> None:
    LOG.log(level, "%s", message, extra={"fields": {"event": "run_finished", **fields}})


def report_text(report: RunReport, *, width: int = 88) -> str:
    """The report for people: what was asked, a sum of rows that closes, sessions, and seconds."""
    from io import StringIO

    from rich.console import Console
    from rich.table import Table

    text = StringIO()
    console = Console(file=text, width=width, highlight=False)
    what = str(report.kind).replace("_", " ") + (
        f", because {report.reason}" if report.reason else ""
    )
    published = ", dry run: nothing published" if report.dry_run else ""
    seconds = f" in {report.seconds:.0f} s" if report.seconds is not None else ""
    console.print(f"\n{report.status}{seconds}: {what}{published}\nrun {report.run_id}\n")

    rows = Table("source rows", "", title=None, box=None, pad_edge=False)
    rows.columns[1].justify = "right"
    for account, count in sorted(report.counts.items(), key=lambda item: (-item[1], item[0])):
        rows.add_row(account.replace("_", " "), f"{count:,}")
    rows.add_row("= rows read or counted", f"{sum(report.counts.values()):,}")
    sessions = Table("sessions", "", box=None, pad_edge=False)
    sessions.columns[1].justify = "right"
    for name, count in report.sessions.items():
        sessions.add_row(name, f"{count:,}")
    steps = Table("step", "seconds", box=None, pad_edge=False)
    steps.columns[1].justify = "right"
    for step in report.steps:
        steps.add_row(step.name, f"{step.seconds:.1f}")
    side_by_side = Table.grid(padding=(0, 6))
    side_by_side.add_row(rows, sessions, steps)
    console.print(side_by_side)

    newest = f"{report.newest_event_at:%Y-%m-%d %H:%M} UTC" if report.newest_event_at else "none"
    console.print(
        f"\n{report.changed_days} changed days, {report.read_days} read; newest event {newest}\n"
        f"{report.bytes_processed / 1e6:,.0f} MB billed, {report.cost_usd:.4f} USD; "
        f"{report.peak_memory_bytes / 2**20:,.0f} MiB of memory at most"
    )
    for warning in report.warnings:
        console.print(f"warning: {warning}")
    return text.getvalue().rstrip("\n")
