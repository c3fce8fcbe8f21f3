"""How fresh the export is: by its newest valid row, as SQL text. Pure.

Rows that were set aside prove nothing about the export, nor do rows ahead of the run's clock.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sessions.plan import ranges_sql
from sessions.projection import project_sql

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Iterable

    from sessions.metric_types import MetricTable
    from sessions.sources import Source


def newest_loaded_sql(*, sessions: str | None, projected: str | None, touched: str | None) -> str:
    """A SELECT of `newest_at`, up to @now: of the rows that were projected and the sessions stored.

    `touched` sessions are left out: they are rebuilt from the projected rows.
    """
    parts = []
    if projected:
        parts.append(f"SELECT event_at AS row_at\n  FROM {projected}\n  WHERE reason IS NULL")
    if sessions:
        others = (
            f"\n  WHERE session_id NOT IN (SELECT session_id FROM {touched})" if touched else ""
        )
        ended_at = "IF(ended_at <= @now, ended_at, started_at)"  # it may end in the future
        parts.append(f"SELECT {ended_at} AS row_at\n  FROM {sessions}{others}")
    rows = "\n  UNION ALL\n  ".join(parts)
    return f"""SELECT MAX(row_at) AS newest_at
FROM (
  {rows}
)
WHERE row_at <= @now"""


def newest_valid_sql(
    metric_table: MetricTable, events: Source, days: Iterable[dt.date], exclusions: Iterable[str]
) -> str:
    """A SELECT of `newest_at`, up to @now, of the source's rows on these days.

    It reads properties, which decide whether a row is valid. The parameters are those of
    `project_sql`.
    """
    rows = project_sql(metric_table, events, ranges_sql(events, days), exclusions=exclusions)
    return f"""SELECT MAX(event_at) AS newest_at
FROM (
{rows}
)
WHERE reason IS NULL AND event_at <= @now"""
