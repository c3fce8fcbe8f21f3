"""What must hold before a run is visible, and the transaction that makes it so: SQL text. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from runs.errors import AuditError
from runs.lease import complete_sql, hold_lease_sql
from sessions.enrichment import firebase_figures_sql
from sessions.layout import wrapped
from sessions.plan import dates_sql
from sessions.tables import STATE, quarantined_schema, sessions_schema

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Iterable, Mapping

    from bigquery.tables import TableId, TableSchema
    from sessions.metric_table import MetricTable
    from sessions.plan import Plan, State


_SHARE_KEPT = 0.8  # of a Firebase table's ids, from one run to the next


@dataclass(frozen=True, slots=True, kw_only=True)
class StagingTables:
    """The tables of one run that nobody else reads, as they stand in SQL."""

    projected: str
    touched: str
    planned: str
    batches: str
    aggregated: str
    user_keys: str
    documents: str
    channels: str
    concerned: str
    staged: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DestinationTables:
    """The tables that a publication changes, as they stand in SQL."""

    sessions: str
    quarantined: str
    state: str
    lease: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditFigures:
    """What is counted, each independently of the others, before a run is published."""

    touched: int
    emptied: int  # touched, with no valid row left
    planned: int
    quarantined: int
    concerned: int
    staged: int
    distinct_keys: int
    null_keys: int
    backwards: int  # sessions that end before they start
    planned_rows: int
    quarantined_rows: int
    duplicate_rows: int
    batched_rows: int
    aggregated_events: int
    users: int
    documents: int
    incomplete_documents: int  # without id, creator or creation time: they count nowhere
    creators_unknown: int  # creators of documents that are no users


def audit_sql(tables: StagingTables) -> str:
    """A SELECT of one row: AuditFigures, by name."""
    return f"""WITH planned AS (
  SELECT
    COUNT(*) AS planned,
    COUNTIF(is_quarantined) AS quarantined,
    IFNULL(SUM(row_count), 0) AS planned_rows,
    IFNULL(SUM(IF(is_quarantined, row_count, 0)), 0) AS quarantined_rows
  FROM {tables.planned}
),
copies AS (
  SELECT session_id, uuid, COUNT(*) AS row_count
  FROM {tables.projected}
  WHERE reason IS NULL AND session_id IN (SELECT session_id FROM {tables.touched})
  GROUP BY session_id, uuid
),
repeats AS (
  SELECT IFNULL(SUM(c.row_count - 1), 0) AS duplicate_rows
  FROM copies AS c
  JOIN {tables.planned} AS s ON s.session_id = c.session_id
  WHERE NOT s.is_quarantined
),
staged AS (
  SELECT
    COUNT(*) AS staged,
    COUNT(DISTINCT session_id) AS distinct_keys,
    COUNTIF(session_id IS NULL OR session_date IS NULL) AS null_keys,
    COUNTIF(ended_at < started_at) AS backwards
  FROM {tables.staged}
)
SELECT
  planned.planned, planned.quarantined, planned.planned_rows, planned.quarantined_rows,
  staged.staged, staged.distinct_keys, staged.null_keys, staged.backwards,
  (SELECT COUNT(*) FROM {tables.touched}) AS touched,
  (
    SELECT COUNT(*) FROM {tables.touched} AS t
    WHERE NOT EXISTS (SELECT 1 FROM copies AS c WHERE c.session_id = t.session_id)
  ) AS emptied,
  (SELECT COUNT(*) FROM {tables.concerned}) AS concerned,
  (SELECT duplicate_rows FROM repeats) AS duplicate_rows,
  (SELECT COUNT(*) FROM {tables.batches}) AS batched_rows,
  {firebase_figures_sql(user_keys=tables.user_keys, documents=tables.documents)},
  (SELECT IFNULL(SUM(event_count), 0) FROM {tables.aggregated}) AS aggregated_events
