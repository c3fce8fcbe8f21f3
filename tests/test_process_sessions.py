"""The pandas engine by itself: frames in, frame out."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

import process_sessions as engine
from process_sessions import process_sessions
from sessions import pandas_engine
from sessions.metric_types import Aggregation, Filter, Metric, MetricTable
from sessions.projection import downloaded_columns
from tests.shipped import METRIC_TABLE

type Row = dict[str, Any]

START = 1_790_000_000_000_000  # µs
IS_TEXT = {item.name: item.kind in {"text", "id"} for item in METRIC_TABLE.properties}


def frame(rows: list[Row]) -> pd.DataFrame:
    """The rows as the download makes them: Arrow-backed, every column there."""
    types = {
        "session_no": pa.int64(),
        "event_no": pa.int64(),
        "event_at": pa.timestamp("us", "UTC"),
    }
    columns = {}
    for name in downloaded_columns(METRIC_TABLE):
        default = pa.string() if IS_TEXT.get(name, True) else pa.float64()
        columns[name] = pa.array([row.get(name) for row in rows], types.get(name, default))
    made: pd.DataFrame = pa.table(columns).to_pandas(types_mapper=pd.ArrowDtype)
    return made


def of(*metrics: Metric) -> MetricTable:
    """A table of these metrics alone."""
    return replace(METRIC_TABLE, columns=metrics)


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
    sessions = process_sessions(frame(ROWS), METRIC_TABLE)
    assert sessions["session_no"].tolist() == [3, 7, 9]
    assert list(sessions.columns) == [
        "session_no",
        *(metric.name for metric in METRIC_TABLE.metrics),
    ]
    assert sessions["event_count"].tolist() == [1, 3, 1]
    assert sessions["visited_discover"].tolist() == [True, False, False]
    assert sessions["quiz_seconds"].tolist()[1] == 10.0
    assert sessions["distinct_ids"].tolist()[1] == ["b", "a"]


def test_the_order_of_rows_does_not_matter() -> None:
    """Rows say themselves which event of which session they are."""
    expected = process_sessions(frame(ROWS), METRIC_TABLE)
    for seed in range(5):
        rows = random.Random(seed).sample(ROWS, len(ROWS))  # noqa: S311 - no secret
        pd.testing.assert_frame_equal(process_sessions(frame(rows), METRIC_TABLE), expected)


def test_no_events_make_no_sessions() -> None:
    """The empty frame has every column, in its type."""
    empty, full = (
        process_sessions(frame([]), METRIC_TABLE),
        process_sessions(frame(ROWS), METRIC_TABLE),
    )
    assert len(empty) == 0
    assert empty.dtypes.to_dict() == full.dtypes.to_dict()


@pytest.mark.parametrize("numbers", [(1, 3), (1, 1), (0, 1), (2, 3)])
def test_events_numbered_with_gaps_are_refused(numbers: tuple[int, int]) -> None:
    """A row that is missing or there twice is an error, never a wrong session."""
    with pytest.raises(ValueError, match="event_no must count"):
        process_sessions(frame([event(1, number) for number in numbers]), METRIC_TABLE)


def test_sums_and_minima_skip_nulls() -> None:
    """The aggregations that no declared metric uses: null over nothing, else over known values."""
    metrics = [
        Metric(name=name, aggregation=kind, type="FLOAT64", value="touch_y", description="")
        for name, kind in (("total", Aggregation.SUM), ("least", Aggregation.MIN))
    ]
    sessions = process_sessions(frame(ROWS), of(*metrics))
    assert sessions["total"].tolist() == [pd.NA, 4.5, pd.NA]
    assert sessions["least"].tolist() == [pd.NA, 1.5, pd.NA]


def many_rows(sessions: int = 40) -> list[Row]:
    """Sessions of up to thirty events, with values of every kind and many nulls."""
    rng = random.Random(7)  # noqa: S311 - no secret
    names = [*(f"name {number}" for number in range(20)), "$pageview", "$screen", "$identify"]
    rows = []
    for session_no in rng.sample(range(100), sessions):
        for event_no in range(1, rng.randint(1, 30) + 1):
            known = [name for name in ("distinct_id", *IS_TEXT) if rng.random() < 0.3]
            values: Row = {
                name: rng.choice("abc") if IS_TEXT.get(name, True) else rng.random()
                for name in known
            }
            rows.append(event(session_no, event_no, rng.choice(names), **values))
    return rows


def swapped(rows: list[Row]) -> list[Row]:
    """The rows with their second and third quarter the other way round."""
    quarter = len(rows) // 4
    return [
        *rows[:quarter],
        *rows[2 * quarter : 3 * quarter],
        *rows[quarter : 2 * quarter],
        *rows[3 * quarter :],
    ]


@pytest.mark.parametrize("block_rows", [1, 3, 50, 10_000])
@pytest.mark.parametrize("most_torn", [0.0, 1.0])
def test_blocks_do_not_matter(
    monkeypatch: pytest.MonkeyPatch, block_rows: int, most_torn: float
) -> None:
    """Sessions come out the same in one block and in several, torn by blocks and pages or not."""
    rows = many_rows(sessions=10 if block_rows < 10 else 40)  # many blocks take long
    assert len(rows) > 100
    expected = process_sessions(frame(rows), METRIC_TABLE)
    monkeypatch.setattr(engine, "_BLOCK_ROWS", block_rows)
    monkeypatch.setattr(engine, "_MOST_TORN", most_torn)
    pd.testing.assert_frame_equal(process_sessions(frame(rows), METRIC_TABLE), expected)
    rows = swapped(rows)
    pages = pd.concat([frame(rows[:100]), frame(rows[100:])])
    pd.testing.assert_frame_equal(process_sessions(pages, METRIC_TABLE), expected)


def test_many_values_are_counted_like_few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a table of every (session, value) would be too large, the counts are the same."""
    expected = process_sessions(frame(many_rows()), METRIC_TABLE)
    monkeypatch.setattr(pandas_engine, "_CELLS_PER_ROW", 0)
    pd.testing.assert_frame_equal(process_sessions(frame(many_rows()), METRIC_TABLE), expected)


