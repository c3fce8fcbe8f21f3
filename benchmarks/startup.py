"""How soon a fresh process answers `/health`, against one that imports every dependency.

`python -m benchmarks.startup [--rounds N]`: gunicorn by its own configuration, from the start of
its process to the first answer; the last line is JSON.
"""

from __future__ import annotations

import argparse
import http.client
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from benchmarks.figures import print_json, ratio, rounded

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).parent.parent
IMPORTS = (
    "flask",
    "gunicorn.app.wsgiapp",
    "google.cloud.bigquery",
    "google.cloud.bigquery_storage",
    "google.cloud.secretmanager",
    "pandas",
    "pyarrow",
    "pyarrow.parquet",
    "db_dtypes",
)
_SECONDS_TO_ANSWER = 60


def compare(rounds: int) -> dict[str, Any]:
    """Median seconds of both, and the health check's over the imports', pair by pair."""
    answers: list[float] = []
    imports: list[float] = []
    for turn in range(rounds):
        order = ((answers, seconds_to_health), (imports, seconds_to_import))
        for measured, measure in order[:: 1 if turn % 2 == 0 else -1]:
            measured.append(measure())
    return {
        "health_seconds": rounded(median(answers)),
        "imports_seconds": rounded(median(imports)),
        "ratio": rounded(ratio(imports, answers)),
    }


def seconds_to_health() -> float:
    """From the start of the service's process to its answer."""
    environ = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    environ |= {"GOOGLE_CLOUD_PROJECT_ID": "my-project"}
    command = [sys.executable, "-m", "gunicorn", "--bind", "127.0.0.1:0"]
    started = time.perf_counter()
    with subprocess.Popen(  # noqa: S603 - our own command
        command,
        cwd=ROOT,
        env=environ,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as service:
        try:
            _check_health(_port(service))
            return time.perf_counter() - started
        finally:
            service.terminate()


def _port(service: subprocess.Popen[str]) -> int:
    for line in service.stderr or ():
        if found := re.search(r"Listening at: http://[^:]+:(\d+)", line):
            return int(found[1])
    message = "The service ended before it listened."
    raise RuntimeError(message)


def _check_health(port: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_SECONDS_TO_ANSWER)
    connection.request("GET", "/health")
    status = connection.getresponse().status
    connection.close()
    if status != http.HTTPStatus.OK:
        message = f"/health answered {status}."
        raise RuntimeError(message)


def seconds_to_import() -> float:
    """From the start of a process to where it has imported everything."""
    script = f"import {', '.join(IMPORTS)}; print(flush=True); input()"
    started = time.perf_counter()
    with subprocess.Popen(  # noqa: S603 - our own command
        [sys.executable, "-c", script], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        if process.stdout is None or not process.stdout.readline():
            message = "A dependency could not be imported."
            raise RuntimeError(message)
        seconds = time.perf_counter() - started
        process.communicate(b"\n")
    return seconds


def main(arguments: Sequence[str]) -> None:
    """Measure, and print what came of it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.startup", description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    print_json(compare(parser.parse_args(arguments).rounds))


if __name__ == "__main__":
    main(sys.argv[1:])
