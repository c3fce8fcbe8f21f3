"""The outcome of a sessions run, besides what every run reports. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from runs.report import RunReport

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionsReport(RunReport):
    """What a run of the sessions job did."""

    log_names: ClassVar[tuple[str, ...]] = ("sessions",)
    watches_events: ClassVar[bool] = True

    changed_days: int = 0
    read_days: int = 0
    """The changed days and those read for the sessions that touch them."""
    sessions: Mapping[str, int] = field(default_factory=dict)
    """Sessions: `touched`, `deleted`, `split` (ids), `quarantined`, `outdated` and `staged`."""
    firebase: Mapping[str, int] = field(default_factory=dict)
    """`users`, `documents`, `incomplete_documents`, which count nowhere, and `creators_unknown`.

    Of the documents, `ignored_documents` are of types that count nowhere. Besides
    `user_times_unread` and `document_times_unread`: with a creation time that can't be read, which
    counts as none.
    """
    persons: Mapping[str, int] = field(default_factory=dict)
    """`persons`, `identities`, and `sessions_without_person`, which have no id at all."""
    metrics_version: str | None = None
    columns: Mapping[str, list[str]] = field(default_factory=dict)
    """How they differ from the stored ones: `added`, `changed` and `undeclared`."""
    announcement: str | None = None
    """What a dry run, or one after a change of the metrics, said before it read anything."""

    @property
    def preface(self) -> str | None:
        """The announcement."""
        return self.announcement

    @property
    def figures(self) -> Mapping[str, Mapping[str, int]]:
        """The sessions by outcome."""
        return {"sessions": self.sessions}

    @property
    def summary(self) -> str:
        """The days that were read, and how fresh the source is, which dates don't show."""
        days = f"{self.changed_days} changed days, {self.read_days} read"
        if self.kind == "dates":
            return days
        newest = self.newest_event_at
        when = f"{newest:%Y-%m-%d %H:%M} UTC" if newest else "none"
        return f"{days}; newest event {when}"
