"""Which days a job asks an API for. Pure: `today` is the UTC day of the run's start."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from runs.errors import RequestError

if TYPE_CHECKING:
    from collections.abc import Iterator

_DAY: Final = dt.timedelta(days=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """UTC days, both ends included."""

    first: dt.date
    last: dt.date

    def __post_init__(self) -> None:
        """Refuse a window that ends before it begins (RequestError)."""
        if self.last < self.first:
            message = f"{self.first} is after {self.last}: give start_date and end_date in order."
            raise RequestError(message)

    @property
    def end(self) -> dt.date:
        """The day after the last."""
        return self.last + _DAY

    def days(self) -> Iterator[dt.date]:
        """Each of them, in order."""
        for number in range((self.end - self.first).days):
            yield self.first + dt.timedelta(days=number)

    def parts(self, days: int) -> Iterator[Window]:
        """Windows of at most so many days that follow each other, in order."""
        first = self.first
        while first <= self.last:
            last = min(first + dt.timedelta(days=days - 1), self.last)
            yield Window(first=first, last=last)
            first = last + _DAY


def trailing_window(today: dt.date, *, days: int) -> Window:
    """Yesterday and the days before it that are read again, since they may be restated."""
    return Window(first=today - dt.timedelta(days=days), last=today - _DAY)


def unread_window(
    watermark: dt.date | None, today: dt.date, *, overlap: int, first_days: int
) -> Window | None:
    """From the watermark, less an overlap, up to yesterday; None where yesterday is done.

    `watermark`: the last data date that is fully done, None before the first run, which takes
    `first_days`. So no day is left out, however many nights a run failed.
    """
    yesterday = today - _DAY
    if watermark is None:
        return trailing_window(today, days=first_days)
    if watermark >= yesterday:
        return None
    return Window(first=watermark + _DAY - overlap * _DAY, last=yesterday)


def requested_window(
    start: dt.date | None, end: dt.date | None, *, today: dt.date
) -> Window | None:
    """The days that a request names: start alone runs to yesterday; None where it names none.

    Days that are not over are refused (RequestError): they would have to be read again.
    """
    if start is None:
        if end is not None:
            message = "end_date needs a start_date."
            raise RequestError(message)
        return None
    window = Window(first=start, last=end or max(start, today - _DAY))
    if window.last >= today:
        message = f"{window.last} is not over yet: give an end_date before {today}."
        raise RequestError(message)
    return window
