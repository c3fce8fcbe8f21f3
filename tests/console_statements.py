"""Every statement that the console's pages send, for the snapshots and for Google's analyzer."""

from __future__ import annotations

import datetime as dt
from typing import Final

from service.console import explore_sql, overview_sql, people_sql
from service.console.explore_sql import NEW_OR_RETURNING, PEOPLE, SESSIONS, Measure, Trend
from service.console.person_sessions_sql import Days, Tables
from tests.shipped import METRIC_TABLE

DAYS: Final = Days(first=dt.date(2026, 9, 7), last=dt.date(2026, 10, 11))
SNAPSHOT_TABLES: Final = Tables(
    sessions="sessions", persons="persons", identities="identities", ties="ties"
)
PARAMETERS: Final = {
    "until": {"type_kind": "TYPE_TIMESTAMP"},
    "after": {"type_kind": "TYPE_STRING"},
    "id": {"type_kind": "TYPE_STRING"},
    "session_id": {"type_kind": "TYPE_STRING"},
}
"""The types of those that any of them takes."""
_FLAGS: Final = ("viewed_event", "joined_event", "created_event")


def statements(tables: Tables = SNAPSHOT_TABLES) -> dict[str, str]:
    """Each by the name of its snapshot."""
    found = {**_overview(tables), **_explore(tables), **_people(tables)}
    return {f"console_{name}": sql for name, sql in found.items()}


def _overview(tables: Tables) -> dict[str, str]:
    return {
        "daily": overview_sql.daily_sql(METRIC_TABLE, tables, DAYS),
        "people": overview_sql.people_sql(METRIC_TABLE, tables, DAYS),
        "weeks": overview_sql.weeks_sql(METRIC_TABLE, tables, DAYS),
        "tops": overview_sql.tops_sql(tables, DAYS, overview_sql.TOPS),
    }


def _explore(tables: Tables) -> dict[str, str]:
    flags = {"steps": _FLAGS}
    return {
        "trend": _trend(tables, SESSIONS),
        "trend_split": _trend(tables, "engaged_seconds", "median", "country"),
        "trend_people": _trend(tables, PEOPLE, "count", NEW_OR_RETURNING),
        "trend_share": _trend(tables, "is_bounce", "share", "started_quiz"),
        "funnel": explore_sql.funnel_sql(METRIC_TABLE, tables, DAYS, people=False, **flags),
        "funnel_people": explore_sql.funnel_sql(METRIC_TABLE, tables, DAYS, people=True, **flags),
        "retention": explore_sql.retention_sql(METRIC_TABLE, tables, DAYS),
    }


def _trend(
    tables: Tables, column: str, measure: Measure = "count", split: str | None = None
) -> str:
    trend = Trend(column=column, measure=measure, step="week", split=split)
    return explore_sql.trend_sql(METRIC_TABLE, tables, DAYS, trend)


def _people(tables: Tables) -> dict[str, str]:
    columns = people_sql.LISTED
    return {
        "sessions": people_sql.list_sql(
            tables, DAYS, columns=columns, flags=_FLAGS[:1], by_id=True
        ),
        "session_day": people_sql.session_day_sql(tables),
        "session": people_sql.session_sql(tables, DAYS.first),
        "person": people_sql.person_sql(tables),
        "person_sessions": people_sql.person_sessions_sql(tables, DAYS, columns),
        "person_ids": people_sql.ids_sql(tables, DAYS),
        "person_ties": people_sql.ties_sql(tables, DAYS, is_user=True),
        "person_ties_anonymous": people_sql.ties_sql(tables, DAYS, is_user=False),
    }


def every_trend(tables: Tables) -> dict[str, str]:
    """A trend of each column as each measure, and one of each split."""
    by_measure = {
        f"{column} as {measure}": _trend(tables, column, measure)
        for column, measures in explore_sql.measured(METRIC_TABLE).items()
        for measure in measures
    }
    by_split = {
        f"by {split}": _trend(tables, SESSIONS, split=split)
        for split in explore_sql.splits(METRIC_TABLE)
    }
    return by_measure | by_split
