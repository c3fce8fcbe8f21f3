"""The job `tmdb_changes`: what has changed at TMDB, as documents in Redis.

Redis and BigQuery share no transaction. So documents are written first, in any number of runs,
since repeating a write is harmless; then the watermark moves, if no id failed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from itertools import batched
from typing import TYPE_CHECKING, Any, ClassVar, Final

from apis import publication
from apis.http import ApiClient
from apis.loading import ensure_tables
from apis.outcomes import Outcomes
from apis.redis_documents import DryDocuments, RedisDocuments
from apis.tables import TMDB_STATE
from apis.tmdb import KINDS, read_changes
from apis.tmdb_to_redis import update_documents
from apis.windows import requested_window, unread_window
from bigquery.jobs import run_query
from bigquery.parameters import array, scalar
from jobs.tmdb_changes_checks import check_redis, check_tmdb_changes
from jobs.tmdb_changes_setup import NAME, STATE_TABLE, redis_server, tmdb
from process_tmdb_changes import QualityRules, document_key, judge
from runs.context import await_ledger
from runs.errors import DestinationError, RequestError, UnavailableError
from runs.job import Job, Step
from runs.report import RunReport

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import date

    from apis.tmdb import Changes, Kind
    from apis.windows import Window
    from runs.context import Run
    from runs.report import RunStatus

RULES: Final = QualityRules()
_BATCH: Final = 200  # ids between two reports of progress
_OVERLAP_DAYS: Final = 1  # read again, since a day's list may grow after midnight
_FIRST_DAYS: Final = 13  # of the first run: as many as one request covers


@dataclass(frozen=True, slots=True, kw_only=True)
class TmdbChangesReport(RunReport):
    """What a run of the job did."""

    log_names: ClassVar[tuple[str, ...]] = ("first_day", "last_day", "kinds")

    first_day: str | None = None
    """None where every day up to yesterday was done before."""
    last_day: str | None = None
    kinds: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """By kind, how its ids ended: `upserted`, `gone`, `filtered` by rule, `failed`."""

    @property
    def figures(self) -> Mapping[str, Mapping[str, int]]:
        """How many ids of each kind are in Redis now."""
        return {"upserted": {kind: ended["upserted"] for kind, ended in self.kinds.items()}}

    @property
    def summary(self) -> str | None:
        """The days whose changes were read."""
        if self.first_day is None:
            return "Nothing was left to do: the watermarks stand at yesterday."
        return f"changes of {self.first_day} to {self.last_day}"


@dataclass(kw_only=True)
class ChangesWork:
    """What a run of the job has found so far."""

    run: Run
    kinds: tuple[Kind, ...]
    requested: Window | None  # the days that were asked for, if any were
    windows: dict[Kind, Window] = field(default_factory=dict)
    changes: dict[Kind, Changes] = field(default_factory=dict)
    outcomes: dict[Kind, Outcomes] = field(default_factory=dict)

    @property
    def ids(self) -> dict[Kind, tuple[int, ...]]:
        """The ids of each kind, as many as were asked for."""
        limit = self.run.request.limit
        return {kind: changes.ids[:limit] for kind, changes in self.changes.items()}

    @property
    def failed(self) -> dict[tuple[Kind, int], str]:
        """Why each failed id failed."""
        return {
            (kind, number): why
            for kind, outcomes in self.outcomes.items()
            for number, why in outcomes.failed.items()
        }

    @property
    def moves_watermarks(self) -> bool:
        """Whether the run is to bring everything up to date."""
        return self.requested is None and self.run.request.limit is None and bool(self.windows)

    def report(self, status: RunStatus, error: str | None = None) -> TmdbChangesReport:
        """What the run has done so far, under this status."""
        first = min((each.first for each in self.windows.values()), default=None)
        last = max((each.last for each in self.windows.values()), default=None)
        return TmdbChangesReport(
            **self.run.head(status, error),
            first_day=first.isoformat() if first else None,
            last_day=last.isoformat() if last else None,
            kinds={kind: each.to_json() for kind, each in self.outcomes.items()},
        )


def _begin(run: Run) -> ChangesWork:
    request = run.request
    requested = requested_window(request.start_date, request.end_date, today=run.started_at.date())
    if requested:
        run.kind = "dates"
    elif request.limit is not None:
        run.kind = "limit"
    return ChangesWork(run=run, kinds=requested_kinds(request.params), requested=requested)


def requested_kinds(params: Mapping[str, object]) -> tuple[Kind, ...]:
    """The kinds that `params` names, in the usual order; all where it names none (RequestError)."""
    if unknown := params.keys() - {"kinds"}:
        message = f"params of {NAME} has no {min(unknown)}: use kinds, or leave it out."
        raise RequestError(message)
    requested = params.get("kinds", list(KINDS))
    if (
        not isinstance(requested, list)
        or not requested
        or any(each not in KINDS for each in requested)
    ):
        message = f'kinds must be a list of {", ".join(KINDS)}, like {{"kinds": ["tv"]}}.'
        raise RequestError(message)
    return tuple(kind for kind in KINDS if kind in requested)


def _ensure_destination(work: ChangesWork) -> None:
    """The table of watermarks, and a Redis that takes documents."""
    run = work.run
    ensure_tables(run, run.settings.aggregated_dataset_id, {STATE_TABLE: TMDB_STATE})
    with RedisDocuments(redis_server(run.settings), check=run.check) as documents:
        documents.check_ready()


def _find_changes(work: ChangesWork) -> None:
    """The ids of each kind that have changed since its watermark, or on the days asked for."""
    run = work.run
    sql = publication.watermarks_sql(run.table(STATE_TABLE))
    rows = run_query(run.warehouse, "watermarks", sql, refused_as=DestinationError)
    watermarks = {row["kind"]: row["watermark"] for row in rows}
    with ApiClient(tmdb(run.settings), check=run.check) as client:
        for kind in work.kinds:
            window = work.requested or _unread(watermarks.get(kind), run.started_at.date())
            if window is not None:
                work.windows[kind] = window
                work.changes[kind] = read_changes(client, kind, window)
    _count_entries(work)


def _unread(watermark: date | None, today: date) -> Window | None:
    return unread_window(watermark, today, overlap=_OVERLAP_DAYS, first_days=_FIRST_DAYS)


def _count_entries(work: ChangesWork) -> None:
    """Count entries that have no id, repeat one, or are left out by a limit."""
    changes, counts = work.changes.values(), work.run.counts
    taken = sum(map(len, work.ids.values()))
    ids = sum(len(each.ids) for each in changes)
    counts["without_id"] = sum(each.without_id for each in changes)
    counts["repeated"] = sum(each.entries for each in changes) - counts["without_id"] - ids
    counts["unselected"] = ids - taken


def _update_documents(work: ChangesWork) -> None:
    """Each id's document is written or deleted, in batches; a dry run only judges."""
    run = work.run
    if run.request.dry_run:
        documents: RedisDocuments | DryDocuments = DryDocuments()
    else:
        await_ledger(run)
        run.set_stop_message("what was written to Redis stands, and no watermark moved")
        documents = RedisDocuments(redis_server(run.settings), check=run.check)
    batches = [
        (kind, batch)
        for kind, ids in work.ids.items()
        for batch in batched(ids, _BATCH, strict=False)
    ]
    with ApiClient(tmdb(run.settings), check=run.check) as client, documents:
        for number, (kind, ids) in enumerate(batches, 1):
            ended = update_documents(
                client,
                documents,
                work.changes[kind],
                ids,
                judge=partial(judge, rules=RULES, today=run.started_at.date()),
                key_of=partial(document_key, kind),
            )
            work.outcomes.setdefault(kind, Outcomes()).add(ended)
            _count(run, ended)
            done = sum(each.total for each in work.outcomes.values())
            run.progress.batch(number, len(batches), done)


