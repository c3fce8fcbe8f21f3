"""Explore: any column over time, a funnel of flags, who comes back. Not the SQL of it."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, Literal, cast
from urllib.parse import urlencode

from flask import Response, request

from runs.errors import RequestError
from service.console import explore_sql, formats
from service.console.charts import Chart, Line
from service.console.explore_sql import NEW_OR_RETURNING, PEOPLE, SESSIONS, Trend
from service.console.person_sessions_sql import Days
from service.console.responses import Cost, page

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from flask.typing import ResponseReturnValue

    from service.console.explore_sql import Measure, Step
    from service.console.queries import Answer
    from service.console.site import Site
    from sessions.metric_types import MetricTable

type Kind = Literal["trend", "funnel", "retention"]

_STEPS: Final[tuple[Step, ...]] = ("day", "week", "month")
_RANGES: Final = (7, 28, 90, 180, 365)
_DEFAULT_DAYS: Final = 90
_MOST_DAYS: Final = 1100
_FUNNEL: Final = ("viewed_event", "joined_event", "created_event")
_MOST_FLAGS: Final = 5
_HEATS: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class ExploreRequest:
    """What the address asks for; it reproduces the page."""

    kind: Kind
    column: str
    measure: Measure
    step: Step
    split: str | None
    flags: tuple[str, ...]
    people: bool
    days: Days
    number: int | None
    """The last so many days; None where the address names the days themselves."""

    def address(self, path: str = "/explore", **changed: str) -> str:
        """A link that reproduces it, with some of it changed."""
        fields: dict[str, str] = {"kind": self.kind}
        if self.kind == "trend":
            fields |= {"column": self.column, "measure": self.measure, "step": self.step}
            fields |= {"split": self.split} if self.split else {}
        if self.kind == "funnel":
            fields |= {f"flag{place}": name for place, name in enumerate(self.flags, 1)}
            fields |= {"of": "people"} if self.people else {}
        fields |= {"first": str(self.days.first), "last": str(self.days.last)}
        return f"{path}?{urlencode(fields | changed)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class FunnelStep:
    """How many came so far; parts of all and of the step before."""

    name: str
    count: int
    of_all: float
    of_before: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Cohort:
    """The people first seen in a week: how many, and for each week after, how many were there."""

    monday: date
    people: int
    weeks: tuple[tuple[int, float, int] | None, ...]
    """People, their part of the cohort, and a shade from 0 to 4; None: the week is yet to come."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Explore:
    """All that the page shows."""

    title: str = "Explore"
    wanted: ExploreRequest
    columns: tuple[tuple[str, tuple[str, ...]], ...]
    """Groups of columns, by the heading that they stand under."""
    measures: tuple[Measure, ...]
    steps: tuple[Step, ...] = _STEPS
    splits: tuple[str, ...]
    flags: tuple[str, ...]
    ranges: tuple[int, ...] = _RANGES
    most_flags: int = _MOST_FLAGS
    description: str
    heading: str
    chart: Chart | None = None
    funnel: tuple[FunnelStep, ...] = ()
    cohorts: tuple[Cohort, ...] = ()
    cost: Cost
    link: str
    download: str


def show(site: Site) -> ResponseReturnValue:
    """The page."""
    wanted = read_request(site.metric_table, request.args.to_dict(), datetime.now(UTC).date())
    answer = _ask(site, wanted)
    return page("explore.html", view_of(site.metric_table, wanted, answer))


def download(site: Site) -> ResponseReturnValue:
    """The rows of the answer as CSV."""
    wanted = read_request(site.metric_table, request.args.to_dict(), datetime.now(UTC).date())
    answer = _ask(site, wanted)
    name = f"{wanted.kind}_{wanted.days.first}_{wanted.days.last}.csv"
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return Response(csv_text(answer.rows), mimetype="text/csv", headers=headers)


def csv_text(rows: tuple[Mapping[str, Any], ...]) -> str:
    """Rows as CSV with a head. Text that a spreadsheet would take for a formula gets a quote."""
    text = io.StringIO()
    if rows:
        writer = csv.writer(text)
        writer.writerow(rows[0])
        writer.writerows([_harmless(value) for value in row.values()] for row in rows)
    return text.getvalue()


# Also as East Asian spreadsheets write them.
_FORMULA: Final = (*"=+-@\t\r\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")


def _harmless(value: object) -> object:
    if isinstance(value, str) and value.startswith(_FORMULA):
        return f"'{value}"
    return "" if value is None else value


