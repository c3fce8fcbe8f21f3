"""A session's page: what is stored of it, and its story from the source, by `oracle/`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from flask import request

from bigquery.parameters import scalar
from jobs.sessions_verification import story_of, why_absent
from runs.errors import EtlError
from service.console import people_sql, timeline
from service.console.responses import Cost, page
from service.console.run import Missing

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flask.typing import ResponseReturnValue

    from jobs.sessions_verification import Reading as ToRead
    from oracle.story import DocumentLine, IdLine, Story
    from service.console.queries import Answer, Reading
    from service.console.site import Site
    from service.console.timeline import Moment, Value

AT_ONCE_BYTES: Final = 10**9  # what is read without a click; it costs less than a cent
MOST_ROWS: Final = 10_000  # of a session whose story a page shows
KEPT_ROWS: Final = 1_000  # the story of a longer session is not kept, for its size
SHOWN_MOMENTS: Final = 400  # the others are folded away


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """Why the page shows no story yet, or none."""

    is_coming: bool = False
    """The browser asks for it by itself."""
    cost: str = ""
    """What a click would read."""
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoryView:
    """The story, as the page shows it."""

    status: str
    moments: tuple[Moment, ...]
    folded: tuple[Moment, ...]
    """Those after the first so many."""
    distinct_ids: tuple[IdLine, ...]
    documents: tuple[DocumentLine, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionPage:
    """All that the page shows."""

    title: str = "Session"
    session_id: str
    row: Mapping[str, Any]
    person: str | None
    values: tuple[Value, ...]
    bookkeeping: tuple[Value, ...]
    days: tuple[tuple[str, int], ...]
    story: StoryView | None
    offer: Offer
    cost: Cost


class TooMuchError(Exception):
    """The reading is so large that somebody should want it."""

    def __init__(self, reading: ToRead) -> None:
        super().__init__(str(reading))


def show(site: Site) -> ResponseReturnValue:
    """The page of the session `?id=`; with `&events` its story, `&events=few` if it is cheap."""
    session_id = request.args.get("id", "")
    parameters = [scalar("session_id", "STRING", session_id)]
    found = site.queries.ask("session_day", people_sql.session_day_sql(site.tables), parameters)
    if not found.rows:
        missing = Missing(title="No such session", what=_absent(site, session_id))
        return page("missing.html", missing, status=404)
    sql = people_sql.session_sql(site.tables, found.rows[0]["session_date"])
    stored = site.queries.ask("session", sql, parameters)
    story, offer = _story(site, stored.rows[0], request.args.get("events"))
    return page("session_page.html", _view(site, stored.rows[0], story, offer, (found, stored)))


def check_size(wanted: str, reading: ToRead) -> None:
    """Nothing, or a refusal where a story that nobody clicked for would cost something."""
    if wanted == "few" and reading.bytes_estimated > AT_ONCE_BYTES:
        raise TooMuchError(reading)


def _story(
    site: Site, row: Mapping[str, Any], wanted: str | None
) -> tuple[Reading[Story] | None, Offer]:
    rows = sum(each["row_count"] for each in row["_days"])
    if rows > MOST_ROWS:
        command = f'.venv/bin/python main.py --explain "{row["session_id"]}"'
        return None, Offer(problem=f"It has {rows:,} rows, too many for a page. Use {command}")
    if wanted is None:
        return None, Offer(is_coming=True)
    check = partial(check_size, wanted)
    try:
        reading = site.queries.read(
            "story",
            row["session_id"] if rows <= KEPT_ROWS else None,
            lambda warehouse: story_of(site.metric_table, warehouse, dict(row), check),
        )
    except TooMuchError as error:
        return None, Offer(cost=str(error))
    except EtlError as error:
        return None, Offer(problem=str(error))
    return reading, Offer()


def _absent(site: Site, session_id: str) -> str:
    """Why there is no such session, as far as that is cheap to know."""
    check = partial(check_size, "few")
    try:
        return site.queries.read(
            "absent",
            session_id,
            lambda warehouse: why_absent(site.metric_table, warehouse, session_id, check),
        ).found
    except (TooMuchError, EtlError):
        return "There is no session of that id."


def _view(
    site: Site,
    row: Mapping[str, Any],
    reading: Reading[Story] | None,
    offer: Offer,
    asked: tuple[Answer, ...],
) -> SessionPage:
    story = reading.found if reading else None
    return SessionPage(
        session_id=row["session_id"],
        row=row,
        person=row.get("user_id") or row.get("distinct_id"),
        values=timeline.values(site.metric_table, row, story),
        bookkeeping=timeline.bookkeeping(row),
        days=tuple((str(each["day"]), each["row_count"]) for each in row["_days"]),
        story=_story_view(site, story) if story else None,
        offer=offer,
        cost=Cost.of((*asked, *([reading] if reading else []))),
    )


def _story_view(site: Site, story: Story) -> StoryView:
    moments = timeline.moments(site.metric_table, story)
    return StoryView(
        status=story.status,
        moments=moments[:SHOWN_MOMENTS],
        folded=moments[SHOWN_MOMENTS:],
        distinct_ids=story.distinct_ids,
        documents=story.documents,
    )
