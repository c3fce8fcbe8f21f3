"""The commands of `python -m sandbox`: arguments in, text and exit codes out."""

from __future__ import annotations

import argparse
import contextlib
import datetime as dt
import io
import os
import re
import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from google.api_core.exceptions import GoogleAPICallError

from sandbox.emulator import SandboxError, attach, bigquery_client, is_running, reset
from sandbox.filling import let_next_day_arrive, load_directory, seed_history
from sandbox.generator.history import Period
from sandbox.query import FORMATS, run_query
from sandbox.sources import SourceDatasets
from sandbox.tables import PROPERTIES_TYPES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from google.cloud import bigquery

    from sandbox.tables import TableName

_REFUSED = 2
_INTERRUPTED = 130
_LAST_PORT = 65_535
_SECONDS_BETWEEN_LOOKS = 1.0


def main(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code; what went wrong is one sentence on stderr."""
    options = _parser().parse_args(arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # rows may hold what the terminal can't show
    try:
        options.run(options)
    except SandboxError as error:
        _tell(str(error))
        return _REFUSED
    except GoogleAPICallError as error:
        _tell(f"The emulator refused the request: {_reason(error)}")
        return _REFUSED
    except KeyboardInterrupt:
        return _INTERRUPTED
    except BrokenPipeError:  # the reader of our output has seen enough
        sys.stdout = None
    except OSError as error:
        sys.stdout = None
        _tell(f"The output can't be written ({error.strerror}): make room for it.")
        return _REFUSED
    return 0


def _reason(error: GoogleAPICallError) -> str:
    """Return what the server said, without the client's additions."""
    reasons = [str(detail["message"]) for detail in error.errors if "message" in detail]
    return (reasons or [str(error.message)])[0].splitlines()[0]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m sandbox",
        description="A BigQuery emulator and sample data, kept in SANDBOX_DIR (.sandbox).",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: object, summary: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=summary, description=summary)
        added.set_defaults(run=run)
        return added

    load = command(
        "load", _load, "Append recorded rows (*.jsonl, *.jsonl.gz) to the source tables."
    )
    load.add_argument("directory", type=Path, help="holds posthog_events.jsonl.gz and the like")
    _add_properties(load)
    seed = command("seed", _seed, "Append the history of a made-up messy app to the source tables.")
    seed.add_argument("--sessions", type=_count, default=3_000, help="about 33 events each (3000)")
    seed.add_argument("--days", type=_count, default=14, help="length of the history (14)")
    seed.add_argument("--seed", type=int, default=1, help="the same seed gives the same rows (1)")
    seed.add_argument("--end-date", type=_day, metavar="D", help="its last day (yesterday, UTC)")
    _add_properties(seed)
    day = command("next-day", _next_day, "Let the day after the newest stored one arrive.")
    day.add_argument(
        "--sessions", type=_count, help="visits of that day (as many as the day before)"
    )
    day.add_argument("--seed", type=int, default=1, help="the same seed gives the same rows (1)")
    query = command("query", _query, "Run a statement and print its rows.")
    query.add_argument("sql", help="GoogleSQL, tables as DATASET.TABLE")
    query.add_argument("--format", choices=FORMATS, default="table", help="of the rows (table)")
    up = command("up", _up, "Keep the emulator running until Ctrl-C.")
    up.add_argument("--port", type=_port, help="of its REST interface (a free one)")
    up.add_argument("--grpc-port", type=_port, help="of its Storage API (a free one)")
    command("apis", _apis, "Keep stand-ins for the jobs' APIs, and a Redis, running until Ctrl-C.")
    command("demo", _demo, "Run every job on sample data and stand-ins, and show the result.")
    command("reset", _reset, "Delete all that the sandbox has stored.")
    return parser


def _add_properties(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--properties",
        choices=PROPERTIES_TYPES,
        help="type of the column in a new events table (string)",
    )


def _count(text: str) -> int:
    if not re.fullmatch("[0-9]{1,9}", text) or int(text) < 1:
        msg = f"{text!r} is no whole number from 1 on: write it like 100"
        raise argparse.ArgumentTypeError(msg)
    return int(text)


