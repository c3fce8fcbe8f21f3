"""What Cloud Run says in the environment about the process. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runs.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """One attempt at one task of an execution of a job."""

    job: str
    name: str
    task: int
    attempt: str

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> Self | None:
        """The execution that this process belongs to; None anywhere but in a Cloud Run job."""
        if not environ.get("CLOUD_RUN_EXECUTION"):
            return None
        index = environ.get("CLOUD_RUN_TASK_INDEX", "0")
        return cls(
            job=environ.get("CLOUD_RUN_JOB", ""),
            name=environ["CLOUD_RUN_EXECUTION"],
            task=int(index) if index.isdecimal() else 0,
            attempt=environ.get("CLOUD_RUN_TASK_ATTEMPT", "0"),
        )

    @property
    def trigger(self) -> str:
        """The same for every attempt: an attempt after a success is a duplicate."""
        return f"{self.job} {self.name}"

    @property
    def log_fields(self) -> dict[str, object]:
        """The fields that every log line carries."""
        return {"execution": self.name, "attempt": self.attempt}

    @property
    def idle(self) -> str | None:
        """Why this task has nothing to do, in a sentence; None for the one that does the work."""
        if self.task == 0:
            return None
        return f"Task {self.task} has nothing to do: task 0 does all of it, set --tasks to 1."


def cut_short_warning(environ: Mapping[str, str], settings: Settings) -> str | None:
    """That the service's requests end before its runs may, where Cloud Run says when they end.

    A warning and no refusal: Google documents the variable for functions alone.
    """
    text = environ.get("CLOUD_RUN_TIMEOUT_SECONDS", "")
    longest = settings.timeout_seconds + settings.lease_wait_seconds
    if not text.isdecimal() or not 0 < int(text) < longest:
        return None
    return (
        f"Cloud Run ends a request after {int(text)} s, and ETL_TIMEOUT_SECONDS"
        f" ({settings.timeout_seconds}) and LEASE_WAIT_SECONDS ({settings.lease_wait_seconds}) let"
        " a run take longer: deploy with --timeout=3600, or set less."
    )
