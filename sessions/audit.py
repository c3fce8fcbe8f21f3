"""What must hold before a run is published: counts of its staging tables, and their rules. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from textwrap import indent
from typing import TYPE_CHECKING

from runs.errors import AuditError
from sessions.enrichment import firebase_figures_sql

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Iterable, Mapping

    from bigquery.tables import TableId
    from sessions.plan import Plan, State
    from sessions.publication import StagingTables

_LEAST_SHARE = 0.8  # of a Firebase table's ids, from one run to the next


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditFigures:
    """What is counted, each independently of the others, before a run is published."""

    touched: int
    deleted: int  # touched, with no valid row left
    planned: int
    quarantined: int
    outdated: int
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
    documents: int  # those that count, and the ignored ones
    ignored_documents: int
    incomplete_documents: int  # without id, creator or creation time: they count nowhere
    creators_unknown: int  # creators of documents that are no users
    user_times_unread: int  # users with a creation time that can't be read
    document_times_unread: int
    newest_at: dt.datetime | None = None  # of the valid events up to the run's time


def audit_sql(tables: StagingTables, newest: str) -> str:
    """A SELECT of one row: AuditFigures, by name. `newest`: a SELECT of `newest_at`; @now."""
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
  ) AS deleted,
  (SELECT COUNT(*) FROM {tables.outdated}) AS outdated,
  (SELECT duplicate_rows FROM repeats) AS duplicate_rows,
  (SELECT COUNT(*) FROM {tables.batches}) AS batched_rows,
  {firebase_figures_sql(user_keys=tables.user_keys, documents=tables.documents)},
  (SELECT IFNULL(SUM(event_count), 0) FROM {tables.aggregated}) AS aggregated_events,
  (
{indent(newest, "    ")}
  ) AS newest_at
FROM planned, staged"""


def check_audit(
    figures: AuditFigures, plan: Plan, rows_by_day: Mapping[dt.date, int], read: Iterable[dt.date]
) -> None:
    """Raise an AuditError that names every broken rule, if any is.

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
        f" - {f.deleted} deleted + {f.outdated} outdated": f.staged
        == f.touched - f.quarantined - f.deleted + f.outdated,
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
    """Raise an AuditError if a Firebase table has lost too many of its rows.

    A failed load must not remove the users of all sessions overnight.
    """
    for table, found, before in (
        (users, figures.users, state.users if state else None),
        (documents, figures.documents, state.documents if state else None),
    ):
        if before is not None and found < _LEAST_SHARE * before:
            message = (
                f"Nothing was published, because table {table} has {found} usable ids where the "
                f"last run found {before}: mend the load of it, or run with --force if it is right."
            )
            raise AuditError(message)


def time_warnings(figures: AuditFigures, *, users: TableId, documents: TableId) -> list[str]:
    """A sentence for each Firebase table with creation times that can't be read."""
    return [
        f"Table {table} has {count} creation times that can't be read and count as none: "
        "docs/reading-sources.md says which can."
        for table, count in (
            (users, figures.user_times_unread),
            (documents, figures.document_times_unread),
        )
        if count
    ]
