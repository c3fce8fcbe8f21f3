"""The overview: is everything fine, and what did this week bring? Not how it is counted."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from service.console import formats, overview_sql
from service.console.charts import Chart, Line, Spark, usual_range
from service.console.person_sessions_sql import Days
from service.console.responses import Cost, page
from service.console.summary import Summary, read_summary

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import date

    from flask.typing import ResponseReturnValue

    from service.console.queries import Answer
    from service.console.site import Site

_SHOWN_DAYS: Final = 90
_BAND_DAYS: Final = 28
_WEEKS: Final = 5
_TITLES: Final = {
    "sessions": "Sessions",
    "people": "People",
    "engaged_seconds": "Engaged time",
    "created_event": "Created an event",
    "joined_event": "Joined an event",
    "completed_quiz": "Finished the quiz",
    "is_bounce": "Bounced",
}
_TOP_TITLES: Final = {
    "entry_screen": "Where sessions began",
    "channel_type": "Channels",
    "country": "Countries",
    "lib": "Apps and sites",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """A number of this week beside the four weeks before."""

    name: str
    title: str
    text: str
    before_text: str
    change: float | None
    is_good: bool | None
    """Whether the change is for the better; None where it is small, or says nothing."""
    spark: Spark | None
    explore: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Top:
    """The most frequent values of a column this week."""

    name: str
    title: str
    values: tuple[tuple[str, int, float], ...]
    """Value, sessions, and their part of the most frequent one's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """All that the page shows."""

    title: str = "Overview"
    summary: Summary
    days: Days
    week: Days
    cards: tuple[Card, ...]
    chart: Chart
    people: Chart
    tops: tuple[Top, ...]
    cost: Cost


def show(site: Site) -> ResponseReturnValue:
    """The page."""
    now = datetime.now(UTC)
    summary = read_summary(site, now)
    return page("overview.html", read_overview(site, summary, now))


def read_overview(site: Site, summary: Summary, now: datetime) -> Overview:
    """Ask what the page shows, all at once."""
    last = _last_day(summary, now)
    shown = Days(first=last - timedelta(days=_SHOWN_DAYS - 1), last=last)
    longer = Days(first=shown.first - timedelta(days=_BAND_DAYS), last=last)
    week = Days(first=last - timedelta(days=6), last=last)
    weeks = Days(first=last - timedelta(days=7 * _WEEKS - 1), last=last)
    table, tables = site.metric_table, site.tables
    tops = overview_sql.has(table, overview_sql.TOPS)
    site.queries.check()
    asked = {
        "days": overview_sql.daily_sql(table, tables, longer),
        "people": overview_sql.people_sql(table, tables, longer),
        "weeks": overview_sql.weeks_sql(table, tables, weeks),
        "tops": overview_sql.tops_sql(tables, week, tops),
    }
    pending = {name: site.queries.start(name, sql) for name, sql in asked.items()}
    answers = {name: result() for name, result in pending.items()}
    by_day = _joined(answers["days"], answers["people"])
    days = tuple(shown.first + timedelta(days=number) for number in range(shown.count))
    return Overview(
        summary=summary,
        days=shown,
        week=week,
        cards=_cards(answers["weeks"], by_day, days),
        chart=_sessions_chart(by_day, days),
        people=_people_chart(by_day, days),
        tops=_tops(answers["tops"], tops),
        cost=Cost.of(answers.values()),
    )


def _last_day(summary: Summary, now: datetime) -> date:
    """The last day that is over, or that has events where the newest are older."""
    yesterday = now.date() - timedelta(days=1)
    return min(yesterday, summary.newest_event_at.date()) if summary.newest_event_at else yesterday


def _joined(*answers: Answer) -> dict[date, dict[str, Any]]:
    by_day: dict[date, dict[str, Any]] = {}
    for answer in answers:
        for row in answer.rows:
            by_day.setdefault(row["day"], {}).update(row)
    return by_day


