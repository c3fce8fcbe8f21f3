"""A person's page: their sessions, and the ids that they used, each with why it is theirs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from flask import request

from bigquery.parameters import scalar
from service.console import overview_sql, people_sql
from service.console.person_sessions_sql import Days
from service.console.responses import Cost, page
from service.console.run import Missing

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from datetime import date, datetime

    from flask.typing import ResponseReturnValue

    from service.console.site import Site

type Row = Mapping[str, Any]

_MATCHES: Final = {
    "uid": "It is the user's id.",
    "phone": "It is the user's phone number.",
    "email": "It is the user's e-mail address.",
}
_BESIDE: Final = "It was used in a session of this user, beside an id that is theirs."
_ABSENT: Final = (
    "There is no person of that id."
    " Ids that SDKs leave behind, like null or anonymous, are nobody's."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnId:
    """An id, and why it is the person's."""

    id: str
    why: str
    other_id: str | None = None
    """The one that an event ties it to."""
    day: date | None = None
    """Of the first such event."""
    session_id: str | None = None
    """Of that event, where it was an $identify event of a session."""
    session_count: int = 0
    last_used_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """All that the page shows."""

    title: str = "Person"
    row: Row
    rows: tuple[Row, ...]
    """Their latest sessions."""
    ids: tuple[OwnId, ...]
    retention: tuple[tuple[str, str], ...]
    cost: Cost


def show(site: Site) -> ResponseReturnValue:
    """The page of the person `?id=`: a user id, a distinct id, or an anonymous id of a user."""
    asked = [scalar("id", "STRING", request.args.get("id", ""))]
    answer = site.queries.ask("person", people_sql.person_sql(site.tables), asked)
    if not answer.rows:
        return page("missing.html", Missing(title="No such person", what=_ABSENT), status=404)
    row = answer.rows[0]
    tables, is_user = site.tables, row["user_id"] is not None
    days = Days(first=row["first_seen_at"].date(), last=row["last_seen_at"].date())
    columns = overview_sql.has(site.metric_table, people_sql.LISTED)
    statements = {
        "person_sessions": people_sql.person_sessions_sql(tables, days, columns),
        "person_ids": people_sql.ids_sql(tables, days),
        "person_ties": people_sql.ties_sql(tables, days, is_user=is_user),
    }
    of_person = [scalar("id", "STRING", row["person_id"])]
    pending = [site.queries.start(name, sql, of_person) for name, sql in statements.items()]
    sessions, used, ties = (result() for result in pending)
    view = Person(
        row=row,
        rows=sessions.rows,
        ids=tuple(own_ids(row["user_id"], used.rows, ties.rows)),
        retention=_retention(row),
        cost=Cost.of([answer, sessions, used, ties]),
    )
    return page("person.html", view)


def own_ids(user_id: str | None, used: Iterable[Row], ties: Iterable[Row]) -> Iterator[OwnId]:
    """Every id that the person's sessions used, and those that are only tied to them."""
    by_id: dict[str, Row] = {}
    for tie in ties:
        is_better = tie["other_id"] == user_id and by_id.get(tie["id"], tie)["other_id"] != user_id
        if tie["id"] not in by_id or is_better:
            by_id[tie["id"]] = tie
    for row in used:
        found = by_id.pop(row["id"], None)
        counts = {name: row[name] for name in ("id", "session_count", "last_used_at")}
        yield _tied(found, **counts) if found else OwnId(why=_why(user_id, row), **counts)
    for tie in by_id.values():
        yield _tied(tie, id=tie["id"])


def _why(user_id: str | None, row: Row) -> str:
    if user_id is None:
        return "It is the person's own id: no event ties it to another."
    return _MATCHES.get("uid" if row["id"] == user_id else row["user_match"], _BESIDE)


def _tied(tie: Row, **counts: Any) -> OwnId:  # noqa: ANN401 - of the dataclass
    how = (
        "A sign-in ($identify)"
        if tie["session_id"]
        else "An alias, a merge, or an event without a session"
    )
    return OwnId(
        why=f"{how} ties it to",
        other_id=tie["other_id"],
        day=tie["first_day"],
        session_id=tie["session_id"],
        **counts,
    )


def _retention(row: Row) -> tuple[tuple[str, str], ...]:
    said = {True: "yes", False: "no", None: "not over yet"}
    return tuple(
        (name.removeprefix("returned_day_"), said[value])
        for name, value in row.items()
        if name.startswith("returned_day_")
    )
