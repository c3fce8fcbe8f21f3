"""The days that a run requests: each day is read, and none again without need."""

from __future__ import annotations

import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apis.windows import Window, requested_window, trailing_window, unread_window
from runs.errors import RequestError

TODAY = dt.date(2026, 10, 21)


def day(number: int) -> dt.date:
    """A day of October 2026."""
    return dt.date(2026, 10, number)


def test_a_trailing_window_ends_yesterday() -> None:
    """Seven days are read again each night, without today, which is not over."""
    assert trailing_window(TODAY, days=7) == Window(first=day(14), last=day(20))


@pytest.mark.parametrize(
    ("watermark", "window"),
    [
        (None, Window(first=day(20), last=day(20))),
        (day(19), Window(first=day(19), last=day(20))),
        (day(1), Window(first=day(1), last=day(20))),
        (day(20), None),
        (day(21), None),
    ],
)
def test_unread_days_begin_at_the_watermark(
    watermark: dt.date | None, window: Window | None
) -> None:
    """With one day of overlap, however many nights failed; no window if yesterday is done."""
    assert unread_window(watermark, TODAY, overlap=1, first_days=1) == window


@given(st.lists(st.booleans(), min_size=1, max_size=60))
def test_no_day_is_ever_lost(nights: list[bool]) -> None:
    """Whichever nights fail, the windows of the others leave no gap."""
    watermark: dt.date | None = None
    done: set[dt.date] = set()
    for number, succeeds in enumerate(nights):
        window = unread_window(watermark, TODAY + dt.timedelta(number), overlap=1, first_days=1)
        if succeeds and window:
            done |= set(window.days())
            watermark = window.last
    if done:
        assert len(done) == (max(done) - min(done)).days + 1


@given(st.dates(dt.date(2020, 1, 1), dt.date(2030, 1, 1)), st.integers(0, 200), st.integers(1, 40))
def test_parts_are_bounded_and_leave_no_gap(first: dt.date, extra_days: int, days: int) -> None:
    """Each day of a window is in one part, in order."""
    window = Window(first=first, last=first + dt.timedelta(extra_days))
    parts = [list(part.days()) for part in window.parts(days)]
    assert [each for part in parts for each in part] == list(window.days())
    assert max(len(part) for part in parts) <= days


@pytest.mark.parametrize(
    ("start", "end", "window"),
    [
        (None, None, None),
        (day(3), None, Window(first=day(3), last=day(20))),
        (day(3), day(5), Window(first=day(3), last=day(5))),
        (day(20), day(20), Window(first=day(20), last=day(20))),
    ],
)
def test_a_window_can_be_requested(
    start: dt.date | None, end: dt.date | None, window: Window | None
) -> None:
    """Both ends are included; a start alone means until yesterday."""
    assert requested_window(start, end, today=TODAY) == window


@pytest.mark.parametrize(
    ("start", "end"), [(None, day(3)), (day(5), day(3)), (day(3), TODAY), (TODAY, None)]
)
def test_impossible_windows_are_refused(start: dt.date | None, end: dt.date | None) -> None:
    """An end alone, an end before its start, and days that are not over."""
    with pytest.raises(RequestError):
        requested_window(start, end, today=TODAY)