def _series(
    by_day: Mapping[date, Mapping[str, Any]], days: Sequence[date], name: str
) -> tuple[float | None, ...]:
    empty = 0.0 if name in {"sessions", "people", "new_people"} else None
    return tuple(by_day.get(day, {}).get(name, empty) for day in days)


def _cards(
    answer: Answer, by_day: Mapping[date, Mapping[str, Any]], days: Sequence[date]
) -> tuple[Card, ...]:
    weeks = {row["week_no"]: row for row in answer.rows}
    this = weeks.get(0, {})
    names = [name for name in _TITLES if not answer.rows or name in answer.rows[0]]
    return tuple(
        _card(name, this, [weeks[number] for number in weeks if number], by_day, days)
        for name in names
    )


def _card(
    name: str,
    this: Mapping[str, Any],
    before: Sequence[Mapping[str, Any]],
    by_day: Mapping[date, Mapping[str, Any]],
    days: Sequence[date],
) -> Card:
    value = this.get(name)
    known = [row[name] for row in before if row.get(name) is not None]
    average = sum(known) / len(known) if known else None
    change = formats.change(value, average)
    write = _writer(name)
    return Card(
        name=name,
        title=_TITLES[name],
        text=write(value),
        before_text=write(average),
        change=change,
        is_good=_is_good(name, change),
        spark=Spark.of(_smooth(_series(by_day, days, name))),
        explore=f"/explore?column={name}" + (f"&days={len(days)}" if days else ""),
    )


def _is_good(name: str, change: float | None) -> bool | None:
    """A change of under 2 % is none; fewer bounces are better, and more of all else."""
    if change is None or abs(change) < 0.02:  # noqa: PLR2004
        return None
    return (change < 0) if name == "is_bounce" else (change > 0)


def _smooth(values: Sequence[float | None]) -> tuple[float | None, ...]:
    """Means of seven days, so that weekends don't hide what changes."""
    smooth: list[float | None] = []
    for place in range(6, len(values)):
        known = [value for value in values[place - 6 : place + 1] if value is not None]
        smooth.append(sum(known) / len(known) if known else None)
    return tuple(smooth)


def _writer(name: str) -> Callable[[float | None], str]:
    if name == "engaged_seconds":
        return formats.minutes
    if name in overview_sql.SHARES:
        return formats.share
    return lambda value: formats.number(None if value is None else round(value))


def _sessions_chart(by_day: Mapping[date, Mapping[str, Any]], days: tuple[date, ...]) -> Chart:
    values = {day: row.get("sessions") for day, row in by_day.items()}
    return Chart(
        title="Sessions a day",
        days=days,
        lines=(Line(name="sessions", values=_series(by_day, days, "sessions")),),
        write=formats.number,
        band=usual_range(values, days),
        note="Shaded: what the same weekday had in the four weeks before.",
    )


def _people_chart(by_day: Mapping[date, Mapping[str, Any]], days: tuple[date, ...]) -> Chart:
    new = _series(by_day, days, "new_people")
    people = _series(by_day, days, "people")
    returning = tuple((all_ or 0) - (n or 0) for all_, n in zip(people, new, strict=True))
    return Chart(
        title="New and returning people",
        days=days,
        lines=(Line(name="returning", values=returning), Line(name="new", values=new)),
        write=formats.number,
        kind="bars",
        note="New: first seen that day.",
    )


def _tops(answer: Answer, names: Sequence[str]) -> tuple[Top, ...]:
    tops = []
    for name in names:
        found = [(row["value"], row["sessions"]) for row in answer.rows if row["name"] == name]
        most = max((sessions for _, sessions in found), default=1)
        tops.append(
            Top(
                name=name,
                title=_TOP_TITLES[name],
                values=tuple((value or "(none)", n, n / most) for value, n in found),
            )
        )
    return tuple(tops)
