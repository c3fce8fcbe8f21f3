"""Runs a job step by step, and parses the command line. Calls no BigQuery API."""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import sys
from contextlib import ExitStack, nullcontext
from dataclasses import replace
from datetime import UTC, date, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from bigquery.connection import connect, local_environment
from bigquery.destination import ensure_dataset
from bigquery.locations import settled
from bigquery.warehouse import Warehouse
from jobs.registry import find_job
from oracle.comparison import verification_text
from runs import VERSION
from runs.checks import Check, worst
from runs.context import (
    answer_again,
    await_ledger,
    begin,
    enter_ledger,
    finish,
    logging_refusals,
    record,
    recorded,
    supervised,
)
from runs.errors import AuditError, EtlError, RequestError
from runs.execution import Execution
from runs.log import LOG, configure_logging, is_reported, log_run_not_begun
from runs.progress import Progress, TerminalProgress, check_room
from runs.report_text import report_text
from runs.request import RunRequest
from runs.settings import ENGINES, Settings
from runs.supervision import STOP, check_stopped, take_lease
from service.readiness import probe_all
from service.story_text import print_story
from sessions.samples import VerifyRequest, new_seed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bigquery.clients import Clients
    from jobs.sessions_verification import Reading
    from oracle.comparison import Verification
    from runs.job import Job
    from runs.report import RunReport


def main(
    request: RunRequest,
    settings: Settings,
    clients: Clients,
    *,
    trigger: str | None = None,
    progress: Progress | None = None,
) -> RunReport:
    """Run a job as the request says: under its lease, step by step, and into the ledger.

    Raises EtlError for an error that a person can fix, after writing it to the ledger; readers
    then see no change. Any other exception is a bug. `trigger` names a scheduled delivery: if
    it has already succeeded, the report says `duplicate`, with the id of that run.
    """
    job = find_job(request.job)
    run = begin(request, settings, clients, trigger=trigger, progress=progress, unit=job.unit)
    with logging_refusals(run, job.report_type.log_names):
        job.check_request(request, settings)
        work = job.begin(run)
    with recorded(work):
        with run.step("lease"):
            stoppable = settled(replace(run.warehouse, check=check_stopped), job.sources(settings))
            ensure_dataset(stoppable)
            run.warehouse = replace(stoppable, check=run.warehouse.check)
            run.supervisor = take_lease(run.lease)
        with supervised(work, run.supervisor):
            if run.settled_before:
                return answer_again(work, run.settled_before)
            enter_ledger(work)
            for step in job.steps:
                if not (step.publishes and request.dry_run):
                    with run.step(step.name):
                        if step.publishes:
                            await_ledger(run)
                        step.work(work)
            await_ledger(run)
            report = finish(work, "succeeded")
            record(run, report)
    return report


def run(
    request: RunRequest,
    settings: Settings,
    *,
    is_local: bool = False,
    trigger: str | None = None,
    progress: Progress | None = None,
) -> RunReport:
    """A run with clients of its own, closed at its end.

    Made from the settings' credentials or, when `is_local`, those of the sandbox's emulator.
    """
    LOG.info("run requested", extra={"fields": {"request": request.shown(), "trigger": trigger}})
    with ExitStack() as stack:
        try:
            check_room(request.job, waits=settings.lease_wait_seconds > 0)
            clients = stack.enter_context(connect(settings, is_local=is_local))
        except EtlError as error:
            names = find_job(request.job).report_type.log_names
            log_run_not_begun(request.job, error, str(error), names)
            raise
        return main(request, settings, clients, trigger=trigger, progress=progress)


def _day(text: str) -> date:
    if not re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", text):
        message = f"{text!r} is no day: write it like 2026-01-31"
        raise argparse.ArgumentTypeError(message)
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        message = f"there is no day {text}: correct it"
        raise argparse.ArgumentTypeError(message) from error


def _count(text: str) -> int:
    if not re.fullmatch(r"-?[0-9]{1,19}", text):
        message = f"{text!r} is no whole number: write it like 100"
        raise argparse.ArgumentTypeError(message)
    return int(text)


