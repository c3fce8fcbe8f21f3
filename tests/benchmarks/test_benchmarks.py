"""The benchmarks run, at sizes too small to measure: their results are complete and agree."""

from __future__ import annotations

import gc
import json
from importlib import import_module
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest

from benchmarks import load, startup, transform
from benchmarks.events import ORDERS, events
from benchmarks.figures import ratio
from benchmarks.one_engine import ENGINES, as_arrow, schema
from sessions.projection import downloaded_columns
from tests.shipped import METRIC_TABLE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.events import Order

RIVALS = {"duckdb", "polars", "pandas"}


def last_line(
    command: Callable[[Sequence[str]], None],
    arguments: Sequence[str],
    capsys: pytest.CaptureFixture[str],
) -> Any:  # noqa: ANN401 - what JSON holds
    """Run a benchmark; the JSON of the last line that it prints."""
    command(arguments)
    return json.loads(capsys.readouterr().out.splitlines()[-1])


@pytest.mark.parametrize("order", ORDERS)
def test_every_engine_computes_the_same_cells(order: Order) -> None:
    """Four engines compute the same sessions from the same events, in any order of these."""
    assert {*ENGINES} == {"process_sessions", *RIVALS}
    table = events(8000, order=order)
    ours, *rivals = (
        as_arrow(import_module(f"benchmarks.by_{engine}").aggregate(table)) for engine in ENGINES
    )
    assert len(ours) == 200
    assert [transform.differences(ours, theirs) for theirs in rivals] == [[], [], []]


def test_each_engine_is_timed_in_a_process_of_its_own(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The last line has the figures of each engine, and the floor: the least that any has to do."""
    figures = last_line(transform.main, ["--events=3000", "--rounds=1"], capsys)
    for engine in ENGINES:
        assert figures[engine].keys() >= {"seconds", "ratio", "extra_mib"}
        assert figures[engine]["seconds"] > 0
    assert figures["process_sessions"]["ratio"] == 1
    assert figures["floor_seconds"] > 0
    assert (figures["events"], figures["sessions"]) == (3000, 75)


def test_a_different_result_ends_the_comparison() -> None:
    """The error names the engine, the column and both values."""
    ours, theirs = (pa.table({"session_no": [1], "n": [n]}) for n in (1, 2))
    transform.check_agreement({"process_sessions": ours, "duckdb": ours})
    with pytest.raises(AssertionError, match="and polars differ: n, 1 and 2"):
        transform.check_agreement({"process_sessions": ours, "duckdb": ours, "polars": theirs})


def test_every_metric_is_compared() -> None:
    """The schema of the results has every column of the metric table."""
    assert schema().names == ["session_no", *(metric.name for metric in METRIC_TABLE.metrics)]


@pytest.mark.parametrize(
    ("theirs", "found"),
    [
        (pa.table({"session_no": [1, 2], "n": [0.5, None], "s": ["a", "b"]}), []),
        (pa.table({"session_no": [1, 2], "n": [0.5 + 1e-16, None], "s": ["a", "b"]}), []),
        (pa.table({"session_no": [1, 2], "n": [0.6, None], "s": ["a", "b"]}), ["n, 0.5 and 0.6"]),
        (pa.table({"session_no": [1, 2], "n": [0.5, 0.0], "s": ["a", "b"]}), ["n, None and 0.0"]),
        (pa.table({"session_no": [1, 2], "n": [0.5, None], "s": ["a", "c"]}), ["s, b and c"]),
        (pa.table({"session_no": [2, 1], "n": [0.5, None], "s": ["a", "b"]}), ["other sessions"]),
    ],
    ids=["same", "last bit", "number", "null", "text", "order"],
)
def test_differences_are_found(theirs: pa.Table, found: list[str]) -> None:
    """A number, a null, a text or an order; the last bit of a float may differ."""
    ours = pa.table({"session_no": [1, 2], "n": [0.5, None], "s": ["a", "b"]})
    reported = transform.differences(ours, theirs)
    assert [each[: len(start)] for each, start in zip(reported, found, strict=True)] == found


def test_events_are_like_those_of_a_download() -> None:
    """The downloaded columns, whole sessions of skewed sizes; the same events for the same seed."""
    table = events(20_000)
    assert tuple(table.column_names) == downloaded_columns(METRIC_TABLE)
    assert table.equals(events(20_000))
    assert not table.equals(events(20_000, seed=2))
    sessions = table.group_by("session_no").aggregate([("event_no", "max"), ("event_no", "count")])
    sizes = sessions.column("event_no_count").to_pylist()
    assert sizes == sessions.column("event_no_max").to_pylist()
    assert (len(sizes), sum(sizes)) == (500, 20_000)
    assert sorted(sizes)[250] < 40 < max(sizes) / 5
    known = {name: 1 - table.column(name).null_count / len(table) for name in table.column_names}
    assert all(known[name] == 1 for name in ("session_no", "event_no", "event_at", "event"))
    assert all(0 < known[name] < 0.5 for name in downloaded_columns(METRIC_TABLE)[4:])


def test_health_is_measured_against_imports(capsys: pytest.CaptureFixture[str]) -> None:
    """The ratio is the time until the service answers, over the time to import its dependencies."""
    figures = last_line(startup.main, ["--rounds=1"], capsys)
    measured = figures["health_seconds"] / figures["imports_seconds"]
    assert figures["ratio"] == pytest.approx(measured, rel=0.02)


def test_every_kind_of_file_is_written_and_loaded(capsys: pytest.CaptureFixture[str]) -> None:
    """Each kind has its bytes and seconds, each codec a load job, and zstd makes smaller files."""
    gc.freeze()  # it collects before each file, which takes long among what other tests left
    figures = last_line(load.main, ["--events=8000", "--rounds=1"], capsys)
    kinds = figures["per_million_sessions"]
    assert figures["sessions"] == 200
    assert set(kinds) == {kind.name for kind in load.KINDS}
    assert all(its.keys() >= {"bytes", "write_seconds", "extra_mib"} for its in kinds.values())
    assert {name for name in kinds if "load_seconds" in kinds[name]} == {
        "none", "snappy", "lz4", "zstd",
    }  # fmt: skip
    assert kinds["zstd"]["bytes"] < kinds["none"]["bytes"]


def test_a_ratio_is_the_median_of_pairs() -> None:
    """Not the ratio of the medians: a slow moment slows both runs of a pair."""
    assert ratio([1.0, 10.0, 1.0], [2.0, 50.0, 4.0]) == 4.0
