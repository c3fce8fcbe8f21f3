"""Command lines in forks of one process that has imported everything: real kills, cheap starts.

`tests.killable` is that process.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from signal import SIGKILL
from subprocess import CompletedProcess
from typing import IO, TYPE_CHECKING

from tests.paths import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    type Run = Callable[..., CompletedProcess[str]]


def environ_of(folder: Path | None = None) -> dict[str, str]:
    """The environment of a command that knows little more than a sandbox."""
    kept = {name: os.environ[name] for name in ("HOME", "PATH") if name in os.environ}
    return kept | ({"SANDBOX_DIR": str(folder)} if folder else {})


@dataclass(kw_only=True)
class Child:
    """A command line that runs."""

    pid: int
    log: IO[str]
    answers: IO[str]
    exit_code: int | None = None

    def wait(self, seconds: float | None = None) -> None:
        """Wait until it has ended, or for so long."""
        if self.exit_code is None and select.select([self.answers], [], [], seconds)[0]:
            self.exit_code = int(self.answers.readline())

    def kill(self) -> bool:
        """SIGKILL, unless it has ended; whether that ended it."""
        self.wait(0)
        if self.exit_code is None:
            os.kill(self.pid, SIGKILL)  # at worst it is a zombie: nobody else has its id
            self.wait()
        return self.exit_code == -SIGKILL


@dataclass(frozen=True, slots=True, kw_only=True)
class Forks:
    """The process that forks."""

    asked: IO[str]
    answers: IO[str]
    log: Path  # a named pipe

    @contextmanager
    def running(self, arguments: Sequence[str], environ: Mapping[str, str]) -> Iterator[Child]:
        """`python main.py` with these arguments; killed at the end of the block."""
        pid = self._start(arguments, environ, stdout=Path(os.devnull), stderr=self.log)
        with self.log.open(encoding="utf-8") as log:
            child = Child(pid=pid, log=log, answers=self.answers)
            try:
                yield child
            finally:
                child.kill()

    def run(self, arguments: Sequence[str], environ: Mapping[str, str]) -> CompletedProcess[str]:
        """What it prints, and its exit code."""
        stdout, stderr = self.log.with_name("stdout"), self.log.with_name("stderr")
        self._start(arguments, environ, stdout=stdout, stderr=stderr)
        code = int(self.answers.readline())
        return CompletedProcess(arguments, code, stdout.read_text(), stderr.read_text())

    def _start(
        self, arguments: Sequence[str], environ: Mapping[str, str], *, stdout: Path, stderr: Path
    ) -> int:
        asked = {
            "arguments": list(arguments),
            "environ": dict(environ),
            "stdout": str(stdout),
            "stderr": str(stderr),
        }
        self.asked.write(f"{json.dumps(asked)}\n")
        self.asked.flush()
        return int(self.answers.readline())


@contextmanager
def start_forks(folder: Path) -> Iterator[Forks]:
    """Start the process; it ends with the block."""
    log = folder / "log"
    os.mkfifo(log)
    with subprocess.Popen(
        [sys.executable, "-m", "tests.killable"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        bufsize=0,  # so that `select` sees every answer
    ) as process:
        assert process.stdin
        assert process.stdout
        asked = os.fdopen(os.dup(process.stdin.fileno()), "w", encoding="utf-8")
        answers = os.fdopen(os.dup(process.stdout.fileno()), encoding="utf-8")
        with asked, answers:
            yield Forks(asked=asked, answers=answers, log=log)
        process.stdin.close()