def _params(text: str) -> Mapping[str, object]:
    try:
        return RunRequest.from_json(f'{{"params": {text or "{}"}}}'.encode()).params
    except RequestError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line; help and usage errors end the process, the latter with code 2."""
    parser = argparse.ArgumentParser(
        prog="main.py",
        description="Run a job: by default bring posthog_aggregated up to date.",
        epilog="Without options: whatever changed since the last successful run.",
        allow_abbrev=False,
    )
    parser.add_argument("--full-load", action="store_true", help="rebuild every session")
    parser.add_argument(
        "--limit", type=_count, metavar="N", help="only the N sessions that start last"
    )
    parser.add_argument("--start-date", type=_day, metavar="D", help="first UTC day")
    parser.add_argument("--end-date", type=_day, metavar="D", help="last UTC day (default: today)")
    parser.add_argument("--engine", choices=ENGINES, help="what aggregates (default: ENGINE)")
    parser.add_argument("--dry-run", action="store_true", help="everything but publishing")
    parser.add_argument(
        "--force",
        action="store_true",
        help="run even if the trigger succeeded or a Firebase table shrank",
    )
    parser.add_argument("--job", default="sessions", metavar="NAME", help="default: sessions")
    parser.add_argument(
        "--params", type=_params, default={}, metavar="JSON", help="what only this job understands"
    )
    parser.add_argument("--check", action="store_true", help="check the stored data, run nothing")
    parser.add_argument(
        "--verify", type=_count, metavar="N", help="compare N stored sessions with the source"
    )
    parser.add_argument("--session", metavar="ID", help="verify this session")
    parser.add_argument("--seed", metavar="TEXT", help="seed for the choice of sessions")
    parser.add_argument("--yes", action="store_true", help="read without asking")
    parser.add_argument("--explain", metavar="SESSION_ID", help="show what a session is made of")
    parser.add_argument("--local", action="store_true", help="against the sandbox's emulator")
    parser.add_argument("--json", action="store_true", help="the report as JSON, alone on stdout")
    parser.add_argument("--version", action="version", version=f"posthog-etl {VERSION}")
    return parser.parse_args(arguments)


_SHOW_CURSOR: Final = "\x1b[?25h"


def _stop(number: int, _: object) -> None:
    """Stop the run at its next check; a second signal ends the process at once."""
    STOP.set()
    signal.signal(number, signal.SIG_DFL)
    if sys.stderr.isatty():
        sys.stderr.write(_SHOW_CURSOR)  # the bars hide it, and nothing else may run any more


def command_line(arguments: Sequence[str]) -> int:
    """Run as the command line says; returns the exit code."""
    options = parse_arguments(arguments)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, _stop)
    if sys.stderr is None:  # started with 2>&-
        sys.stderr = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - until the end
    on_terminal = sys.stderr.isatty()
    execution = Execution.from_environment(os.environ)
    fields = execution.log_fields if execution else {}
    configure_logging(sys.stderr, as_json=not on_terminal, fields=fields)
    if execution and execution.idle:
        LOG.warning("%s", execution.idle)
        return 0
    try:
        request = _request(options)
        environ = local_environment(os.environ) if options.local else os.environ
        settings = Settings.from_environment(environ, local=options.local)
        if options.check or _is_read_only(options):
            return _answer(request, settings, options)
        return _run(request, settings, options, execution, on_terminal=on_terminal)
    except EtlError as error:
        if on_terminal or not is_reported(error):
            LOG.error("%s", error, extra={"fields": {"type": type(error).__name__}})
        return error.exit_code
    except Exception:  # noqa: BLE001 - nothing is above this entry point
        LOG.exception("Something unforeseen happened: this is a bug.")
        return 1


def _request(options: argparse.Namespace) -> RunRequest:
    return RunRequest(
        full_load=options.full_load,
        limit=options.limit,
        start_date=options.start_date,
        end_date=options.end_date,
        engine=options.engine,
        dry_run=options.dry_run,
        force=options.force,
        job=options.job,
        params=options.params,
    )


def _run(
    request: RunRequest,
    settings: Settings,
    options: argparse.Namespace,
    execution: Execution | None,
    *,
    on_terminal: bool,
) -> int:
    """Run and print the report to stdout; in a Cloud Run job, only log it."""
    job = find_job(request.job)
    progress = TerminalProgress(len(job.step_names), unit=job.unit) if on_terminal else None
    trigger = execution.trigger if execution else None
    try:
        report = run(request, settings, is_local=options.local, trigger=trigger, progress=progress)
    finally:
        if progress:
            progress.close()
    if options.json:
        print_report(f"{json.dumps(report.to_json(), indent=2)}\n")
    elif not execution:
        print_report(f"{report_text(report)}\n")
    return 0


def print_report(report: str) -> None:
    """Write to stdout. The run has published, so a stdout that is closed or full is no failure."""
    if sys.stdout is None:  # started with >&-
        return
    try:
        sys.stdout.write(report)
        sys.stdout.flush()
    except OSError as error:
        LOG.warning("The report can't be written to stdout (%s): GET /runs has it.", error)
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())  # or Python fails in the same way at its exit
        os.close(nowhere)


def _check(request: RunRequest, settings: Settings, options: argparse.Namespace) -> int:
    """Print a line for each thing that a run needs or that stored data should satisfy."""
    job = find_job(request.job)
    with connect(settings, is_local=options.local) as clients:
        warehouse = _looking(clients, settings, "check")
        found = [*_look(job, warehouse)] if job.check else []
        if options.verify is not None:
            from jobs.sessions import VERIFY_AND_RECORD

            now = datetime.now(UTC)
            verified = VERIFY_AND_RECORD(warehouse, _to_verify(options), now)
            found.append(_verified(verified))
    outcome = worst(found)
    width = max((len(each.name) for each in found), default=0)
    if options.json:
        shown = {"outcome": outcome, "checks": [each.to_json() for each in found]}
        sys.stdout.write(f"{json.dumps(shown, indent=2)}\n")
    else:
        sys.stdout.writelines(
            f"{each.outcome:<8} {each.name:<{width}} {each.message}\n" for each in found
        )
    return AuditError.exit_code if outcome == "failed" else 0


def _looking(clients: Clients, settings: Settings, name: str) -> Warehouse:
    """BigQuery for a question, which Ctrl-C ends."""
    return Warehouse(clients=clients, settings=settings, run_id=name, check=check_stopped)


def _look(job: Job[Any], warehouse: Warehouse) -> list[Check]:
    """The checks of `GET /ready`, and then those of the stored data."""
    probes = probe_all(warehouse.settings, lambda: nullcontext(warehouse), job)
    needs = [probe.check for probe in probes]
    if worst(needs) == "failed" or job.check is None:  # it would fail too
        return needs
    return [*needs, *job.check(warehouse, datetime.now(UTC))]


def _is_read_only(options: argparse.Namespace) -> bool:
    """Whether the command only reads and starts no run."""
    named = (options.verify, options.session, options.explain, options.seed)
    return options.yes or any(each is not None for each in named)


def _answer(request: RunRequest, settings: Settings, options: argparse.Namespace) -> int:
    """Check the stored data; raises RequestError for a run's options."""
    looked_at = RunRequest(job=request.job)
    if not options.check:
        looked_at = replace(looked_at, start_date=request.start_date, end_date=request.end_date)
    if request != looked_at:
        message = "--check, --verify and --explain run nothing: leave out the options of a run."
        raise RequestError(message)
    if options.check:
        return _check(request, settings, options)
    if options.explain is not None:
        return _explain(settings, options)
    if options.verify is None and options.session is None:
        message = "--seed and --yes belong to --verify: say how many sessions, or name one."
        raise RequestError(message)
    return _verify(settings, options)


