"""What a job is: its name and its steps. Not which jobs there are: that is `jobs/registry.py`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from runs.context import Run, Work

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from bigquery.tables import TableId
    from bigquery.warehouse import Warehouse
    from runs.checks import Check
    from runs.report import RunReport
    from runs.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Step[Found: Work]:
    """A part of a job that is timed, logged and may be stopped before it begins."""

    name: str
    work: Callable[[Found], None]
    publishes: bool = False
    """Whether readers see what it does: a dry run leaves it out."""


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
    """The tables that it reads: the destination belongs where they are."""
    check: Callable[[Warehouse, datetime], Sequence[Check]] | None = None
    """Looks at what is there, for `--check`; None where there is nothing to look at."""

    @property
    def step_names(self) -> tuple[str, ...]:
        """The steps of a run in order: taking the lease, and the job's own."""
        return ("lease", *(step.name for step in self.steps))
