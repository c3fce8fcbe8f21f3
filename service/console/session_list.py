"""The list of sessions, by day, id and flags."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

from flask import redirect, request

from bigquery.parameters import scalar
from runs.errors import RequestError
from service.console import explore_sql, formats, overview_sql, people_sql
from service.console.person_sessions_sql import Days
from service.console.responses import Cost, page

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flask.typing import ResponseReturnValue

    from service.console.site import Site

_DEFAULT_DAYS: Final = 7
_MOST_DAYS: Final = 1100
_LONGEST_ID: Final = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionList:
    """All that the page shows."""

    title: str = "Sessions"
    days: Days
    id: str
    flags: tuple[tuple[str, bool], ...]
    """Every flag that there is, and whether it must hold."""
    rows: tuple[Mapping[str, Any], ...]
    next: str | None
    cost: Cost


def show(site: Site) -> ResponseReturnValue:
    """The page."""
    today = datetime.now(UTC).date()
    last = _day("last", today)
    days = Days(first=_day("first", last - timedelta(days=_DEFAULT_DAYS - 1)), last=last)
    if not 1 <= days.count <= _MOST_DAYS:
        message = f"Choose 1 to {_MOST_DAYS} days, the first one first."
        raise RequestError(message)
    asked_id = request.args.get("id", "").strip()[:_LONGEST_ID]
    known = explore_sql.flags(site.metric_table)
    flags = tuple(name for name in request.args.getlist("flag") if name in known)
    until = formats.asked_time(request.args.get("until"))
    sql = people_sql.list_sql(
        site.tables,
        days,
        columns=overview_sql.has(site.metric_table, people_sql.LISTED),
        flags=flags,
        by_id=bool(asked_id),
    )
    parameters = [
        scalar("until", "TIMESTAMP", until),
        scalar("after", "STRING", request.args.get("after", "")),
    ]
    parameters += [scalar("id", "STRING", asked_id)] if asked_id else []
    answer = site.queries.ask("sessions", sql, parameters)
    if asked_id and len(answer.rows) == 1 and answer.rows[0]["session_id"] == asked_id:
        return redirect(f"/session?{urlencode({'id': asked_id})}")
    view = SessionList(
        days=days,
        id=asked_id,
        flags=tuple((name, name in flags) for name in known),
        rows=answer.rows,
        next=_next(answer.rows, days, asked_id, flags),
        cost=Cost.of([answer]),
    )
    return page("session_list.html", view)


def _day(name: str, default: date) -> date:
    text = request.args.get(name)
    return formats.asked_day(name, text) if text else default


def _next(
    rows: tuple[Mapping[str, Any], ...], days: Days, asked_id: str, flags: tuple[str, ...]
) -> str | None:
    if len(rows) < people_sql.PAGE:
        return None
    fields = [("first", str(days.first)), ("last", str(days.last))]
    fields += [("id", asked_id)] if asked_id else []
    fields += [("flag", name) for name in flags]
    last = rows[-1]
    fields += [("until", last["started_at"].isoformat()), ("after", last["session_id"])]
    return f"/sessions?{urlencode(fields)}"
