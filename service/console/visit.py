"""A session's page: what is stored of it, and its events as a timeline."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from flask import request

from bigquery.parameters import scalar
from service.console import formats, people_sql
from service.console.answers import Cost, page
from service.console.costs import events_source
from service.console.run import Missing
from service.console.story import Moment, moments
from sessions import plan, projection

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from flask.typing import ResponseReturnValue

    from service.console.queries import Answer
    from service.console.site import Site

_BOOKKEEPING: Final = "_"


@dataclass(frozen=True, slots=True, kw_only=True)
class Value:
    """A column of the session, with what it means."""

    name: str
    text: str
    description: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """All that the page shows. `story`: None where the events were not asked for."""

    title: str
    session_id: str
    row: Mapping[str, Any]
    person: str | None
    values: tuple[Value, ...]
    bookkeeping: tuple[Value, ...]
    days: tuple[tuple[str, int], ...]
    story: tuple[Moment, ...] | None
    cost: Cost


def show(site: Site) -> ResponseReturnValue:
    """The page of the session `?id=`; with `&events` its events are read from the source."""
    session_id = request.args.get("id", "")
    parameters = [scalar("session_id", "STRING", session_id)]
    found = site.queries.ask("session_day", people_sql.session_day_sql(site.tables), parameters)
    if not found.rows:
        missing = Missing(what="There is no session of that id.")
        return page("missing.html", missing, status=404)
    sql = people_sql.session_sql(site.tables, found.rows[0]["session_date"])
    stored = site.queries.ask("session", sql, parameters)
    row = stored.rows[0]
    answers = [found, stored]
    story = None
    if "events" in request.args:
        read = _read_events(site, row)
        answers.append(read)
        story = moments(site.metric_table, read.rows)
    return page("visit.html", _tell(site, row, story, answers))


def _read_events(site: Site, row: Mapping[str, Any]) -> Answer:
    """The session's source rows of the days that it has any on, as a run projects them."""
    source = events_source(site)
    days: list[date] = [each["day"] for each in row["_days"]]
    sql = projection.project_sql(
        site.metric_table,
        source,
        plan.ranges_sql(source, sorted(days)),
        sessions="(SELECT @session_id AS session_id)",
    )
    # A little back, as the clocks differ, but not to before the run that wrote the row.
    now = max(datetime.now(UTC) - timedelta(seconds=2), row["_loaded_at"])
    # A piece of a split id is what one distinct id did under it on one day.
    source_id, _, distinct_id = row["session_id"].partition(f"/{days[0]}/")
    parameters = [
        scalar("session_id", "STRING", source_id if row.get("is_split") else row["session_id"]),
        scalar("snapshot_at", "TIMESTAMP", now),
    ]
    answer = site.queries.ask("events", sql, parameters)
    if not row.get("is_split"):
        return answer
    mine = (each for each in answer.rows if (each["distinct_id"] or "") == distinct_id)
    return replace(answer, rows=tuple(mine))


def _tell(
    site: Site,
    row: Mapping[str, Any],
    story: tuple[Moment, ...] | None,
    answers: Sequence[Answer],
) -> Visit:
    described = {column.name: column.description for column in site.metric_table.columns}
    values = [
        Value(name=name, text=_text(name, value), description=described.get(name, ""))
        for name, value in row.items()
        if name != "_days"
    ]
    return Visit(
        title="Session",
        session_id=row["session_id"],
        row=row,
        person=row.get("user_id") or row.get("distinct_id"),
        values=tuple(each for each in values if not each.name.startswith(_BOOKKEEPING)),
        bookkeeping=tuple(each for each in values if each.name.startswith(_BOOKKEEPING)),
        days=tuple((str(each["day"]), each["row_count"]) for each in row["_days"]),
        story=story,
        cost=Cost.of(answers),
    )


def _text(name: str, value: object) -> str:  # noqa: PLR0911 - one line for each type
    if value is None:
        return formats.NONE
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, datetime):
        return f"{formats.day(value.date())}, {formats.clock(value)} UTC"
    if isinstance(value, (int, float)):
        return formats.duration(value) if name.endswith("_seconds") else formats.number(value)
    if isinstance(value, list):
        return ", ".join(_text("", each) for each in value) or "none"
    if isinstance(value, dict):
        return " ".join(_text("", each) for each in value.values())
    return str(value)