def _port(text: str) -> int:
    if not re.fullmatch("[0-9]{1,5}", text) or not 0 < int(text) <= _LAST_PORT:
        msg = f"{text!r} is no port: write one from 1 to {_LAST_PORT}"
        raise argparse.ArgumentTypeError(msg)
    return int(text)


def _day(text: str) -> dt.date:
    try:
        return dt.datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=dt.UTC).date()
    except ValueError as error:
        msg = f"{text!r} is no day: write it like 2026-01-31"
        raise argparse.ArgumentTypeError(msg) from error


def _directory() -> Path:
    return Path(os.environ.get("SANDBOX_DIR") or ".sandbox")


def _datasets() -> SourceDatasets:
    usual = SourceDatasets()
    return SourceDatasets(
        posthog=os.environ.get("POSTHOG_DATASET_ID") or usual.posthog,
        firebase=os.environ.get("FIREBASE_DATASET_ID") or usual.firebase,
    )


@contextlib.contextmanager
def _client() -> Iterator[bigquery.Client]:
    with (
        attach(_directory()) as endpoints,
        contextlib.closing(bigquery_client(endpoints)) as client,
    ):
        yield client


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)  # noqa: T201 - a command line speaks


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201 - a command line speaks


def _print_appended(appended: Mapping[TableName, int]) -> None:
    for table, rows in appended.items():
        _say(f"{table:<16} {rows:>12,} rows appended")


def _load(options: argparse.Namespace) -> None:
    with _client() as client:
        appended = load_directory(
            client,
            _datasets(),
            directory=options.directory,
            properties=options.properties,
            progress=_tell,
        )
    _print_appended(appended)


def _seed(options: argparse.Namespace) -> None:
    yesterday = dt.datetime.now(dt.UTC).date() - dt.timedelta(days=1)
    with _client() as client:
        appended = seed_history(
            client,
            _datasets(),
            seed=options.seed,
            sessions=options.sessions,
            period=Period(last_day=options.end_date or yesterday, days=options.days),
            properties=options.properties,
            progress=_tell,
        )
    _print_appended(appended)


def _next_day(options: argparse.Namespace) -> None:
    with _client() as client:
        day, appended = let_next_day_arrive(
            client,
            _datasets(),
            seed=options.seed,
            sessions=options.sessions,
            progress=_tell,
        )
    _say(f"{day} has arrived.")
    _print_appended(appended)


def _query(options: argparse.Namespace) -> None:
    with _client() as client:
        for line in run_query(client, options.sql, options.format):
            _say(line)


def _up(options: argparse.Namespace) -> None:
    directory = _directory()
    with attach(directory, rest_port=options.port, grpc_port=options.grpc_port) as endpoints:
        _say(f"REST  {endpoints.rest}\ngRPC  {endpoints.grpc}")
        _tell(
            f"The emulator of {directory} runs until Ctrl-C. REST needs the header Authorization:"
        )
        _tell(f"Bearer TOKEN, with the token of {directory / 'endpoints.json'}.")
        ended = _end_by_signal()
        while not ended.wait(_SECONDS_BETWEEN_LOOKS):
            if not is_running(directory):
                msg = f"The emulator of {directory} ended by itself: see emulator.log there."
                raise SandboxError(msg)


def _apis(_options: argparse.Namespace) -> None:
    from sandbox.apis.everything import serve_everything  # Redis is not needed for BigQuery's jobs

    yesterday = dt.datetime.now(dt.UTC).date() - dt.timedelta(days=1)
    with serve_everything(_directory(), yesterday) as settings:
        for name, value in settings.items():
            _say(f"export {name}={value}")
        _tell("They run until Ctrl-C.")
        _end_by_signal().wait()


def _demo(_options: argparse.Namespace) -> None:
    from sandbox.demo import run_demo

    yesterday = dt.datetime.now(dt.UTC).date() - dt.timedelta(days=1)
    run_demo(_directory(), yesterday, say=_say)


def _end_by_signal() -> threading.Event:
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    return ended


def _reset(_options: argparse.Namespace) -> None:
    reset(_directory())
    _say(f"{_directory()} is empty.")
