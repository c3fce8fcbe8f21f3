"""A process whose children are command lines; `tests.forks` starts and asks it.

It reads one line of JSON for each child: its arguments, its environment and where it writes. It
answers with the child's id and, when it has ended, with its exit code.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import main
from jobs.registry import JOBS, find_job


def _run(asked: dict[str, Any]) -> None:
    """Be `python main.py`, and end."""
    os.environ.clear()
    os.environ.update(asked["environ"])
    for stream in (sys.stdout, sys.stderr):
        path = asked[stream.name.strip("<>")]
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream.fileno())
    code: object = 1
    try:
        code = main.command_line(asked["arguments"])
    except SystemExit as ended:
        code = ended.code
    finally:
        sys.stdout.flush()
        os._exit(code if isinstance(code, int) else 0 if code is None else 1)


def _serve() -> None:
    for job in JOBS:
        find_job(job)  # so that no child has to import it
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            _run(json.loads(line))
        _answer(child)
        _, status = os.waitpid(child, 0)
        _answer(os.waitstatus_to_exitcode(status))


def _answer(number: int) -> None:
    sys.stdout.write(f"{number}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    _serve()
