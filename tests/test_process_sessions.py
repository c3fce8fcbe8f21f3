"""The pandas engine by itself: frames in, frame out."""

from __future__ import annotations

import random
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

import process_sessions as engine
from process_sessions import process_sessions
from sessions.metrics import METRICS, PROPERTIES, Aggregation, Filter, Metric
from sessions.projection import check_table, travelling_columns

type Row = dict[str, Any]

START = 1_790_000_000_000_000  # µs
KINDS = {item.name: item.kind for item in PROPERTIES}


def frame(rows: list[Row]) -> pd.DataFrame:
    """The rows as the download makes them: Arrow-backed, every column there."""
    types = {
        "session_no": pa.int64(),
        "event_no": pa.int64(),
        "event_at": pa.timestamp("us", "UTC"),
    }
    columns = {}
    for name in travelling_columns():
        default = pa.string() if KINDS.get(name, "text") == "text" else pa.float64()
        columns[name] = pa.array([row.get(name) for row in rows], types.get(name, default))
    made: pd.DataFrame = pa.table(columns).to_pandas(types_mapper=pd.ArrowDtype)
    return made


def event(session_no: int, event_no: int, name: str = "$pageview", **values: object) -> Row:
    """An event, ten seconds after the one before."""
    at = START + event_no * 10_000_000
    return {
        "session_no": session_no, "event_no": event_no, "event_at": at, "event": name, **values,
    }  # fmt: skip


ROWS = [
    event(7, 1, lib="web", touch_y=3.0),
    event(7, 2, "start_quiz", distinct_id="b"),
    event(7, 3, "finish_quiz", distinct_id="a", touch_y=1.5),
    event(3, 1, "$screen", screen_name="Discover"),
    event(9, 1, "scroll"),
]


def test_sessions_come_in_the_order_of_their_numbers() -> None:
    """One row per session, by `session_no`, with a column per metric."""
    sessions = process_sessions(frame(ROWS))
    assert sessions["session_no"].tolist() == [3, 7, 9]
    assert list(sessions.columns) == ["session_no", *(metric.name for metric in METRICS)]
    assert sessions["event_count"].tolist() == [1, 3, 1]
    assert sessions["visited_discover"].tolist() == [True, False, False]
    assert sessions["quiz_seconds"].tolist()[1] == 10.0
    assert sessions["distinct_ids"].tolist()[1] == ["b", "a"]


def test_the_order_of_rows_does_not_matter() -> None:
    """Rows say themselves which event of which session they are."""
    expected = process_sessions(frame(ROWS))
    for seed in range(5):
        rows = random.Random(seed).sample(ROWS, len(ROWS))  # noqa: S311 - no secret
        pd.testing.assert_frame_equal(process_sessions(frame(rows)), expected)


def test_no_events_make_no_sessions() -> None:
    """The empty frame has every column, in its type."""
    empty, full = process_sessions(frame([])), process_sessions(frame(ROWS))
    assert len(empty) == 0
    assert empty.dtypes.to_dict() == full.dtypes.to_dict()


@pytest.mark.parametrize("numbers", [(1, 3), (1, 1), (0, 1), (2, 3)])
def test_events_numbered_with_gaps_are_refused(numbers: tuple[int, int]) -> None:
    """A row that is missing or there twice is an error, never a wrong session."""
    with pytest.raises(ValueError, match="event_no must count"):
        process_sessions(frame([event(1, number) for number in numbers]))


def test_sums_and_minima_skip_nulls() -> None:
    """The aggregations that no declared metric uses: null over nothing, else over known values."""
    metrics = [
        Metric(name=name, aggregation=kind, type="FLOAT64", value="touch_y", description="")
        for name, kind in (("total", Aggregation.SUM), ("least", Aggregation.MIN))
    ]
    sessions = process_sessions(frame(ROWS), metrics)
    assert sessions["total"].tolist() == [pd.NA, 4.5, pd.NA]
    assert sessions["least"].tolist() == [pd.NA, 1.5, pd.NA]


def test_many_names_are_counted_like_few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a table of every (session, name) would be too large, the counts are the same."""
    expected = process_sessions(frame(ROWS))
    monkeypatch.setattr(engine, "_MOST_CELLS", 0)
    pd.testing.assert_frame_equal(process_sessions(frame(ROWS)), expected)


def test_a_metric_without_its_value_is_refused() -> None:
    """An aggregation that needs a value says so by the metric's name."""
    metric = Metric(name="odd", aggregation=Aggregation.MAX, type="FLOAT64", description="")
    with pytest.raises(ValueError, match="Metric odd needs a value"):
        process_sessions(frame(ROWS), [metric])


def test_filters_need_all_their_parts() -> None:
    """A filter on event and property matches where both hold, alternatives where one does."""
    both = Filter(events=("$pageview",), value="lib", among=("web",))
    other = Filter(event_contains=("quiz", "start"))
    metric = Metric(
        name="n", aggregation=Aggregation.COUNT, type="INT64", description="", where=(both, other)
    )
    assert process_sessions(frame(ROWS), [metric])["n"].tolist() == [0, 2, 0]


def test_every_property_that_a_metric_names_is_declared() -> None:
    """The metric table is consistent."""
    check_table()
