"""The demo: 90 days of the made-up app, some nights, and the console on them. No part of a run.

It lives in memory and ends with Ctrl-C. Runs are processes of their own, as in production; their
rows in the ledger are moved to the nights that they stand for.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime as dt
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sandbox.apis.everything import serve_everything
from sandbox.emulator import attach, bigquery_client
from sandbox.errors import SandboxError
from sandbox.filling import let_next_day_arrive, seed_history
from sandbox.generator.history import Period
from sandbox.server import FAST
from sandbox.sources import SourceDatasets

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from google.cloud import bigquery

ROOT: Final = Path(__file__).parent.parent
DAYS: Final = 90
NIGHTS: Final = 5
_SESSIONS: Final = 3_600
_SEED: Final = 11
_PORT: Final = 8090
_RENAMED_DAYS: Final = 1  # of the seeded days; those of the nights, too
_LATE_BY: Final = 4  # days before the end of the seeded ones
_FAILED: Final = 2  # this night's run has too little time
_WORKDAY, _WEEKEND = 5, 3  # how busy they are
_GROWN_BY: Final = 1.25  # visits of the last days, compared with the average
_AT_NIGHT: Final = dt.timedelta(hours=3)
_EVENTS: Final = "posthog_etl.events"
# What runs of earlier nights say, since all of them run today.
_TOO_EARLY: Final = '"(The newest event is [0-9]+ hours old|Metric sessions fell: 0 on)[^"]*"'
_VERIFIED_SESSIONS: Final = "20"
_OTHER_JOBS: Final = ("claude_usage", "dog_breeds")
_SLOWEST_JOB: Final = "tmdb_changes"
_SECONDS_TO_START: Final = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class BusyPeriod(Period):
    """Days of which later ones, and workdays, are drawn more often."""

    @property
    def dates(self) -> list[dt.date]:
        """The days in order, each as often as it is busy."""
        found = []
        for number in range(self.days):
            day = self.last_day - dt.timedelta(days=self.days - 1 - number)
            found += [day] * round(_usual_visits(day) * (1 + number / self.days))
        return found


def _usual_visits(day: dt.date) -> int:
    """How busy a day is, compared with others."""
    return _WORKDAY if day.weekday() < 5 else _WEEKEND  # noqa: PLR2004 - Monday to Friday


@dataclass(frozen=True, slots=True, kw_only=True)
class Demo:
    """An emulator of its own, and the settings of the runs and the service that use it."""

    client: bigquery.Client
    environ: Mapping[str, str]
    today: dt.date

    def query(self, sql: str) -> None:
        """Run a statement."""
        self.client.query(sql).result()

    def run(self, *options: str, **environ: str) -> None:
        """Run a job on what has arrived; some are meant to fail."""
        with self.running(*options, **environ):
            pass

    @contextlib.contextmanager
    def running(self, *options: str, **environ: str) -> Iterator[None]:
        """Run a job while the block lasts, and wait for its end."""
        command = [sys.executable, "main.py", "--local", *options]
        with subprocess.Popen(  # noqa: S603 - our own command
            command,
            cwd=ROOT,
            env={**self.environ, **environ},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ):
            yield


@contextlib.contextmanager
def played(announce: Callable[[str], None]) -> Iterator[Demo]:
    """The demo with all its nights played, while the block lasts."""
    with tempfile.TemporaryDirectory(prefix="demo") as folder:
        os.environ[FAST] = "1"  # the emulator in memory: five times as fast
        today = dt.datetime.now(dt.UTC).date()
        with (
            attach(Path(folder)) as endpoints,
            contextlib.closing(bigquery_client(endpoints)) as client,
            serve_everything(Path(folder), today - dt.timedelta(days=1)) as apis,
        ):
            environ = {**os.environ, **apis, "SANDBOX_DIR": folder}
            demo = Demo(client=client, environ=environ, today=today)
            play(demo, announce)
            yield demo


def play(demo: Demo, announce: Callable[[str], None]) -> None:
    """Seed the history, and let the nights pass."""
    last = demo.today - dt.timedelta(days=NIGHTS)
    announce(f"Loading {DAYS - NIGHTS + 1} days of a made-up app ...")
    seed_history(
        demo.client,
        SourceDatasets(),
        seed=_SEED,
        sessions=_SESSIONS,
        period=BusyPeriod(last_day=last, days=DAYS - NIGHTS + 1),
        properties=None,
        progress=lambda _: None,
    )
    released = last - dt.timedelta(days=_RENAMED_DAYS - 1)
    _rename_an_event(demo, released)
    late = last - dt.timedelta(days=_LATE_BY)
    _hold_back(demo, late)
    announce("Night 1: the first run loads it all ...")
    demo.run()
    with demo.running("--job", _SLOWEST_JOB):  # it waits for its API's limit, meanwhile
        for night in range(2, NIGHTS + 1):
            _let_a_day_arrive(demo, night)
            _rename_an_event(demo, released)
            _run_at_night(demo, night, late, announce)
        _move_runs_into_their_nights(demo)
        announce("The jobs that read APIs, and a verification ...")
        for job in _OTHER_JOBS:
            demo.run("--job", job)
        demo.run("--check", "--verify", _VERIFIED_SESSIONS)


def _let_a_day_arrive(demo: Demo, night: int) -> None:
    let_next_day_arrive(
        demo.client,
        SourceDatasets(),
        seed=_SEED,
        sessions=_sessions_of(demo.today - dt.timedelta(days=NIGHTS - night + 1)),
        progress=lambda _: None,
    )


def _run_at_night(demo: Demo, night: int, late: dt.date, announce: Callable[[str], None]) -> None:
    """A run loads what has arrived; some nights are out of the ordinary."""
    if night == _FAILED:
        announce(f"Night {night}: a run has too little time, and the next one makes it good ...")
        demo.run(ETL_TIMEOUT_SECONDS="1")
    elif night == NIGHTS:
        announce(f"Night {night}: the events of {late} arrive late ...")
        demo.query(f"INSERT INTO {_EVENTS} SELECT * FROM posthog_etl.held_back")
        demo.query("DROP TABLE posthog_etl.held_back")
        demo.run()
    else:
        announce(f"Night {night} ...")
        demo.run()


def _sessions_of(day: dt.date) -> int:
    """The visits of a day after the seeded ones: their average, grown by a quarter."""
    average = (_WORKDAY + _WEEKEND) / 2
    return round(_SESSIONS / DAYS * _usual_visits(day) / average * _GROWN_BY)


def _rename_an_event(demo: Demo, since: dt.date) -> None:
    """A release of the app calls the end of the quiz by another name."""
    demo.query(
        f"UPDATE {_EVENTS} SET event = 'quiz_finished'"
        f" WHERE event = 'finish_quiz' AND `timestamp` >= TIMESTAMP '{since} 00:00:00+00'"
    )


def _hold_back(demo: Demo, day: dt.date) -> None:
    """PostHog's export skips most of a day, and delivers it some nights later."""
    of_day = (
        f"`timestamp` >= TIMESTAMP '{day} 05:00:00+00'"
        f" AND `timestamp` < TIMESTAMP '{day + dt.timedelta(days=1)} 00:00:00+00'"
    )
    demo.query(f"CREATE TABLE posthog_etl.held_back AS SELECT * FROM {_EVENTS} WHERE {of_day}")
    demo.query(f"DELETE FROM {_EVENTS} WHERE {of_day}")


