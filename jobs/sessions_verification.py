"""Stored sessions verified against the source: what is read, and at what cost. Computes no cell."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

import etl_functions as etl
from bigquery.destination import find_table
from bigquery.jobs import estimate_bytes, run_query
from bigquery.parameters import Parameter, array, scalar
from bigquery.retries import start, wait_for
from oracle.comparison import (
    SourceRows,
    Verification,
    compare,
    difference_text,
    piece_owners,
    unknown_columns,
)
from oracle.ids import is_phone_like, phone
from oracle.rows import Exclusions, read_row
from oracle.story import Story, build_story
from runs.errors import AbsentError, DestinationError, RequestError
from runs.ledger_row import start_ledger
from runs.log import log_run_finished
from runs.report import RunReport
from runs.request import RunRequest
from sessions import samples, sources
from sessions.plan import days_of
from sessions.samples import VerifyRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from bigquery.warehouse import Warehouse
    from sessions.metric_types import MetricTable
    from sessions.sources import Source


type Row = dict[str, Any]
type Confirm = Callable[[Reading], None]  # raises where the reading is not wanted

_TIB: Final = 2**40
_LOOKED_AT_DAYS: Final = 7  # of the source, for an id that is not stored
_NEAR: Final = timedelta(seconds=3660)  # of a session: documents that are shown
_AROUND: Final = timedelta(seconds=60)  # of a session: the tolerance for documents


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What a verification is about to read."""

    days: tuple[date, ...]
    bytes_estimated: int
    usd: float

    def __str__(self) -> str:
        """In a sentence."""
        days = ", ".join(f"{day}" for day in self.days)
        return (
            f"It reads {len(self.days)} days ({days}): {self.bytes_estimated / 1e9:.3f} GB,"
            f" ${self.usd:.4f}."
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """A statement and its parameters."""

    source: Source
    sql: str
    parameters: tuple[Parameter, ...]


def verify(
    metric_table: MetricTable,
    warehouse: Warehouse,
    request: VerifyRequest,
    confirm: Confirm,
) -> Verification:
    """Compare every cell of the chosen sessions with what the source rows say.

    `confirm` receives the plan before anything is read. Raises RequestError where no session
    is chosen or the reading would pass MAX_BYTES_BILLED.
    """
    stored = _choose(metric_table, warehouse, request)
    days = tuple(samples.days_to_read(stored))
    queries = source_queries(metric_table, warehouse, stored, days)
    reading = estimate(warehouse, queries, days)
    confirm(reading)
    source = _read_source(warehouse, queries)
    verdicts = compare(metric_table, stored, source, exclusions=exclusions(warehouse))
    return Verification(
        seed=request.seed,
        days=days,
        bytes_estimated=reading.bytes_estimated,
        usd=reading.usd,
        verdicts=tuple(verdicts),
        unchecked=tuple(unknown_columns(metric_table)),
    )


def explain(
    metric_table: MetricTable, warehouse: Warehouse, session_id: str, confirm: Confirm
) -> Story:
    """The story of a stored session. Raises RequestError that says why there is none."""
    request = VerifyRequest(seed="", session_id=session_id)
    try:
        stored = _choose(metric_table, warehouse, request)
    except AbsentError as error:
        why = why_absent(metric_table, warehouse, session_id, confirm)
        raise AbsentError(why) from error
    return story_of(metric_table, warehouse, stored[0], confirm)


def story_of(
    metric_table: MetricTable, warehouse: Warehouse, stored: Row, confirm: Confirm
) -> Story:
    """The story of a session whose stored row is known."""
    days = tuple(samples.days_to_read([stored]))
    queries = source_queries(metric_table, warehouse, [stored], days, around=_NEAR)
    confirm(estimate(warehouse, queries, days))
    source = _read_source(warehouse, queries)
    return build_story(metric_table, stored, source, exclusions=exclusions(warehouse))


def why_absent(
    metric_table: MetricTable, warehouse: Warehouse, session_id: str, confirm: Confirm
) -> str:
    """Why a session is not stored: as the destination's tables say, or else its newest rows."""
    sql = samples.kept_out_sql(
        warehouse.table("quarantined_sessions").sql, warehouse.table("sessions").sql
    )
    parameter = scalar("session_id", "STRING", session_id)
    row = run_query(warehouse, "kept_out", sql, [parameter], refused_as=DestinationError)[0]
    if row["kept_out"]:
        return (
            f"Session {session_id} is kept out of the table, because it has {row['kept_out']} rows:"
            " see quarantined_sessions."
        )
    if row["pieces"]:
        return (
            f"Session {session_id} is split into {row['pieces']} pieces: name one of them, "
            f"like {row['piece']}."
        )
    return _told_by_source(metric_table, warehouse, session_id, confirm)


def _told_by_source(
    metric_table: MetricTable, warehouse: Warehouse, session_id: str, confirm: Confirm
) -> str:
    """What the newest days of the source say of an id: not loaded yet, set aside, or not there."""
    events = etl.find_source(warehouse, sources.source_tables(warehouse.settings)["events"])
    days = tuple(sorted(days_of(etl.read_day_counts(warehouse, events).counts))[-_LOOKED_AT_DAYS:])
    query = Query(
        source=events,
        sql=samples.events_sql(metric_table, events, days),
        parameters=(array("keys", "STRING", [samples.loose(session_id)]),),
    )
    confirm(estimate(warehouse, {"events": query}, days))
    found = Counter(
        outcome if isinstance(outcome, str) else "valid"
        for row in _rows(warehouse, "events", query)
        if isinstance(outcome := read_row(metric_table, row, exclusions(warehouse)), str)
        or outcome.session_id == session_id
    )
    if found["valid"]:
        return (
            f"There is no session {session_id} yet: {found['valid']} events of it are in the source"
            " and not loaded, so run main.py."
        )
    if found:
        counts = ", ".join(f"{reason} {count}" for reason, count in sorted(found.items()))
        return (
            f"There is no session {session_id}: all of its newest rows were set aside ({counts})."
        )
    return (
        f"There is no session {session_id}: no row of the newest {len(days)} days of the source has"
        " that id."
    )


def verify_and_record(
    metric_table: MetricTable, warehouse: Warehouse, request: VerifyRequest, now: datetime
) -> Verification:
    """Verify without asking, and write the outcome to the ledger and the log, as a run's.

    So a cell that differs alerts like a failed run.
    """
    found = verify(metric_table, warehouse, request, lambda _: None)
    wrong = [each for verdict in found.of("wrong") for each in verdict.differences]
    report = RunReport(
        run_id=f"{now:%Y%m%dT%H%M%S}_{uuid4().hex[:8]}",
        status="failed" if wrong else "succeeded",
        kind="verify",
        request=RunRequest(),
        engine=warehouse.settings.engine,
        started_at=now,
        finished_at=datetime.now(UTC),
        counts={"sessions": len(found.verdicts), "wrong_cells": len(wrong)},
        bytes_processed=warehouse.bytes_billed,
        error=f"{len(wrong)} cells are wrong: {difference_text(wrong[0])}" if wrong else None,
    )
    start_ledger(warehouse, report).result()
    log_run_finished(report)
    return found


def exclusions(warehouse: Warehouse) -> Exclusions:
    """The settings that leave rows out, as the oracle takes them."""
    settings = warehouse.settings
    return Exclusions(
        exclude_distinct_ids=frozenset(settings.exclude_distinct_ids),
        exclude_libs=frozenset(settings.exclude_libs),
        exclude_emulators=settings.exclude_emulators,
        exclude_bots=settings.exclude_bots,
    )


def _choose(metric_table: MetricTable, warehouse: Warehouse, request: VerifyRequest) -> list[Row]:
    table = warehouse.table("sessions")
    if find_table(warehouse, table) is None:
        message = f"Table {table} does not exist yet: run main.py once, then verify."
        raise DestinationError(message)
    if request.session_id is not None:
        sql = samples.session_sql(metric_table, table.sql)
        parameters = [scalar("session_id", "STRING", request.session_id)]
    else:
        sql = samples.sample_sql(metric_table, table.sql, size=request.size)
        parameters = [
            scalar("seed", "STRING", request.seed),
            scalar("first_day", "DATE", request.start_date or date.min),
            scalar("last_day", "DATE", request.end_date or date.max),
        ]
    rows = run_query(warehouse, "sample", sql, parameters, refused_as=DestinationError)
    if not rows:
        message = f"Table {table} has no such session: see --explain, or choose other days."
        raise AbsentError(message)
    return rows


def source_queries(
    metric_table: MetricTable,
    warehouse: Warehouse,
    stored: list[Row],
    days: tuple[date, ...],
    *,
    around: timedelta = _AROUND,
) -> dict[str, Query]:
    """A query for each source table, by the field of SourceRows that it fills."""
    tables = sources.source_tables(warehouse.settings)
    found = _at_once(
        warehouse,
        {key: partial(etl.find_source, warehouse, table) for key, table in tables.items()},
    )
    pieces = [row["session_id"] for row in stored if row["is_split"]]
    wanted = {row["session_id"] for row in stored}.union(*map(piece_owners, pieces))
    ids = sorted(map(samples.loose, wanted))
    distinct_ids = {each for row in stored for each in row["distinct_ids"]}
    tails = {samples.phone_tail(phone(each) or "") for each in distinct_ids if is_phone_like(each)}
    keys = array("keys", "STRING", ids)
    spans = (
        array("firsts", "TIMESTAMP", [row["started_at"] - around for row in stored]),
        array("lasts", "TIMESTAMP", [row["ended_at"] + around for row in stored]),
    )
    people = (
        array("keys", "STRING", sorted({samples.loose(each) for each in distinct_ids})),
        array("tails", "STRING", sorted(tails - {""})),
    )
    of_pieces = len(pieces) == len(stored)
    statements = {
        "events": samples.events_sql(metric_table, found["events"], days, of_pieces=of_pieces),
        "users": samples.users_sql(found["users"]),
        "documents": samples.documents_sql(found["documents"]),
        "posthog_sessions": samples.posthog_sessions_sql(found["posthog_sessions"]),
    }
    used = sorted({samples.loose(each) for each in distinct_ids} | {""})
    parameters = {"users": people, "documents": spans}
    if of_pieces:
        parameters["events"] = (keys, array("distinct_keys", "STRING", used))
    return {
        name: Query(source=found[name], sql=sql, parameters=parameters.get(name, (keys,)))
        for name, sql in statements.items()
    }


def estimate(warehouse: Warehouse, queries: dict[str, Query], days: tuple[date, ...]) -> Reading:
    """What the queries would read. Raises RequestError where that passes MAX_BYTES_BILLED."""
    asked = {
        name: partial(estimate_bytes, warehouse, name, query.sql, query.parameters)
        for name, query in queries.items()
    }
    sizes = _at_once(warehouse, asked).values()
    most = warehouse.settings.max_bytes_billed
    if most is not None and max(sizes) > most:
        message = (
            f"A query would read {max(sizes)} bytes, more than MAX_BYTES_BILLED ({most}): "
            "choose fewer sessions or days."
        )
        raise RequestError(message)
    usd = sum(sizes) / _TIB * warehouse.settings.usd_per_tib
    return Reading(days=days, bytes_estimated=sum(sizes), usd=usd)


def _read_source(warehouse: Warehouse, queries: dict[str, Query]) -> SourceRows:
    asked = {name: partial(_rows, warehouse, name, query) for name, query in queries.items()}
    return SourceRows(**_at_once(warehouse, asked))


def _at_once[T](warehouse: Warehouse, calls: Mapping[str, Callable[[], T]]) -> dict[str, T]:
    """What each call returns: none waits for another."""
    pending = {name: start(each) for name, each in calls.items()}
    return {name: wait_for(warehouse, each) for name, each in pending.items()}


def _rows(warehouse: Warehouse, name: str, query: Query) -> list[Row]:
    with etl.blaming_views(query.source):
        return run_query(warehouse, f"verify_{name}", query.sql, query.parameters)
