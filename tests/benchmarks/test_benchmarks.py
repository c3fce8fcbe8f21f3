"""The benchmarks run, at sizes that measure nothing: what they compare agrees, and is all there."""

from __future__ import annotations

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
    """What a benchmark prints last, read as JSON."""
    command(arguments)
    return json.loads(capsys.readouterr().out.splitlines()[-1])


@pytest.mark.parametrize("order", ORDERS)
def test_every_engine_computes_every_cell_alike(order: Order) -> None:
    """Four engines make the same sessions of the same events, however these are ordered."""
    assert {*ENGINES} == {"process_sessions", *RIVALS}
    table = events(8000, order=order)
    ours, *rivals = (
        as_arrow(import_module(f"benchmarks.by_{engine}").aggregate(table)) for engine in ENGINES
    )
    assert len(ours) == 200
    assert [transform.differences(ours, theirs) for theirs in rivals] == [[], [], []]


def test_the_engines_are_timed_in_processes_of_their_own(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Each has its figures in the last line, and the floor is there."""
    figures = last_line(transform.main, ["--events=3000", "--rounds=1"], capsys)
    for engine in ENGINES:
        assert figures[engine].keys() >= {"seconds", "ratio", "extra_mib"}
        assert figures[engine]["seconds"] > 0
    assert figures["process_sessions"]["ratio"] == 1
    assert figures["floor_seconds"] > 0
    assert (figures["events"], figures["sessions"]) == (3000, 75)


def test_no_time_counts_where_engines_differ() -> None:
    """A rival that computes something else ends the comparison, by its name and the column's."""
    ours, theirs = (pa.table({"session_no": [1], "n": [n]}) for n in (1, 2))
    transform.check_agreement({"process_sessions": ours, "duckdb": ours})
    with pytest.raises(AssertionError, match="and polars differ: n, 1 and 2"):
        transform.check_agreement({"process_sessions": ours, "duckdb": ours, "polars": theirs})


def test_every_metric_is_compared() -> None:
    """A result without one of the metric table's columns is none."""
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
    """A number, a null, a text or an order that differs is named; the last bit of a float isn't."""
    ours = pa.table({"session_no": [1, 2], "n": [0.5, None], "s": ["a", "b"]})
    reported = transform.differences(ours, theirs)
    assert [each[: len(start)] for each, start in zip(reported, found, strict=True)] == found


def test_events_are_those_of_a_download() -> None:
    """The columns that travel, whole sessions in a skewed size, and the same for the same seed."""
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
    """The service answers, the dependencies import, and the ratio is of the two."""
    figures = last_line(startup.main, ["--rounds=1"], capsys)
    measured = figures["health_seconds"] / figures["imports_seconds"]
    assert figures["ratio"] == pytest.approx(measured, rel=0.02)


def test_every_kind_of_file_is_written_and_loaded(capsys: pytest.CaptureFixture[str]) -> None:
    """Each has its bytes and seconds, each codec a load job, and compression compresses."""
    figures = last_line(load.main, ["--events=8000", "--rounds=1"], capsys)
    kinds = figures["per_million_sessions"]
    assert figures["sessions"] == 200
    assert set(kinds) == {kind.name for kind in load.KINDS}
    assert all(its.keys() >= {"bytes", "write_seconds", "extra_mib"} for its in kinds.values())
    assert {name for name in kinds if "load_seconds" in kinds[name]} == {
        "none", "snappy", "lz4", "zstd",
    }  # fmt: skip
    assert kinds["zstd"]["bytes"] < kinds["none"]["bytes"]


def test_ratios_are_of_pairs() -> None:
    """The median of ratios, not the ratio of medians: a slow moment slows both of a pair."""
    assert ratio([1.0, 10.0, 1.0], [2.0, 50.0, 4.0]) == 4.0