def read_request(
    metric_table: MetricTable, asked: Mapping[str, str], today: date
) -> ExploreRequest:
    """What a query asks for, with defaults. Raises RequestError for what there is not."""
    columns = explore_sql.measured(metric_table)
    column = asked.get("column") or SESSIONS
    _check_known("column", column, (SESSIONS, PEOPLE, *columns))
    measures = columns.get(column, ("count",))
    measure = cast("Measure", asked.get("measure") or measures[0])
    split = asked.get("split") or None
    if split is not None:
        _check_known("split", split, (NEW_OR_RETURNING, *explore_sql.splits(metric_table)))
    known = explore_sql.flags(metric_table)
    flags = tuple(
        name for place in range(1, _MOST_FLAGS + 1) if (name := asked.get(f"flag{place}"))
    )
    for name in flags:
        _check_known("flag", name, known)
    step = asked.get("step") or "day"
    _check_known("step", step, _STEPS)
    kind = asked.get("kind") or "trend"
    _check_known("kind", kind, ("trend", "funnel", "retention"))
    days, number = _days(asked, today)
    if number and kind != "funnel":
        first = _whole_periods("week" if kind == "retention" else cast("Step", step), days.first)
        days = Days(first=first, last=days.last)
    return ExploreRequest(
        kind=cast("Kind", kind),
        column=column,
        # Another column was chosen in the form, for which the measure makes no sense.
        measure=measure if measure in measures else measures[0],
        step=cast("Step", step),
        split=split,
        flags=flags or tuple(name for name in _FUNNEL if name in known),
        people=asked.get("of") == "people",
        days=days,
        number=number,
    )


def _check_known(what: str, name: str, known: tuple[str, ...]) -> None:
    if name not in known:
        message = f"There is no {what} of that name: choose one of {', '.join(known)}."
        raise RequestError(message)


def _days(asked: Mapping[str, str], today: date) -> tuple[Days, int | None]:
    """The days of the address, or so many up to yesterday."""
    if asked.get("first") and asked.get("last") and not asked.get("days"):
        first, last = (formats.asked_day(name, asked[name]) for name in ("first", "last"))
        days = Days(first=first, last=last)
        if not 1 <= days.count <= _MOST_DAYS:
            message = f"Choose 1 to {_MOST_DAYS} days, the first one first."
            raise RequestError(message)
        return days, None
    text = asked.get("days") or str(_DEFAULT_DAYS)
    number = int(text) if re.fullmatch("[0-9]{1,9}", text) else 0
    if not 1 <= number <= _MOST_DAYS:
        message = f"days must be a whole number from 1 to {_MOST_DAYS}."
        raise RequestError(message)
    last = today - timedelta(days=1)
    return Days(first=last - timedelta(days=number - 1), last=last), number


def _ask(site: Site, wanted: ExploreRequest) -> Answer:
    table, tables, days = site.metric_table, site.tables, wanted.days
    if wanted.kind == "funnel":
        sql = explore_sql.funnel_sql(table, tables, days, wanted.flags, people=wanted.people)
    elif wanted.kind == "retention":
        sql = explore_sql.retention_sql(table, tables, days)
    else:
        trend = Trend(
            column=wanted.column, measure=wanted.measure, step=wanted.step, split=wanted.split
        )
        sql = explore_sql.trend_sql(table, tables, days, trend)
    return site.queries.ask(wanted.kind, sql)


def view_of(metric_table: MetricTable, wanted: ExploreRequest, answer: Answer) -> Explore:
    """The view of an answer."""
    columns = explore_sql.measured(metric_table)
    described = {each.name: each.description for each in metric_table.columns}
    return Explore(
        wanted=wanted,
        columns=_groups(metric_table, columns),
        measures=columns.get(wanted.column, ("count",)),
        splits=(NEW_OR_RETURNING, *explore_sql.splits(metric_table)),
        flags=explore_sql.flags(metric_table),
        description=described.get(wanted.column, "") if wanted.kind == "trend" else "",
        heading=_heading(wanted),
        chart=_chart(wanted, answer) if wanted.kind == "trend" else None,
        funnel=_funnel(wanted, answer) if wanted.kind == "funnel" else (),
        cohorts=_cohorts(wanted, answer) if wanted.kind == "retention" else (),
        cost=Cost.of([answer]),
        link=wanted.address(),
        download=wanted.address("/explore.csv"),
    )


def _groups(
    metric_table: MetricTable, columns: Mapping[str, tuple[Measure, ...]]
) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """The columns by what they are."""
    types = {each.name: each.type for each in metric_table.columns}
    titles = {"BOOL": "Flags", "INT64": "Numbers", "FLOAT64": "Numbers", "STRING": "Texts"}
    groups: dict[str, list[str]] = {"Sessions": [SESSIONS, PEOPLE]}
    for title in ("Flags", "Numbers", "Texts"):
        groups[title] = [name for name in columns if titles[types[name]] == title]
    return tuple((title, tuple(names)) for title, names in groups.items() if names)


