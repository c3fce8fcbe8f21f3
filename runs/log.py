"""Log lines: who writes them, their fields, and the one that says how a run ended."""

from __future__ import annotations

import json
import logging
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, TextIO

from runs.errors import EtlError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from runs.report import RunReport


LOG = logging.getLogger("posthog_etl")
NOTICE: Final = 25
"""A level between INFO and WARNING, which a terminal shows: one of Cloud Logging's severities."""
logging.addLevelName(NOTICE, "NOTICE")

# Per thread; contextvars.copy_context() passes them on to a new thread.
_FIELDS: Final[ContextVar[Mapping[str, object]]] = ContextVar(
    "log_fields", default=MappingProxyType({})
)


@contextmanager
def log_fields(fields: Mapping[str, object]) -> Iterator[None]:
    """Add these fields to every log line inside the block."""
    token = _FIELDS.set({**_FIELDS.get(), **fields})
    try:
        yield
    finally:
        _FIELDS.reset(token)


class JsonFormatter(logging.Formatter):
    """One JSON object per line, with the field names that Cloud Logging knows."""

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
    """Send log lines to the stream: as JSON, or notices and worse as text for a person.

    Every JSON line has `fields`. Text leaves out lines with an `event`: the report says the same.
    """
    handler = logging.StreamHandler(stream)
    text = logging.Formatter("%(levelname)s: %(message)s")
    handler.setFormatter(JsonFormatter(fields) if as_json else text)
    if not as_json:
        handler.addFilter(lambda record: "event" not in getattr(record, "fields", {}))
    LOG.handlers[:] = [handler]
    LOG.setLevel(logging.INFO if as_json else NOTICE)
    LOG.propagate = False


# Report fields in the line that ends a run.
_REPORT_FIELDS: Final = (
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
    "bytes_processed",
    "cost_usd",
    "version",
)


def log_run_finished(report: RunReport, *, error_type: str | None = None) -> None:
    """The one line that says how a run ended: alerts and queries filter on its fields.

    `error_type`: the class of the error that ended it, if it failed.
    """
    shown = report.to_json()
    fields = {name: shown[name] for name in (*_REPORT_FIELDS, *report.log_names)}
    fields |= {"error_type": error_type, "is_stale": report.is_stale, "rows": shown["counts"]}
    level = logging.WARNING if report.warnings or report.status == "refused" else logging.INFO
    if report.status not in {"succeeded", "duplicate", "refused"}:
        level = logging.ERROR
    seconds = f" in {report.seconds:.0f} s" if report.seconds is not None else ""
    error = f": {report.error}" if report.error else ""
    _log_run_finished(level, f"run {report.status}{seconds}{error}", fields)


def log_run_not_begun(job: str, error: Exception, sentence: str, names: Iterable[str] = ()) -> None:
    """The same line for a run that failed before it had an id, for example for credentials.

    `names`: the job's own fields, null here like the others.
    """
    fields = dict.fromkeys((*_REPORT_FIELDS, *names, "error_type", "is_stale", "rows"))
    status = error.status if isinstance(error, EtlError) else "failed"
    outcome = {
        "status": status,
        "job": job,
        "error": sentence,
        "error_type": type(error).__name__,
    }
    level = logging.WARNING if status == "refused" else logging.ERROR
    _log_run_finished(level, f"run {status}: {sentence}", fields | outcome)
    error.add_note("Before its run began.")


def is_reported(error: Exception) -> bool:
    """Whether the line that ends a run, hidden in text mode, contains this error.

    Whoever writes that line adds a note to the error.
    """
    return bool(getattr(error, "__notes__", None))


def _log_run_finished(level: int, message: str, fields: Mapping[str, object]) -> None:
    LOG.log(level, "%s", message, extra={"fields": {"event": "run_finished", **fields}})
