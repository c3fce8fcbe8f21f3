"""What a run shows while it works, and when it is done: progress, log lines, the report."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol, TextIO

if TYPE_CHECKING:
    from pipeline.runs import RunReport

LOG = logging.getLogger("posthog_etl")


class Progress(Protocol):
    """Somebody who is told how a run goes."""

    def step(self, name: str) -> None:
        """A step begins."""

    def batch(self, done: int, total: int, events: int) -> None:
        """So many batches of `total` are aggregated, of `events` events together."""

    def close(self) -> None:
        """The run is over."""


class LogProgress:
    """Progress as log lines, for the service and wherever there is no terminal."""

    def __init__(self, run_id: str) -> None:
        self._run_id = run_id

    def step(self, name: str) -> None:
        """Log the step."""
        LOG.info("step %s", name, extra={"fields": {"run_id": self._run_id, "step": name}})

    def batch(self, done: int, total: int, events: int) -> None:
        """Log the batch."""
        fields = {"run_id": self._run_id, "batch": done, "batches": total, "events": events}
        LOG.info("batch %d of %d, %d events", done, total, events, extra={"fields": fields})

    def close(self) -> None:
        """Nothing to put away."""


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
    """One JSON object a line, with the fields that Cloud Logging knows."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        line = {
            "severity": record.levelname,
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "message": record.getMessage(),
            "logger": record.name,
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def configure_logging(stream: TextIO, *, as_json: bool) -> None:
    """Send log lines to the stream: as JSON, or warnings and worse as text for a person."""
    handler = logging.StreamHandler(stream)
    text = logging.Formatter("%(levelname)s: %(message)s")
    handler.setFormatter(JsonFormatter() if as_json else text)
    LOG.handlers[:] = [handler]
    LOG.setLevel(logging.INFO if as_json else logging.WARNING)
    LOG.propagate = False


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
