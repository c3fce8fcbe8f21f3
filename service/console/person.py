"""A person's page: their sessions, and the ids that were tied to them, with the reason."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flask import request

from bigquery.parameters import scalar
from service.console import overview_sql, people_sql
from service.console.answers import Cost, page
from service.console.run import Missing
from service.console.visits_sql import Days

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import date

    from flask.typing import ResponseReturnValue

    from service.console.site import Site


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """All that the page shows."""

    title: str = "Person"
    row: Mapping[str, Any]
    rows: tuple[Mapping[str, Any], ...]
    """Their latest sessions."""
    ids: tuple[Mapping[str, Any], ...]
    retention: tuple[tuple[str, str], ...]
    cost: Cost


def show(site: Site) -> ResponseReturnValue:
    """The page of the person `?id=`: a user id, or a distinct id."""
    parameters = [scalar("id", "STRING", request.args.get("id", ""))]
    answer = site.queries.ask("person", people_sql.person_sql(site.tables), parameters)
    if not answer.rows:
        what = "There is no person of that id: a distinct id may belong to a user."
        return page("missing.html", Missing(what=what), status=404)
    row = answer.rows[0]
    first: date = row["first_seen_at"].date()
    days = Days(first=first, last=row["last_seen_at"].date())
    columns = overview_sql.has(site.metric_table, people_sql.LISTED)
    sessions = site.queries.ask(
        "person_sessions", people_sql.person_sessions_sql(site.tables, days, columns), parameters
    )
    ids = site.queries.ask("person_ids", people_sql.ids_sql(site.tables, days), parameters)
    view = Person(
        row=row,
        rows=sessions.rows,
        ids=ids.rows,
        retention=_retention(row),
        cost=Cost.of([answer, sessions, ids]),
    )
    return page("person.html", view)


def _retention(row: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    said = {True: "yes", False: "no", None: "not over yet"}
    return tuple(
        (name.removeprefix("returned_day_"), said[value])
        for name, value in row.items()
        if name.startswith("returned_day_")
    )
