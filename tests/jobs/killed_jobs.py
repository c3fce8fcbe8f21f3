"""Runs jobs in child processes that kill themselves: one for each line of its input."""

from __future__ import annotations

import json
import os
import signal
import sys
from contextlib import closing
from typing import Any

import main
from bigquery.clients import local_clients
from jobs.registry import JOBS, find_job
from runs.request import RunRequest
from runs.settings import Settings
from sandbox.emulator import Endpoints


class Killer:
    """Progress that ends the process by SIGKILL: as a step begins, after a batch, or at the end."""

    def __init__(self, at: str) -> None:
        self._at = at

    def step(self, name: str) -> None:
        """A step begins."""
        self._die(name)

    def batch(self, done: int, total: int, events: int) -> None:  # noqa: ARG002 - as runs call it
        """A batch is done."""
        self._die("a batch")

    def close(self) -> None:
        """The run is over: published, but its process has not said so."""
        self._die("the end")

    def _die(self, where: str) -> None:
        if where == self._at:
            os.kill(os.getpid(), signal.SIGKILL)


def run(fields: dict[str, Any]) -> None:
    """Run the job of a request."""
    settings = Settings.from_environment(fields["environ"], local=True)
    with closing(local_clients(Endpoints(**fields["endpoints"]))) as clients:
        request = RunRequest(job=fields["job"])
        main.main(request, settings, clients, progress=Killer(fields["at"]))


def serve() -> None:
    """Print the exit code of each child: that of SIGKILL, unless it was not killed."""
    for job in JOBS:
        find_job(job)  # so that no child has to import it
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            run(json.loads(line))
            os._exit(0)
        _, status = os.waitpid(child, 0)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    serve()
