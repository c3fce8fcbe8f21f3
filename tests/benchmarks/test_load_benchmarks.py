"""The benchmarks that run the whole product, at a small size, so that they keep working."""

from __future__ import annotations

from benchmarks import engines_agree, full_load, growth, latency


def test_both_engines_are_compared_cell_by_cell() -> None:
    """The comparison covers every session, and finds no cell that differs."""
    found = engines_agree.compare(1_000, days=2)
    assert found["differing"] == {}
    assert found["sessions"] > 20
    assert set(found["seconds"]) == {"pandas", "bigquery"}


def test_a_full_load_reports_its_memory_and_seconds() -> None:
    """The figures come from the report of a run in a separate process."""
    outcome = full_load.measure(1_000, days=2)
    assert 900 < outcome.report["counts"]["aggregated"] <= 1_000
    assert outcome.peak_mib > 50
    parts = {each["name"]: each["parts"] for each in outcome.report["steps"]}
    assert set(parts["aggregate"]) == {"download", "compute", "load"}


def test_growth_counts_what_a_nightly_run_reads() -> None:
    """A run of one day reads that day and its neighbours, however long the history."""
    found = growth.measure(2, 100, nights=1)
    assert found["history_events"] == 200
    assert 1 <= found["days_read"] <= 3
    assert 100 <= found["rows_read"] <= 300
    assert found["seconds_to_publish"] > 0


def test_latency_counts_the_jobs_that_a_run_waits_for() -> None:
    """A run without new events sends fewer BigQuery jobs, none of them for events."""
    found = latency.measure(0.1, days=2, events_per_day=50)
    idle, ordinary = found["nothing_new"], found["ordinary"]
    assert (idle["kind"], ordinary["kind"]) == ("nothing_new", "incremental")
    assert 4 < idle["in_a_row"] <= idle["jobs"] <= 9
    assert idle["jobs"] < ordinary["jobs"] <= 19
    assert idle["seconds"] > idle["in_a_row"] * 0.1


def test_parallel_jobs_count_as_one() -> None:
    """A job that begins while another one takes its time adds no wait of its own."""
    assert latency.in_a_row([0.0, 0.5, 1.0, 1.2, 2.5], 1.0) == 3
    assert latency.in_a_row([], 1.0) == 0
