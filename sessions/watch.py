"""Warnings about metrics that dropped, and the SQL text of their figures. Pure.

A day is compared with the same weekday of the four weeks before. The day is the last whole UTC day
before the run, so the hour at which a run starts changes nothing.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from math import exp, lgamma, log
from statistics import median
from typing import TYPE_CHECKING, Final

from sessions.metric_types import Aggregation, Filter, Metric, is_repeated
from sessions.projection import literal

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from sessions.metric_types import MetricTable

WATCHED_DAYS: Final = 35
KNOWN_RUNS: Final = 7  # whose shares of rows set aside are compared
_WEEKS: Final = 4
_SILENT_DAYS: Final = 3
_RARE: Final = 0.001  # a count that chance makes so seldom has another cause
_LEAST_SHARE: Final = 0.01  # of a run's rows: fewer that are set aside harm nobody
_LEAST_RUNS: Final = 4
_ENOUGH_SESSIONS: Final = 50  # of fewer, none may be a user's by chance
_REASONS: Final = ("bad_timestamp", "malformed", "no_session", "excluded", "quarantined")
_SESSIONS: Final = "sessions"
_EVENT: Final = "event "  # what the name of a figure begins with that is of one event
_COUNTS: Final = {Aggregation.COUNT, Aggregation.DISTINCT_COUNT}


@dataclass(frozen=True, slots=True, kw_only=True)
class DayFigures:
    """The sessions that started on a UTC day: how many have what `watched_names` names."""

    day: dt.date
    figures: Sequence[int]


def last_day(now: dt.datetime) -> dt.date:
    """The last whole UTC day."""
    return now.astimezone(dt.UTC).date() - dt.timedelta(days=1)


def first_day(last: dt.date) -> dt.date:
    """The first day that is looked at."""
    return last - dt.timedelta(days=WATCHED_DAYS - 1)


def watched_names(metric_table: MetricTable) -> tuple[str, ...]:
    """What is counted of a day: sessions, those with a user, with each metric, with each event.

    The events are those that declared metrics name and that are not all that a metric counts.
    """
    declared = (metric.name for metric in _declared(metric_table))
    events = (f"{_EVENT}{name}" for name in _events(metric_table))
    return (_SESSIONS, "sessions with a user", *declared, *events)


def _declared(metric_table: MetricTable) -> list[Metric]:
    return [metric for metric in metric_table.metrics if metric.name in metric_table.declared]


def _events(metric_table: MetricTable) -> tuple[str, ...]:
    named = [
        (metric, each)
        for metric in _declared(metric_table)
        for each in (*metric.where, *metric.since)
    ]
    alone = {
        each.events
        for metric, each in named
        if metric.aggregation in {Aggregation.ANY, Aggregation.COUNT}
        and metric.where == (Filter(events=each.events),)
    }
    names = dict.fromkeys(name for _, each in named for name in each.events)
    return tuple(name for name in names if (name,) not in alone)


def days_sql(metric_table: MetricTable, sessions: str, *, as_struct: bool = False) -> str:
    """A SELECT of DayFigures from @first_day to @last_day; no row for a day without sessions."""
    metrics, events = _declared(metric_table), _events(metric_table)
    conditions = ["user_id IS NOT NULL", *map(_has_sql, metrics), *map(_has_event_sql, events)]
    counted = ",\n    ".join(["COUNT(*)", *(f"COUNTIF({each})" for each in conditions)])
    return f"""SELECT{" AS STRUCT" if as_struct else ""}
  session_date AS day,
  [
    {counted}
  ] AS figures