def _count(run: Run, ended: Outcomes) -> None:
    found = {
        "upserted": ended.upserted,
        "gone": ended.gone,
        "failed": len(ended.failed),
        **{f"filtered_{rule}": count for rule, count in ended.filtered.items()},
    }
    for name, count in found.items():
        run.counts[name] = run.counts.get(name, 0) + count


def _move_watermarks(work: ChangesWork) -> None:
    """Move the watermarks, unless an id failed. Raises UnavailableError where one did."""
    run, failed = work.run, work.failed
    if failed:
        (kind, number), why = next(iter(failed.items()))
        message = (
            f"{len(failed)} of {sum(map(len, work.ids.values()))} ids failed, the first is {kind} "
            f"{number}: {why} No watermark moved: run again."
        )
        raise UnavailableError(message)
    if not work.moves_watermarks:
        run.publish("watermark", publication.complete_only_sql(run.lease.sql))
        return
    yesterday = max(window.last for window in work.windows.values())
    sql = publication.move_watermarks_sql(run.lease.sql, run.table(STATE_TABLE))
    parameters = [
        array("kinds", "STRING", tuple(work.windows)),
        scalar("watermark", "DATE", yesterday),
    ]
    run.publish("watermark", sql, parameters)


JOB: Final = Job(
    name=NAME,
    description="Titles and persons that have changed at TMDB, as documents in Redis.",
    begin=_begin,
    steps=(
        Step(name="destination", work=_ensure_destination),
        Step(name="changes", work=_find_changes),
        Step(name="documents", work=_update_documents),
        Step(name="watermark", work=_move_watermarks, publishes=True),
    ),
    report_type=TmdbChangesReport,
    check=check_tmdb_changes,
    unit="ids",
    options=frozenset({"start_date", "end_date", "limit", "params"}),
    needs=("TMDB_READ_TOKEN", "REDIS_HOST"),
    local_needs=("TMDB_BASE_URL",),
    probes={"redis": check_redis},
    shown={"rules": RULES.to_json()},
)
