"""What the health page shows over time: the watch's signals, and numbers of the runs. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any, Final

from service.console import formats
from service.console.charts import Spark
from sessions import watch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from datetime import date, datetime

_RUNS_THAT_COUNT: Final = {"full_load", "incremental"}
_HEIGHT: Final = 30.0
_STEP: Final = 3.0
_WEEK: Final = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """A day of a signal: where it stands, and what it is in the comparison."""

    x: float
    y: float
    height: float
    kind: str
    """`last` is judged, by `same`, the same weekday of the weeks before; else ''."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Signal:
    """What the watch counts, day by day, with what it says of the last one."""

    name: str
    now: str
    usual: str
    warning: str
    bars: tuple[Bar, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trend:
    """A number of the runs, the oldest first: a reason's share, say."""

    name: str
    now: str
    usual: str
    spark: Spark | None


def signals(
    names: Sequence[str], rows: Sequence[Mapping[str, Any]], last: date
) -> tuple[Signal, ...]:
    """One for each that is watched; those that fell stand first."""
    days = [watch.DayFigures(**row) for row in rows]
    fallen = watch.fallen(names, days, last)
    found = []
    for place, name in enumerate(names):
        counts = {each.day: each.figures[place] for each in days}
        before = watch.same_weekdays(counts, last)
        found.append(
            Signal(
                name=name.replace("_", " "),
                now=formats.number(counts.get(last, 0)),
                usual=formats.number(median(before)),
                warning=fallen.get(name, ""),
                bars=tuple(_bars(counts, last)),
            )
        )
    return tuple(sorted(found, key=lambda each: not each.warning))


def _bars(counts: Mapping[date, int], last: date) -> Iterator[Bar]:
    first = watch.first_day(last).toordinal()
    days = [last.fromordinal(first + number) for number in range(watch.WATCHED_DAYS)]
    most = max((counts.get(day, 0) for day in days), default=0) or 1
    for number, day in enumerate(days):
        height = round(_HEIGHT * counts.get(day, 0) / most, 2)
        is_same = (last - day).days % _WEEK == 0
        kind = "last" if day == last else "same" if is_same else ""
        yield Bar(x=number * _STEP, y=round(_HEIGHT - height, 2), height=height, kind=kind)


def reasons(good: Sequence[Mapping[str, Any]]) -> Iterator[Trend]:
    """Each reason's share of a run's rows, in runs that read any."""
    counted = [each for each in good if sum((each.get("counts") or {}).values())]
    names = dict.fromkeys(name for each in counted for name in each["counts"])
    for name in names:
        shares = [each["counts"].get(name, 0) / sum(each["counts"].values()) for each in counted]
        yield Trend(
            name=name.replace("_", " "),
            now=formats.share(shares[-1]),
            usual=formats.share(sum(shares[:-1]) / len(shares[:-1]) if shares[:-1] else None),
            spark=Spark.of(shares),
        )


def efforts(good: Sequence[Mapping[str, Any]]) -> Iterator[Trend]:
    """What a run takes: its seconds, memory and bytes, of runs that load."""
    loads = [each for each in good if each.get("kind") in _RUNS_THAT_COUNT]
    written: tuple[tuple[str, str, Callable[[float], str]], ...] = (
        ("seconds", "duration", formats.duration),
        ("peak_memory_bytes", "memory at most", formats.size),
        ("bytes_processed", "billed", formats.size),
    )
    for field, name, write in written:
        values = [float(each.get(field) or 0) for each in loads]
        if values:
            before = values[:-1]
            usual = write(sum(before) / len(before)) if before else formats.NONE
            yield Trend(name=name, now=write(values[-1]), usual=usual, spark=Spark.of(values))


def version_changes(
    good: Sequence[Mapping[str, Any]],
) -> Iterator[tuple[datetime | None, str]]:
    """When rows began to be built by another metric table, the latest first."""
    found = []
    known: str | None = None
    for report in good:
        version = report.get("metrics_version")
        if version and version != known:
            found.append((formats.parsed(report.get("started_at")), str(version)))
            known = version
    yield from reversed(found)
