"""What `--check` finds: one sentence about each thing that should hold. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from runs.report import AHEAD, FRESH

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Iterable

type Outcome = Literal["ok", "warning", "failed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """The outcome of one check, and a sentence about it."""

    name: str
    outcome: Outcome
    message: str

    def to_json(self) -> dict[str, str]:
        """Every field."""
        return {"name": self.name, "outcome": self.outcome, "message": self.message}


def worst(checks: Iterable[Check]) -> Outcome:
    """The outcome of all checks together."""
    order: tuple[Outcome, ...] = ("ok", "warning", "failed")
    return max((each.outcome for each in checks), key=order.index, default="ok")


def check_last_run(
    finished_at: dt.datetime | None,
    run_id: str | None,
    now: dt.datetime,
    *,
    job: str = "sessions",
    fresh: dt.timedelta = FRESH,
) -> Check:
    """When a run last brought everything up to date; `fresh`: the usual age."""
    name = "last run"
    if finished_at is None:
        command = "main.py" if job == "sessions" else f"main.py --job {job}"
        message = f"No run has brought everything up to date yet: run {command}."
        return Check(name=name, outcome="warning", message=message)
    age = now - finished_at
    if age < -AHEAD:
        message = f"Run {run_id} ended {hours(-age)} hours in the future: correct its clock."
        return Check(name=name, outcome="warning", message=message)
    message = f"Run {run_id} succeeded {hours(age)} hours ago"
    if age > fresh:
        return Check(name=name, outcome="warning", message=f"{message}: is the schedule paused?")
    return Check(name=name, outcome="ok", message=f"{message}.")


def hours(age: dt.timedelta) -> str:
    """Whole hours, as text."""
    return f"{age.total_seconds() / 3600:.0f}"