def test_a_session_that_comes_twice_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of its parts looks whole, in one block and in two: together they are an error."""
    rows = [event(1, 1), event(1, 2), event(2, 1), event(2, 2), event(1, 1), event(1, 2)]
    for block_rows in (10, 4):
        monkeypatch.setattr(engine, "_BLOCK_ROWS", block_rows)
        monkeypatch.setattr(engine, "_MOST_TORN", 1.0)
        with pytest.raises(ValueError, match="event_no must count"):
            process_sessions(frame(rows), METRIC_TABLE)


def test_the_pages_of_a_download_are_not_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    """Besides the rows as they came there is never a second copy of them all."""
    rows = [event(session, number, "n" * 100) for session in range(200) for number in range(1, 11)]
    pages = pd.concat([frame(rows[at : at + 100]) for at in range(0, len(rows), 100)])
    size = pa.Table.from_pandas(pages, preserve_index=False).nbytes
    monkeypatch.setattr(engine, "_BLOCK_ROWS", 100)
    usual = pa.default_memory_pool()
    counting = pa.proxy_memory_pool(usual)
    pa.set_memory_pool(counting)
    try:
        process_sessions(pages, of(METRIC_TABLE.metrics[0]))
    finally:
        pa.set_memory_pool(usual)
    assert 0 < counting.max_memory() < size / 2


def test_dictionaries_are_values_like_any_other() -> None:
    """A page may come dictionary-encoded: what counts is the text."""
    pages = []
    for page in (ROWS[:2], ROWS[2:]):
        table = pa.Table.from_pandas(frame(page), preserve_index=False)
        for name in ("event", "distinct_id", "lib"):
            at = table.schema.get_field_index(name)
            table = table.set_column(at, name, table.column(name).dictionary_encode())
        pages.append(table)
    encoded = pa.concat_tables(pages).to_pandas(types_mapper=pd.ArrowDtype)
    pd.testing.assert_frame_equal(
        process_sessions(encoded, METRIC_TABLE), process_sessions(frame(ROWS), METRIC_TABLE)
    )


def test_a_metric_without_its_value_is_refused() -> None:
    """An aggregation that needs a value says so by the metric's name."""
    metric = Metric(name="odd", aggregation=Aggregation.MAX, type="FLOAT64", description="")
    with pytest.raises(ValueError, match="Metric odd needs a value"):
        process_sessions(frame(ROWS), of(metric))


def test_filters_need_all_their_parts() -> None:
    """A filter on event and property matches where both hold, alternatives where one does."""
    both = Filter(events=("$pageview",), value="lib", among=("web",))
    other = Filter(event_contains=("quiz", "start"))
    metric = Metric(
        name="n", aggregation=Aggregation.COUNT, type="INT64", description="", where=(both, other)
    )
    assert process_sessions(frame(ROWS), of(metric))["n"].tolist() == [0, 2, 0]


def test_a_property_that_is_not_declared_is_refused() -> None:
    """A metric table says which metric reads what is in none of its properties."""
    metric = Metric(
        name="odd", aggregation=Aggregation.MAX, type="FLOAT64", value="height", description=""
    )
    with pytest.raises(ValueError, match="Metric odd reads height"):
        of(metric)