def _verified(found: Verification) -> Check:
    text = " ".join(verification_text(found).split("\n"))
    return Check(name="verify", outcome="ok" if found.is_right else "failed", message=text)


def _to_verify(options: argparse.Namespace) -> VerifyRequest:
    return VerifyRequest(
        seed=options.seed or new_seed(datetime.now(UTC)),
        size=1 if options.verify is None else options.verify,
        start_date=options.start_date,
        end_date=options.end_date,
        session_id=options.session,
    )


def _verify(settings: Settings, options: argparse.Namespace) -> int:
    """Stored sessions against the source; exit code 5 if a cell differs."""
    from jobs.sessions import VERIFY

    request = _to_verify(options)
    with connect(settings, is_local=options.local) as clients:
        warehouse = _looking(clients, settings, "verify")
        found = VERIFY(warehouse, request, partial(_confirm, options))
    shown = json.dumps(found.to_json(), indent=2) if options.json else verification_text(found)
    sys.stdout.write(f"{shown}\n")
    return 0 if found.is_right else AuditError.exit_code


def _explain(settings: Settings, options: argparse.Namespace) -> int:
    """What one session is made of."""
    from jobs.sessions import EXPLAIN

    with connect(settings, is_local=options.local) as clients:
        warehouse = _looking(clients, settings, "explain")
        story = EXPLAIN(warehouse, options.explain, _say)
    if options.json:
        sys.stdout.write(f"{json.dumps(story.to_json(), indent=2)}\n")
    else:
        print_story(story)
    return 0


def _say(reading: Reading) -> None:
    sys.stderr.write(f"{reading}\n")


def _confirm(options: argparse.Namespace, reading: Reading) -> None:
    """Say what will be read, and ask for consent on a terminal."""
    _say(reading)
    if options.yes:
        return
    if not sys.stdin.isatty():
        message = "There is no terminal to ask on: add --yes."
        raise RequestError(message)
    sys.stderr.write("Read it? [y/N] ")
    if sys.stdin.readline().strip().lower() not in {"y", "yes"}:
        message = "Nothing was read: answer y to verify."
        raise RequestError(message)


if __name__ == "__main__":
    sys.exit(command_line(sys.argv[1:]))
