"""Which jobs there are, by name. A job's module is imported when it is asked for, not before."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from runs.errors import RequestError

if TYPE_CHECKING:
    from runs.job import Job

JOBS: Final[dict[str, str]] = {
    "sessions": "jobs.sessions",
    "claude_usage": "jobs.claude_usage",
    "dog_breeds": "jobs.dog_breeds",
    "tmdb_changes": "jobs.tmdb_changes",
}
"""The module of each job, which holds it as `JOB`."""


def find_job(name: str) -> Job[Any]:
    """The job of that name. Raises RequestError where there is none."""
    if name not in JOBS:
        message = f"There is no job {name}: use {' or '.join(JOBS)}."
        raise RequestError(message)
    job: Job[Any] = import_module(JOBS[name]).JOB
    return job
