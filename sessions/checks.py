"""Checks of the stored table without a run: SQL text and verdicts. Pure.

A broken key or order fails; what may have an outside cause (late export, no run yet) warns.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from runs.checks import Check, hours
from runs.report import FRESH
from sessions.plan import ranges_sql

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Iterable

    from sessions.plan import State
    from sessions.sources import Source

_NAMED_DAYS: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What is counted in `sessions`."""

    sessions: int
    keys: int
    distinct_keys: int
    null_keys: int
    backwards: int  # sessions that end before they start


def figures_sql(sessions: str) -> str:
    """A SELECT of one row: Figures, by name."""
    return f"""SELECT
  COUNT(*) AS sessions,
  COUNT(session_id) AS keys,
  COUNT(DISTINCT session_id) AS distinct_keys,
  COUNTIF(session_id IS NULL OR session_date IS NULL) AS null_keys,
  COUNTIF(ended_at < started_at) AS backwards
FROM {sessions}"""


def loaded_days_sql(sessions: str) -> str:
    """A SELECT of every `day` that a stored session has rows of."""
    return f"""SELECT DISTINCT d.day AS day
FROM {sessions} AS s, UNNEST(s._days) AS d"""


def check_figures(figures: Figures) -> list[Check]:
    """Unique keys, none of them null, and no session that ends before it starts."""
    rules = {
        "unique keys": (figures.keys - figures.distinct_keys, "rows repeat a session"),
        "no null keys": (figures.null_keys, "sessions have no id or no date"),
        "order": (figures.backwards, "sessions end before they start"),
    }
    return [
        Check(
            name=name,
            outcome="failed" if count else "ok",
            message=f"{count} {what}" + (": run with --full-load." if count else "."),
        )
        for name, (count, what) in rules.items()
    ]


def check_newest_event(newest_at: dt.datetime | None, now: dt.datetime) -> Check:
    """How old the newest valid event of the source is."""
    name = "newest event"
    if newest_at is None:
        return Check(
            name=name, outcome="warning", message="The source has no valid events up to now."
        )
    age = now - newest_at
    if age < -FRESH:
        message = (
            f"The newest event is {hours(-age)} hours in the future: correct the clock, then run."
        )
        return Check(name=name, outcome="warning", message=message)
    message = f"The newest event is {hours(age)} hours old"
    if age > FRESH:
        return Check(name=name, outcome="warning", message=f"{message}: is the export running?")
    return Check(name=name, outcome="ok", message=f"{message}.")


def check_days(source: Iterable[dt.date], loaded: set[dt.date], now: dt.datetime) -> Check:
    """Whether every day with source rows is also a day that sessions have rows of.

    Future days are ignored.
    """
    name = "missing days"
    known = {day for day in source if day <= now.date()}
    missing = sorted(known - loaded)
    if not missing:
        message = f"All {len(known)} days of the source have sessions."
        return Check(name=name, outcome="ok", message=message)
    named = ", ".join(f"{day}" for day in missing[-_NAMED_DAYS:])
    more = f" and {len(missing) - _NAMED_DAYS} more" if len(missing) > _NAMED_DAYS else ""
    message = (
        f"{len(missing)} days of the source have no session ({named}{more}):"
        " they are yet to be loaded, or their events have no session id."
    )
    return Check(name=name, outcome="warning", message=message)


def check_state(
    state: State | None, *, sessions_created_at: dt.datetime, metrics_version: str
) -> Check:
    """Whether the state belongs to this table and these metrics: else the next run loads all."""
    reason = None
    if state is None:
        reason = "There is no state of an ordinary run"
    elif state.sessions_created_at != sessions_created_at:
        reason = "The sessions table is not the one that the last run wrote"
    elif state.metrics_version != metrics_version:
        reason = f"The sessions are of metrics {state.metrics_version}, not {metrics_version}"
    if reason:
        message = f"{reason}: the next run is a full load."
        return Check(name="state", outcome="warning", message=message)
    return Check(name="state", outcome="ok", message="The state belongs to the sessions table.")


def nothing_sql() -> str:
    """A trivial SELECT: whether BigQuery accepts statements at all."""
    return "SELECT 1 AS one"


def past_sql(source: Source) -> str:
    """A SELECT of no rows from the table's past, to test by dry run whether it is allowed.

    It names no day of the events, in case the table requires a filter.
    """
    rows = f"FROM {source.shape.table.sql}"
    past = " FOR SYSTEM_TIME AS OF CURRENT_TIMESTAMP()" if source.shape.as_of else ""
    condition = ranges_sql(source, ()) if "event_at" in source.physical else "FALSE"
    return f"SELECT COUNT(*) AS row_count\n{rows}{past}\nWHERE {condition}"


def change_sql(table: str) -> str:
    """A DELETE of no rows, to test by dry run whether rows may be changed."""
    return f"DELETE FROM {table}\nWHERE FALSE"


def creation_sql(table: str) -> str:
    """A CREATE TABLE to test by dry run whether it is allowed."""
    return f"CREATE TABLE {table} (one INT64)"
