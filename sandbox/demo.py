"""Every job on this machine: sample data, stand-ins for APIs, runs, and what came of them."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, Final

from sandbox.apis.everything import serve_everything
from sandbox.emulator import attach
from sandbox.errors import SandboxError

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

JOBS: Final = ("sessions", "claude_usage", "dog_breeds", "tmdb_changes")
_SAMPLE: Final = (
    ("load", "tests/recorded_web"),
    ("seed", "--sessions", "2000", "--days", "14", "--seed", "1"),
)
_QUERIES: Final = {
    "claude_usage": """SELECT activity_date, SUM(amount_usd) AS usd, COUNT(*) AS positions
FROM ai_usage_analytics.claude_costs
GROUP BY activity_date
ORDER BY activity_date DESC
LIMIT 7""",
    "dog_breeds": """SELECT id, name, weight_kg_min, weight_kg_max, breed_group
FROM dog_breeds_raw.dog_breeds
ORDER BY id
LIMIT 5""",
}
_LEDGER: Final = """SELECT job, status, kind, started_at, finished_at
FROM posthog_aggregated.etl_runs
ORDER BY started_at DESC
LIMIT 8"""


def run_demo(
    directory: Path,
    last_day: dt.date,
    *,
    say: Callable[[str], None],
    jobs: Sequence[str] = JOBS,
) -> None:
    """Load the sample data once, run the jobs against stand-ins, and show what is there then.

    Raises SandboxError where a program fails; it has said why.
    """
    with attach(directory), serve_everything(directory, last_day) as settings:
        _load_sample(directory, say)
        for job in jobs:
            say(f"\n--- main.py --local --job {job}")
            _run("main.py", "--local", "--job", job)
            if job in _QUERIES:
                _run("-m", "sandbox", "query", _QUERIES[job])
        say("\n--- The run ledger")
        _run("-m", "sandbox", "query", _LEDGER)
        say("\n--- Documents in Redis")
        for line in _documents(settings["REDIS_PORT"]):
            say(line)
    say(
        f"\nThe tables stay in {directory}: .venv/bin/python -m sandbox query SQL. The stand-ins "
        "and Redis have ended: .venv/bin/python -m sandbox apis serves them again, Redis empty."
    )


def _load_sample(directory: Path, say: Callable[[str], None]) -> None:
    """As `make run` does, and only if neither has done it before."""
    done = directory / "sample"
    if done.exists():
        return
    say("Loading sample data: recorded events, and a made-up app's ...")
    for command in _SAMPLE:
        _run("-m", "sandbox", *command)
    done.touch()


def _run(*arguments: str) -> None:
    done = subprocess.run([sys.executable, *arguments], check=False, env=os.environ)  # noqa: S603 - our own program
    if done.returncode:
        message = f"{' '.join(arguments[:4])} ended with code {done.returncode}: see above."
        raise SandboxError(message)


def _documents(port: str) -> Iterator[str]:
    """How many there are, and one of them."""
    import redis

    from sandbox.apis.valkey import HOST

    with redis.Redis(host=HOST, port=int(port), decode_responses=True) as client:
        keys = sorted(client.scan_iter("*"))
        yield f"{len(keys)} documents"
        if keys:
            yield f"{keys[0]}: {client.execute_command('JSON.GET', keys[0])}"
