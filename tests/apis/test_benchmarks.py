"""The benchmarks of what is read from APIs run, at sizes that show a leak and not a speed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from benchmarks import claude_usage, tmdb_day

if TYPE_CHECKING:
    import pytest


def test_memory_is_measured_in_a_process_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    """Every row is read and written, within the memory that ten times as many may take."""
    claude_usage.main(["--rows=10000"])
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (found["rows"], found["reported_rows"]) == (10_000, 10_000)
    assert 50 < found["peak_mib"] < claude_usage.TARGET_MIB


def test_a_day_of_changes_is_measured_against_its_rate(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Every id is in Redis, and the requests took about as long as they had to."""
    tmdb_day.main(["--ids=23", "--latency=0.1", "--rate=20"])
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["ids"] == found["upserted"] == 23
    assert found["requests"] == 24
    assert 0.9 < found["ratio"] < tmdb_day.TARGET