def _move_runs_into_their_nights(demo: Demo) -> None:
    """All of them ran within a minute: the ledger shows them night by night."""
    table = "posthog_aggregated.etl_runs"
    sql = f"SELECT run_id, started_at, finished_at FROM {table} WHERE job = 'sessions'"
    rows = sorted(demo.client.query(sql).result(), key=lambda row: row["run_id"], reverse=True)
    for place, row in enumerate(rows):
        night = dt.datetime.combine(demo.today, dt.time(), dt.UTC) - dt.timedelta(days=place)
        back = row["started_at"].replace(microsecond=0) - night - _AT_NIGHT
        run_id = (row["started_at"] - back).strftime("%Y%m%dT%H%M%S") + row["run_id"][15:]
        report = f"REPLACE(report, '{row['run_id']}', '{run_id}')"
        times = []
        for name in ("started_at", "finished_at"):
            at, moved = row[name].isoformat(), (row[name] - back).isoformat()
            report = f"REPLACE({report}, '{at}', '{moved}')"
            times.append(f"{name} = TIMESTAMP '{moved}'")
        for pattern in (f", {_TOO_EARLY}", f"{_TOO_EARLY}(, )?"):
            report = f"REGEXP_REPLACE({report}, r'{pattern}', '')"
        demo.query(
            f"UPDATE {table} SET run_id = '{run_id}', report = {report}, {', '.join(times)}"
            f" WHERE run_id = '{row['run_id']}'"
        )


@contextlib.contextmanager
def serving(demo: Demo, port: int) -> Iterator[str]:
    """The console's address, while the block lasts."""
    command = [sys.executable, "-m", "gunicorn", "--log-level=warning", "app:local()"]
    environ = {**demo.environ, "PORT": str(port)}
    with subprocess.Popen(  # noqa: S603 - our own command
        command, cwd=ROOT, env=environ, stdout=subprocess.DEVNULL
    ) as process:
        address = f"http://localhost:{port}"
        try:
            _await(f"{address}/health")
            yield address
        finally:
            process.terminate()


def _await(address: str) -> None:
    end = time.monotonic() + _SECONDS_TO_START
    while True:
        try:
            urllib.request.urlopen(address, timeout=1).close()  # noqa: S310 - our own service
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.2)
        else:
            return


def check_free(port: int) -> None:
    """Raise SandboxError if another program listens on the port."""
    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind(("127.0.0.1", port))
        except OSError as error:
            message = f"Another program uses the port {port}: try make demo PORT={port + 1}."
            raise SandboxError(message) from error


def main(arguments: Sequence[str]) -> int:
    """Play the demo, and serve it until Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m sandbox.demo_history", description=__doc__)
    parser.add_argument("--port", type=int, default=_PORT, help=f"of the console ({_PORT})")
    options = parser.parse_args(arguments)
    check_free(options.port)
    with (
        contextlib.suppress(KeyboardInterrupt),
        played(_say) as demo,
        serving(demo, options.port) as address,
    ):
        _say(f"The console: {address} (Ctrl-C ends it)")
        while True:
            time.sleep(3600)
    return 0


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201 - a command line speaks


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except SandboxError as problem:
        sys.exit(f"{problem}")
