"""What a job is: its name and its steps. Not which jobs there are: that is `jobs/registry.py`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from runs.context import Run, Work
from runs.errors import RequestError, SettingsError
from runs.request import RunRequest
from runs.settings import LOCAL_PROJECT

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime

    from bigquery.tables import TableId
    from bigquery.warehouse import Warehouse
    from runs.checks import Check
    from runs.report import RunReport
    from runs.settings import Settings

OPTIONS: Final = frozenset({"full_load", "limit", "start_date", "end_date", "engine", "params"})
"""The options of a request that not every job takes; all take `force` and `dry_run`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step[Found: Work]:
    """A part of a job that is timed, logged and may be stopped before it begins."""

    name: str
    work: Callable[[Found], None]
    publishes: bool = False
    """Whether readers see its effect: a dry run skips it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job[Found: Work]:
    """Something that is run every night.

    `begin` makes what the steps share, or raises an EtlError where the job lacks a setting.
    """

    name: str
    description: str
    begin: Callable[[Run], Found]
    steps: tuple[Step[Found], ...]
    report_type: type[RunReport]
    sources: Callable[[Settings], Sequence[TableId]] = lambda _: ()
    """The tables that it reads: the destination has their location."""
    check: Callable[[Warehouse, datetime], Sequence[Check]] | None = None
    """Checks the stored data for `--check`; None if there is nothing to check."""
    unit: str = "events"
    """What its progress counts."""
    options: frozenset[str] = OPTIONS
    """Which of OPTIONS it takes."""
    needs: tuple[str, ...] = ()
    """Environment variables without which it can't run."""
    local_needs: tuple[str, ...] = ()
    """More of them with --local, so that it calls only a stand-in."""
    destination: Callable[[Warehouse], TableId] | None = None
    """A table that it writes in a dataset of its own: GET /ready checks access."""
    probes: Mapping[str, Callable[[Warehouse], None]] = field(default_factory=dict)
    """More checks for GET /ready, by name: each raises what is wrong."""
    shown: Mapping[str, Any] = field(default_factory=dict)
    """What GET /config shows of it besides settings."""

    @property
    def step_names(self) -> tuple[str, ...]:
        """The steps of a run in order: taking the lease, and the job's own."""
        return ("lease", *(step.name for step in self.steps))

    def missing(self, settings: Settings) -> list[str]:
        """The environment variables that it needs and that are not set."""
        is_local = settings.project_id == LOCAL_PROJECT
        return settings.missing(self.needs + (self.local_needs if is_local else ()))

    def check_request(self, request: RunRequest, settings: Settings) -> None:
        """Raise RequestError for an option it doesn't take, or SettingsError."""
        usual = RunRequest()
        for name in sorted(OPTIONS - self.options):
            if getattr(request, name) != getattr(usual, name):
                message = f"The job {self.name} takes no {name}: leave it out."
                raise RequestError(message)
        self.check_settings(settings)

    def check_settings(self, settings: Settings) -> None:
        """Raise SettingsError for what is not set."""
        if missing := self.missing(settings):
            message = f"The job {self.name} needs {' and '.join(missing)}: set what is missing."
            if settings.project_id == LOCAL_PROJECT:
                message += " With --local, python -m sandbox apis sets all of it while it runs."
            raise SettingsError(message)
