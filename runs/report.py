"""The outcome of a run, for the caller, the ledger and the log. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, date, datetime, timedelta
from typing import ClassVar, Final, Literal

from runs import VERSION
from runs.errors import FailureStatus
from runs.request import RunRequest
from runs.settings import Engine

type RunStatus = Literal["running", "succeeded", "duplicate"] | FailureStatus
type RunKind = Literal["full_load", "incremental", "dates", "limit", "nothing_new", "verify"]
AHEAD: Final = timedelta(minutes=5)  # by which two clocks may differ
FRESH: Final = timedelta(hours=26)  # a nightly export, and two hours of grace


@dataclass(frozen=True, slots=True, kw_only=True)
class StepReport:
    """How long one step took.

    `parts`: seconds of work done in parallel, so their sum may exceed the step's.
    """

    name: str
    seconds: float
    bytes: int = 0
    parts: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunReport:
    """What a run did, for people, the ledger and the service. A job adds fields of its own."""

    log_names: ClassVar[tuple[str, ...]] = ()
    """The job's own fields that the line that ends a run carries, too."""
    watches_events: ClassVar[bool] = False
    """Whether the job reads events, whose age shows whether their export is alive."""

    run_id: str
    job: str = "sessions"
    status: RunStatus
    request: RunRequest
    engine: Engine
    kind: RunKind | None = None
    """None where the run ended before it knew."""
    reason: str | None = None
    """Why it was a full load, if nobody requested one."""
    started_at: datetime
    finished_at: datetime | None = None
    """None while it runs."""
    counts: Mapping[str, int] = field(default_factory=dict)
    """Source rows by outcome; their sum is every row read or counted."""
    steps: tuple[StepReport, ...] = ()
    peak_memory_bytes: int = 0
    """Of the process so far, not of this run alone."""
    bytes_processed: int = 0
    cost_usd: float = 0.0
    newest_event_at: datetime | None = None
    warnings: tuple[str, ...] = ()
    error: str | None = None
    dry_run: bool = False
    version: str = VERSION

    @property
    def preface(self) -> str | None:
        """The job's own words above the counts; None where it has nothing to add."""
        return None

    @property
    def figures(self) -> Mapping[str, Mapping[str, int]]:
        """The job's own counts by title, shown beside those of the source rows."""
        return {}

    @property
    def summary(self) -> str | None:
        """The job's own line below the counts; None where it has nothing to add."""
        return None

    @property
    def seconds(self) -> float | None:
        """From start to end; None while it runs."""
        if self.finished_at is None:
            return None
        return (self.finished_at - self.started_at).total_seconds()

    @property
    def is_stale(self) -> bool | None:
        """Whether the newest event was too old for a nightly export; None if it is not known."""
        if self.kind in {None, "dates"} or not self.watches_events:
            return None
        return self.newest_event_at is None or self.started_at - self.newest_event_at > FRESH

    def to_json(self) -> dict[str, object]:
        """Every field and `seconds`, JSON-ready; times are ISO 8601 in UTC."""
        return {each.name: _plain(getattr(self, each.name)) for each in fields(self)} | {
            "seconds": self.seconds
        }


def _plain(value: object) -> object:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, RunRequest):
        return value.shown()
    if isinstance(value, StepReport):
        return {each.name: _plain(getattr(value, each.name)) for each in fields(value)}
    if isinstance(value, Mapping):
        return {name: _plain(each) for name, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, (tuple, list)) else value
