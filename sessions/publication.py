"""The transaction that makes a run visible, as SQL text. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from runs.lease_sql import complete_sql, hold_lease_sql
from sessions import projection
from sessions.plan import dates_sql
from sessions.sql_layout import wrapped
from sessions.tables import STATE, TIES, quarantined_schema, sessions_schema, split_schema

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Iterable, Mapping, Sequence

    from bigquery.tables import TableSchema
    from sessions.metric_types import MetricTable
    from sessions.plan import Plan

_MOST_PARTITIONS = 3000  # BigQuery: 4,000 a job; stored days that are gone from the source count


@dataclass(frozen=True, slots=True, kw_only=True)
class StagingTables:
    """The tables of one run that nobody else reads, as they stand in SQL."""

    projected: str
    touched: str
    split: str
    planned: str
    batches: str
    aggregated: str
    user_keys: str
    documents: str
    channels: str
    outdated: str
    staged: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DestinationTables:
    """The tables that a publication changes, as they stand in SQL."""

    sessions: str
    split_ids: str
    quarantined: str
    ties: str
    state: str
    lease: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a run has found besides its plan, which decides what is replaced."""

    session_dates: Iterable[dt.date]  # the partitions of the stored sessions to replace
    read_whole: Iterable[dt.date]
    has_split: bool  # whether ids were found to be too long


def publish_sql(
    metric_table: MetricTable,
    plan: Plan,
    tables: StagingTables,
    *,
    destination: DestinationTables,
    found: Found,
) -> str:
    """One transaction: replaces touched and outdated sessions by the staged, and the state.

    It holds only while the lease is still that of @run_id and @fence. The state moves with ordinary
    runs alone: @metrics_version, @sessions_created_at, @days, @users, @documents, @columns.
    """
    sessions = destination.sessions
    names = _names(sessions_schema(metric_table))
    insert = f"INSERT INTO {sessions} (\n  {names}\n)\nSELECT\n  {names}\nFROM {tables.staged}"
    parts = date_parts(plan.counted_days) if plan.is_full_load else []
    staged = [f"\nWHERE {part}" for part in parts] or [""]
    replaced = parts or ["TRUE"]
    if not plan.is_full_load:
        replaced = [
            f"""{dates_sql("session_date", found.session_dates)}
  AND (
    session_id IN (SELECT session_id FROM {tables.touched})
    OR session_id IN (SELECT session_id FROM {tables.outdated})
  )"""
        ]
    statements = [
        "BEGIN TRANSACTION",
        *hold_lease_sql(destination.lease),
        *(f"DELETE FROM {sessions}\nWHERE {each}" for each in replaced),
        *(f"{insert}{where}" for where in staged),
        *(_split_sql(metric_table, plan, tables, destination.split_ids) if found.has_split else ()),
        *_ties_sql(plan, tables, destination.ties, sorted(found.read_whole)),
        *_quarantine_sql(metric_table, plan, tables, destination.quarantined),
        *(_state_sql(destination.state) if plan.is_ordinary else ()),
        "COMMIT TRANSACTION",
    ]
    return ";\n".join(statements) + ";"


def date_parts(days: Sequence[dt.date]) -> list[str]:
    """Conditions on `session_date`, each true of few enough of these days; none if all fit.

    A session's date is one of the days that the source has rows on. Each statement is a job.
    """
    bounds = [f"DATE '{day}'" for day in sorted(days)[_MOST_PARTITIONS::_MOST_PARTITIONS]]
    if not bounds:
        return []
    between = [
        f"session_date >= {lower} AND session_date < {upper}" for lower, upper in pairwise(bounds)
    ]
    return [f"session_date < {bounds[0]}", *between, f"session_date >= {bounds[-1]}"]


def replace_sql(lease: str, tables: Mapping[str, tuple[TableSchema, str]], *, counts: str) -> str:
    """One transaction: replaces each table's rows by its SELECT; then `counts`, a SELECT.

    In order, so that a SELECT reads what was written before it. @run_id, @fence, @triggers.
    """
    statements = ["BEGIN TRANSACTION", *complete_sql(lease)]
    for table, (schema, select) in tables.items():
        statements += [
            f"DELETE FROM {table}\nWHERE TRUE",
            f"INSERT INTO {table} (\n  {_names(schema)}\n)\n{select}",
        ]
    return ";\n".join([*statements, "COMMIT TRANSACTION", counts]) + ";"


def _names(schema: TableSchema) -> str:
    return wrapped((column.name for column in schema.fields), indent=2)


def _quarantine_sql(
    metric_table: MetricTable, plan: Plan, tables: StagingTables, quarantined: str
) -> list[str]:
    insert = f"""INSERT INTO {quarantined} ({_names(quarantined_schema(metric_table))})
SELECT session_id, first_at, last_at, row_count, @run_id
FROM {tables.planned}
WHERE is_quarantined"""
    return [f"DELETE FROM {quarantined}\nWHERE TRUE", insert] if plan.is_full_load else [insert]


def _ties_sql(plan: Plan, tables: StagingTables, ties: str, days: Sequence[dt.date]) -> list[str]:
    stored, read = "TRUE", "TRUE"
    if not plan.is_full_load:
        if not days:
            return []
        stored, read = (dates_sql(column, days) for column in ("day", "DATE(event_at)"))
    insert = f"INSERT INTO {ties} ({_names(TIES)})\n{projection.ties_sql(tables.projected, read)}"
    return [f"DELETE FROM {ties}\nWHERE {stored}", insert]


def _split_sql(
    metric_table: MetricTable, plan: Plan, tables: StagingTables, split_ids: str
) -> list[str]:
    insert = f"""INSERT INTO {split_ids} ({_names(split_schema(metric_table))})
SELECT session_id, first_at, last_at, row_count, @run_id
FROM {tables.split}"""
    return [f"DELETE FROM {split_ids}\nWHERE TRUE", insert] if plan.is_full_load else [insert]


def _state_sql(state: str) -> list[str]:
    return [
        f"DELETE FROM {state}\nWHERE TRUE",
        f"""INSERT INTO {state} ({_names(STATE)})
SELECT @run_id, @metrics_version, @sessions_created_at, @days, @users, @documents, @columns""",
    ]