_SAID: Final[Mapping[str, str]] = {
    "count": "Sessions with",
    "sum": "Sum of",
    "average": "Mean",
    "median": "Median",
    "share": "Share with",
    "distinct": "Different",
}


def _heading(wanted: ExploreRequest) -> str:
    if wanted.kind == "funnel":
        return f"Funnel of {'people' if wanted.people else 'sessions'}"
    if wanted.kind == "retention":
        return "Who comes back, by the week of the first visit"
    name = formats.words(wanted.column)
    what = name if wanted.column in {SESSIONS, PEOPLE} else f"{_SAID[wanted.measure]} {_low(name)}"
    split = f", by {formats.words(wanted.split).lower()}" if wanted.split else ""
    return f"{what}, each {wanted.step}{split}"


def _low(text: str) -> str:
    return text[:1].lower() + text[1:]


def _chart(wanted: ExploreRequest, answer: Answer) -> Chart:
    """A line for each value of the split, in the order of how frequent they are."""
    unit, write = _unit(wanted)
    days = tuple(dict.fromkeys(row["period"] for row in answer.rows))
    names = list(dict.fromkeys(row["split"] for row in answer.rows))
    totals = {name: sum(r["sessions"] for r in answer.rows if r["split"] == name) for name in names}
    names.sort(key=lambda name: (name == explore_sql.OTHER, -totals[name], name))
    values = {(row["period"], row["split"]): row["value"] for row in answer.rows}
    # Where nothing happened there is no row: a count is 0 then, and a share is not known.
    empty = 0 if wanted.measure in {"count", "sum", "distinct"} else None
    lines = tuple(
        Line(
            name=name or _low(formats.words(wanted.column)),
            values=tuple(values.get((day, name), empty) for day in days),
        )
        for name in names
    )
    return Chart(
        title=_heading(wanted),
        days=days,
        lines=lines,
        write=write,
        unit=unit,
        note=_partial(wanted.step, wanted.days),
    )


def _partial(step: Step, days: Days) -> str:
    """A warning where the first or the last period is cut off by the days."""
    after = days.last + timedelta(days=1)
    ends = (("first", days.first), ("last", after))
    cut = [name for name, of in ends if _whole_periods(step, of) != of]
    return f"The {' and the '.join(cut)} {step} is not whole." if cut else ""


def _whole_periods(step: Step, first: date) -> date:
    """The day that the period of `first` begins with."""
    if step == "week":
        return first - timedelta(days=first.weekday())
    return first.replace(day=1) if step == "month" else first


def _unit(wanted: ExploreRequest) -> tuple[str, Callable[[float | None], str]]:
    if wanted.measure == "share":
        return "share", formats.share
    if wanted.column.endswith("_seconds"):
        return "seconds", formats.duration
    return "number", formats.number


def _funnel(wanted: ExploreRequest, answer: Answer) -> tuple[FunnelStep, ...]:
    (row,) = answer.rows
    everybody = "All people" if wanted.people else "All sessions"
    names = (everybody, *(formats.words(name) for name in wanted.flags))
    counts = [row[f"step_{place}"] for place in range(len(names))]
    total = counts[0] or 1
    return tuple(
        FunnelStep(
            name=name,
            count=counts[place],
            of_all=counts[place] / total,
            of_before=counts[place] / counts[place - 1] if place and counts[place - 1] else None,
        )
        for place, name in enumerate(names)
    )


def _cohorts(wanted: ExploreRequest, answer: Answer) -> tuple[Cohort, ...]:
    """The triangle: weeks that are not over by the last day are yet to come."""
    counts = {(row["cohort"], row["week_no"]): row["people"] for row in answer.rows}
    found = []
    for monday in sorted({row["cohort"] for row in answer.rows}):
        size = counts.get((monday, 0), 0)
        weeks = (wanted.days.last - monday).days // 7
        longest = wanted.days.count // 7
        found.append(
            Cohort(
                monday=monday,
                people=size,
                weeks=tuple(
                    _cell(counts.get((monday, week), 0), size) if week <= weeks else None
                    for week in range(1, longest + 1)
                ),
            )
        )
    return tuple(found)


def _cell(people: int, size: int) -> tuple[int, float, int]:
    part = people / size if size else 0.0
    return people, part, min(_HEATS, int(part * 10 + 0.999))