FROM {sessions}
WHERE session_date BETWEEN @first_day AND @last_day
GROUP BY session_date
ORDER BY session_date"""


def _has_sql(metric: Metric) -> str:
    """Whether a session has the metric at all."""
    if metric.aggregation is Aggregation.ANY:
        return metric.name
    if is_repeated(metric):
        return f"ARRAY_LENGTH({metric.name}) > 0"
    return f"{metric.name} > 0" if metric.aggregation in _COUNTS else f"{metric.name} IS NOT NULL"


def _has_event_sql(name: str) -> str:
    """Whether a session has the event."""
    return f"EXISTS (SELECT 1 FROM UNNEST(event_counts) AS e WHERE e.event = {literal(name)})"


def day_warnings(names: Sequence[str], days: Iterable[DayFigures], last: dt.date) -> list[str]:
    """What fell on that day, or is silent since three days, in sentences."""
    return list(fallen(names, days, last).values())


def fallen(names: Sequence[str], days: Iterable[DayFigures], last: dt.date) -> dict[str, str]:
    """What fell on that day, or is silent since three days, by name; none before the fifth week.

    If the sessions themselves fell, it reports only that: the metrics follow from it.
    """
    figures = {each.day: each.figures for each in days}
    if not figures or min(figures) > last - dt.timedelta(weeks=_WEEKS):
        return {}
    counts = {
        name: {day: row[place] for day, row in figures.items()} for place, name in enumerate(names)
    }
    sessions = counts.pop(_SESSIONS)
    if warning := _fallen(_SESSIONS, sessions, last) or _silent(_SESSIONS, sessions, last):
        return {_SESSIONS: warning}
    level = min(sessions.get(last, 0) / max(median(same_weekdays(sessions, last)), 1), 1)
    warnings = {
        name: (None if name.startswith(_EVENT) else _fallen(name, each, last, level=level))
        or _silent(name, each, last)
        for name, each in counts.items()
    }
    return {name: warning for name, warning in warnings.items() if warning}


def same_weekdays(counts: Mapping[dt.date, int], last: dt.date) -> list[int]:
    """The counts of the same weekday of the weeks before."""
    return [counts.get(last - dt.timedelta(weeks=week), 0) for week in range(1, _WEEKS + 1)]


def _fallen(
    name: str, counts: Mapping[dt.date, int], last: dt.date, *, level: float = 1
) -> str | None:
    """The warning where the day has under half of what is usual, and chance does not explain it.

    `level`: the day's sessions divided by the usual, so that a holiday is no alarm.
    """
    before = same_weekdays(counts, last)
    found, usual = counts.get(last, 0), median(before) * level
    if found * 2 >= usual or chance_of_at_most(found, usual) >= _RARE:
        return None
    numbers = ", ".join(map(str, before))
    return (
        f"Metric {name} fell: {found} on {last:%A}, {last}, and {numbers} on that weekday of the"
        " four weeks before: did the app or the export change?"
    )


def _silent(name: str, counts: Mapping[dt.date, int], last: dt.date) -> str | None:
    """The warning where three days have none, and the same days of each week before had some."""
    found, *before = (_last_three(counts, last, week) for week in range(_WEEKS + 1))
    if found or not min(before) or chance_of_at_most(0, median(before)) >= _RARE:
        return None
    numbers = ", ".join(map(str, before))
    first = last - dt.timedelta(days=_SILENT_DAYS - 1)
    return (
        f"{_called(name)} is silent: none from {first} to {last}, and {numbers} on those weekdays"
        " of the four weeks before: was its event renamed?"
    )


def _called(name: str) -> str:
    is_event = name.startswith(_EVENT)
    return f"Event {name.removeprefix(_EVENT)}" if is_event else f"Metric {name}"


def _last_three(counts: Mapping[dt.date, int], last: dt.date, week: int) -> int:
    days = (last - dt.timedelta(weeks=week, days=ago) for ago in range(_SILENT_DAYS))
    return sum(counts.get(day, 0) for day in days)


def chance_of_at_most(count: int, mean: float) -> float:
    """The probability of at most that count, below the mean, by Poisson's distribution."""
    if mean <= 0:
        return 1.0
    term = total = exp(count * log(mean) - mean - lgamma(count + 1))
    for k in range(count, 0, -1):  # each term is smaller than the last by k / mean
        term *= k / mean
        total += term
        if term < total * 1e-12:
            break
    return min(total, 1.0)


def reports_sql(ledger: str, runs: int = KNOWN_RUNS) -> str:
    """A SELECT of the `counts` of the last incremental runs before @run_id, as JSON text.

    A run with dates or a limit is of another kind.
    """
    return f"""SELECT JSON_QUERY(report, '$.counts') AS counts
FROM {ledger}
WHERE job = 'sessions' AND status = 'succeeded' AND kind = 'incremental' AND run_id < @run_id
ORDER BY run_id DESC
LIMIT {runs}"""


def reason_warnings(counts: Mapping[str, int], before: Sequence[Mapping[str, int]]) -> list[str]:
    """The reasons whose share of a run's rows is three times what it was in the runs before."""
    if len(before) < _LEAST_RUNS:
        return []
    warnings = []
    for reason in _REASONS:
        share, usual = _share(counts, reason), median(_share(each, reason) for each in before)
        if share >= _LEAST_SHARE and share >= 3 * usual:
            warnings.append(
                f"Rows set aside as {reason} tripled: {counts[reason]}, or {share:.1%} of the rows"
                f" read, and {usual:.1%} in the {len(before)} runs before: look at these rows."
            )
    return warnings


def _share(counts: Mapping[str, int], reason: str) -> float:
    """The part of the rows read that was set aside for that reason."""
    return counts.get(reason, 0) / max(sum(counts.values()), 1)


def unmatched_warnings(*, users: int, table: str, sessions: int, of_users: int) -> list[str]:
    """That no user has any session, though there are users, and sessions with ids to match."""
    if of_users or not users or sessions < _ENOUGH_SESSIONS:
        return []
    message = (
        f"No user matches: of {sessions} sessions with an id, none belongs to any of the {users}"
        f" users of {table}. Compare their ids, phones and e-mails with the distinct ids of the"
        " events: they may be masked, or of another app."
    )
    return [message]
