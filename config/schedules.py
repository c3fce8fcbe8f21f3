"""When each job runs, and how large it is: `config/jobs.yaml`, as records. Starts nothing."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, Literal, get_args

from runs.errors import SettingsError

type Mode = Literal["service", "job"]

FILE: Final = Path(__file__).parent / "jobs.yaml"
_CRON: Final = re.compile(r"[0-9*,/A-Z-]+( [0-9*,/A-Z-]+){4}")
_TIME_ZONE: Final = re.compile(r"[A-Za-z_]+(/[A-Za-z0-9_+-]+)*")
_MEMORY: Final = re.compile(r"[1-9][0-9]*(Mi|Gi)")
_TYPES: Final = {"bool": bool, "int": int, "str": str, "Mode": str}


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """A job's entry; SettingsError names the value that can't be right."""

    job: str
    deployed: bool
    mode: Mode
    cron: str
    time_zone: str
    memory: str
    cpu: int
    timeout_minutes: int
    retries: int
    stale_after_hours: int

    def __post_init__(self) -> None:
        """Refuse what Cloud Run or Cloud Scheduler would refuse."""
        rules = {
            "mode": self.mode in get_args(Mode.__value__),
            "cron": _CRON.fullmatch(self.cron),
            "time_zone": _TIME_ZONE.fullmatch(self.time_zone),
            "memory": _MEMORY.fullmatch(self.memory),
            "cpu": self.cpu in {1, 2, 4, 8},
            "timeout_minutes": 10 <= self.timeout_minutes <= 168 * 60,  # noqa: PLR2004 - Cloud Run's
            "retries": 0 <= self.retries <= 5,  # noqa: PLR2004 - Cloud Scheduler's most
            "stale_after_hours": self.stale_after_hours > 0,
        }
        if wrong := [name for name, holds in rules.items() if not holds]:
            message = f"{self.job} in config/jobs.yaml has a wrong {' and a wrong '.join(wrong)}."
            raise SettingsError(message)

    def to_json(self) -> dict[str, object]:
        """What it says of when the job runs."""
        shown = ("deployed", "mode", "cron", "time_zone", "retries", "stale_after_hours")
        return {name: getattr(self, name) for name in shown}


def read_schedules(file: Path = FILE) -> dict[str, Schedule]:
    """Each job's schedule, in the order of the file (SettingsError: it is not as it should be)."""
    import yaml

    try:
        found = yaml.safe_load(file.read_text("utf-8"))
    except (OSError, yaml.YAMLError):
        found = None
    if not isinstance(found, dict):
        message = f"{file.name} can't be read as YAML: compare it with the one in git."
        raise SettingsError(message)
    return {job: _schedule(job, values) for job, values in found.items()}


def usual_age(job: str) -> timedelta:
    """How old the last success of a job may be before anybody should look."""
    return timedelta(hours=read_schedules()[job].stale_after_hours)


def _schedule(job: str, values: Any) -> Schedule:  # noqa: ANN401 - what YAML holds
    wanted = {each.name: _TYPES[str(each.type)] for each in fields(Schedule) if each.name != "job"}
    given = {name: type(value) for name, value in (values or {}).items()}
    if given != wanted:
        wrong = sorted(name for name, _ in given.items() ^ wanted.items())
        message = f"{job} in config/jobs.yaml lacks, or has a wrong, {' and '.join(set(wrong))}."
        raise SettingsError(message)
    return Schedule(job=job, **values)