FROM planned, staged"""


def check_audit(
    figures: AuditFigures, plan: Plan, rows_by_day: Mapping[dt.date, int], read: Iterable[dt.date]
) -> None:
    """Nothing, or an AuditError that names every rule that does not hold.

    `rows_by_day`: everything projected; `read`: the changed days that were read whole.
    """
    f = figures
    rules = {
        f"{f.staged} sessions were staged under {f.distinct_keys} ids": f.staged == f.distinct_keys,
        f"{f.null_keys} sessions were staged without id or date": f.null_keys == 0,
        f"{f.backwards} sessions end before they start": f.backwards == 0,
        f"{f.planned_rows} valid rows are not {f.aggregated_events} aggregated events"
        f" + {f.quarantined_rows} quarantined + {f.duplicate_rows} duplicates": f.planned_rows
        == f.aggregated_events + f.quarantined_rows + f.duplicate_rows,
        f"{f.batched_rows} events were batched and {f.aggregated_events} aggregated": f.batched_rows
        == f.aggregated_events,
        f"{f.staged} sessions staged are not {f.touched} touched - {f.quarantined} quarantined"
        f" - {f.emptied} emptied + {f.concerned} concerned": f.staged
        == f.touched - f.quarantined - f.emptied + f.concerned,
    }
    for day in read:
        listed, projected = plan.rows_of(day), rows_by_day.get(day, 0)
        rules[f"{day} has {listed} rows by its metadata and {projected} were read"] = (
            projected >= listed
        )
    broken = [rule for rule, holds in rules.items() if not holds]
    if broken:
        message = f"Nothing was published, because an audit failed: {'; '.join(broken)}."
        raise AuditError(message)


def check_firebase(
    figures: AuditFigures, state: State | None, *, users: TableId, documents: TableId
) -> None:
    """Nothing, or an AuditError that names a Firebase table that has lost too much of its rows.

    A load that failed must not take their users from all sessions overnight.
    """
    for table, found, before in (
        (users, figures.users, state.users if state else None),
        (documents, figures.documents, state.documents if state else None),
    ):
        if before is not None and found < _SHARE_KEPT * before:
            message = (
                f"Nothing was published, because table {table} has {found} usable ids where the "
                f"last run found {before}: mend the load of it, or run with --force if it is right."
            )
            raise AuditError(message)


def publish_sql(
    metric_table: MetricTable,
    plan: Plan,
    tables: StagingTables,
    *,
    destination: DestinationTables,
    session_dates: Iterable[dt.date],
) -> str:
    """One transaction: the touched and concerned sessions out, the staged ones in, state along.

    It holds only while the lease is still that of @run_id and @fence. `session_dates`: the
    partitions that the sessions to replace are stored in. The state moves with ordinary runs
    alone: @metrics_version, @sessions_created_at, @days, @users, @documents.
    """
    sessions = destination.sessions
    names = _names(sessions_schema(metric_table))
    replaced = (
        "TRUE"
        if plan.is_full_load
        else f"""{dates_sql("session_date", session_dates)}
  AND (
    session_id IN (SELECT session_id FROM {tables.touched})
    OR session_id IN (SELECT session_id FROM {tables.concerned})
  )"""
    )
    statements = [
        "BEGIN TRANSACTION",
        *hold_lease_sql(destination.lease),
        f"DELETE FROM {sessions}\nWHERE {replaced}",
        f"INSERT INTO {sessions} (\n  {names}\n)\nSELECT\n  {names}\nFROM {tables.staged}",
        *_quarantine_sql(metric_table, plan, tables, destination.quarantined),
        *(_state_sql(destination.state) if plan.is_ordinary else ()),
        "COMMIT TRANSACTION",
    ]
    return ";\n".join(statements) + ";"


def replace_sql(lease: str, tables: Mapping[str, tuple[TableSchema, str]], *, counts: str) -> str:
    """One transaction: each table's rows out, those of its SELECT in; then `counts`, a SELECT.

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
SELECT session_id, first_at, last_at, row_count, quarantine_reason, @run_id
FROM {tables.planned}
WHERE is_quarantined"""
    return [f"DELETE FROM {quarantined}\nWHERE TRUE", insert] if plan.is_full_load else [insert]


def _state_sql(state: str) -> list[str]:
    return [
        f"DELETE FROM {state}\nWHERE TRUE",
        f"""INSERT INTO {state} ({_names(STATE)})
SELECT @run_id, @metrics_version, @sessions_created_at, @days, @users, @documents""",
    ]
