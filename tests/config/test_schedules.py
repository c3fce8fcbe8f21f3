"""config/jobs.yaml: every job once, with valid values, as the documents say."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from config.schedules import FILE, Schedule, read_schedules
from jobs.registry import JOBS
from runs.errors import SettingsError
from tests.paths import ROOT

if TYPE_CHECKING:
    from pathlib import Path

SETUP = ROOT / "docs" / "CLOUD_RUN_SCHEDULER_SETUP.md"


def test_every_job_has_one_schedule() -> None:
    """The file and the registry name the same jobs, in the same order."""
    assert list(read_schedules()) == list(JOBS)


def test_only_sessions_is_deployed_by_default() -> None:
    """Any other job, and its cost, is a choice of the operator."""
    assert [job for job, each in read_schedules().items() if each.deployed] == ["sessions"]


def cells(label: str) -> list[str]:
    """The cells of a row in the set-up document's table of jobs."""
    section = SETUP.read_text("utf-8").partition("\n## The other jobs\n")[2].partition("\n## ")[0]
    (row,) = re.findall(rf"^\| {re.escape(label)} \| (.*) \|$", section, re.MULTILINE)
    return [cell.strip() for cell in row.split("|")]


def test_the_set_up_document_says_what_the_file_says() -> None:
    """Cron, memory, CPU, time-out and retries of each job."""
    others = [each for job, each in read_schedules().items() if job != "sessions"]
    assert cells("cron, UTC") == [f"`{each.cron}`" for each in others]
    assert cells("memory, CPU") == [f"`{each.memory}`, `{each.cpu}`" for each in others]
    assert cells("time-out in minutes, retries") == [
        f"`{each.timeout_minutes}`, `{each.retries}`" for each in others
    ]
    assert {each.time_zone for each in others} == {"Etc/UTC"}


@pytest.mark.parametrize(
    ("right", "wrong", "message"),
    [
        ('cron: "0 2 * * *"', 'cron: "daily"', "sessions in config/jobs.yaml has a wrong cron"),
        ("mode: job", "mode: both", "has a wrong mode"),
        ("retries: 3", "retries: 9", "has a wrong retries"),
        ("retries: 3", 'retries: "3"', "lacks, or has a wrong, retries"),
        ("cpu: 2\n", "cpu: 3\n", "has a wrong cpu"),
        ("memory: 2Gi", "memory: 2", "lacks, or has a wrong, memory"),
        ("  stale_after_hours: 26\n", "", "lacks, or has a wrong, stale_after_hours"),
        ("deployed: true", "deployed: true\n  colour: blue", "lacks, or has a wrong, colour"),
        ("sessions:", "sessions: [", "can't be read as YAML"),
    ],
)
def test_an_invalid_value_is_named(right: str, wrong: str, message: str, tmp_path: Path) -> None:
    """One sentence names the job and the key."""
    text = FILE.read_text("utf-8")
    assert right in text
    file = tmp_path / "jobs.yaml"
    file.write_text(text.replace(right, wrong, 1), "utf-8")
    with pytest.raises(SettingsError, match=re.escape(message)):
        read_schedules(file)


def test_a_schedule_shows_when_it_runs() -> None:
    """GET /jobs shows these fields, and neither memory nor CPU."""
    shown = read_schedules()["dog_breeds"]
    assert isinstance(shown, Schedule)
    assert shown.to_json() == {
        "deployed": False,
        "mode": "job",
        "cron": "0 4 * * 0",
        "time_zone": "Etc/UTC",
        "retries": 1,
        "stale_after_hours": 192,
    }
