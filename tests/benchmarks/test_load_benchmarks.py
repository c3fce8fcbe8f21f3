"""The benchmarks that run the whole product, at a small size, so that they can't rot."""

from __future__ import annotations

from benchmarks import engines_agree, full_load, growth, latency


def test_both_engines_are_compared_cell_by_cell() -> None:
    """The comparison sees every session, and finds no cell that differs."""
    found = engines_agree.compare(1_000, days=2)
    assert found["differing"] == {}
    assert found["sessions"] > 20
    assert set(found["seconds"]) == {"pandas", "bigquery"}


def test_a_full_load_tells_its_memory_and_its_seconds() -> None:
    """The figures come from the report of a run in a process of its own."""
    outcome = full_load.measure(1_000, days=2)
    assert 900 < outcome.report["counts"]["aggregated"] <= 1_000
    assert outcome.peak_mib > 50
    parts = {each["name"]: each["parts"] for each in outcome.report["steps"]}
    assert set(parts["aggregate"]) == {"download", "compute", "load"}


def test_growth_counts_what_a_night_reads() -> None:
    """A day's run reads that day and its neighbours, whatever the history; persons stand apart."""
    found = growth.measure(2, 100, nights=1)
    assert found["history_events"] == 200
    assert 1 <= found["days_read"] <= 3
    assert 100 <= found["rows_read"] <= 300
    assert found["seconds_to_publish"] > 0


def test_latency_counts_the_jobs_that_a_run_waits_for() -> None:
    """A run with nothing new sends fewer of them, and none of them for events."""
    found = latency.measure(0.1, days=2, events_per_day=50)
    idle, ordinary = found["nothing_new"], found["ordinary"]
    assert (idle["kind"], ordinary["kind"]) == ("nothing_new", "incremental")
    assert 4 < idle["in_a_row"] <= idle["jobs"] <= 9
    assert idle["jobs"] < ordinary["jobs"] <= 19
    assert idle["seconds"] > idle["in_a_row"] * 0.1


def test_jobs_side_by_side_count_once_in_a_row() -> None:
    """What begins while another job takes its time is not waited for besides."""
    assert latency.in_a_row([0.0, 0.5, 1.0, 1.2, 2.5], 1.0) == 3
    assert latency.in_a_row([], 1.0) == 0
