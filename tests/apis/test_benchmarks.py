"""The benchmarks of the API jobs run, at sizes that show a memory leak but measure no speed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from benchmarks import claude_usage, tmdb_day

if TYPE_CHECKING:
    import pytest


def test_memory_is_measured_in_a_separate_process(capsys: pytest.CaptureFixture[str]) -> None:
    """Every row is read and written, within the memory limit for ten times as many rows."""
    claude_usage.main(["--rows=10000"])
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (figures["rows"], figures["reported_rows"]) == (10_000, 10_000)
    assert 50 < figures["peak_mib"] < claude_usage.TARGET_MIB


def test_a_day_of_changes_is_measured_against_the_rate_limit(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Every id reaches Redis, in about the time that the rate limit makes necessary."""
    tmdb_day.main(["--ids=23", "--latency=0.1", "--rate=20"])
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert figures["ids"] == figures["upserted"] == 23
    assert figures["requests"] == 24
    assert 0.9 < figures["ratio"] < tmdb_day.TARGET
