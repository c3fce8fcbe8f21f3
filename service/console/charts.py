"""Charts as tables: what the page shows as a table, and the browser draws. Pure.

A chart is drawn from the table beneath it, so a page says the same without JavaScript.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import date

_WEEKS: Final = 4  # that a band is made of


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A series: one value for each day of its chart, None where there is none."""

    name: str
    values: tuple[float | None, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """Lines over days. `write` makes text of a value.

    `band`: a lower and an upper line, between which the chart is shaded.
    """

    title: str
    days: tuple[date, ...]
    lines: tuple[Line, ...]
    write: Callable[[float | None], str]
    unit: str = "number"
    """`number`, `share` or `seconds`: how the browser writes the axis."""
    kind: str = "line"
    """`line` or `bars`, which are stacked."""
    band: tuple[Line, Line] | None = None
    note: str = ""

    @property
    def shown(self) -> tuple[Line, ...]:
        """Every line of the table."""
        return (*self.lines, *(self.band or ()))

    @property
    def rows(self) -> tuple[tuple[date, tuple[float | None, ...]], ...]:
        """The table: a day, and a value for each of `shown`."""
        columns = [line.values for line in self.shown]
        return tuple(
            (day, tuple(values[place] for values in columns)) for place, day in enumerate(self.days)
        )

    @property
    def summary(self) -> str:
        """What the picture shows, in words, for those who don't see it."""
        if not self.days:
            return f"{self.title}: nothing in these days."
        ends = []
        for line in self.lines:
            known = [value for value in line.values if value is not None]
            if known:
                ends.append(
                    f"{line.name} from {self.write(known[0])} to {self.write(known[-1])},"
                    f" at most {self.write(max(known))}"
                )
        return f"{self.title}, {self.days[0]} to {self.days[-1]}: {'; '.join(ends) or 'nothing'}."


def usual_range(
    values: Mapping[date, float | None], days: Sequence[date]
) -> tuple[Line, Line] | None:
    """The least and the most of the same weekday in the four weeks before each day."""
    lower: list[float | None] = []
    upper: list[float | None] = []
    for day in days:
        before = [values.get(_weeks_before(day, weeks)) for weeks in range(1, _WEEKS + 1)]
        known = [value for value in before if value is not None]
        is_known = len(known) == _WEEKS
        lower.append(min(known) if is_known else None)
        upper.append(max(known) if is_known else None)
    if not any(value is not None for value in lower):
        return None
    return (
        Line(name="usual least", values=tuple(lower)),
        Line(name="usual most", values=tuple(upper)),
    )


def _weeks_before(day: date, weeks: int) -> date:
    return day.fromordinal(day.toordinal() - 7 * weeks)


@dataclass(frozen=True, slots=True, kw_only=True)
class Spark:
    """A small line without axes, as the points of an SVG polyline of 100 by 24."""

    points: str
    last_x: float
    last_y: float

    @classmethod
    def of(cls, values: Sequence[float | None]) -> Spark | None:
        """None where there are fewer than two values."""
        known = [(place, value) for place, value in enumerate(values) if value is not None]
        if len(known) < 2:  # noqa: PLR2004 - two points make a line
            return None
        low = min(value for _, value in known)
        spread = (max(value for _, value in known) - low) or 1.0
        width = (len(values) - 1) or 1
        points = [
            (round(98 * place / width + 1, 1), round(22 - 20 * (value - low) / spread, 1))
            for place, value in known
        ]
        x, y = points[-1]
        return cls(points=" ".join(f"{x},{y}" for x, y in points), last_x=x, last_y=y)
