"""docs/adding-a-job.md, followed to the letter in a copy of the repository."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

from config.schedules import read_schedules
from tests.paths import ROOT

if TYPE_CHECKING:
    from pathlib import Path

PAGE = ROOT / "docs" / "adding-a-job.md"
COPIED = ("jobs", "config")  # what the page changes; the rest is linked
FILES = ("jobs/daily_totals.py", "tests/test_daily_totals.py")


def blocks(language: str) -> list[str]:
    """The fenced blocks of a language, in order."""
    return re.findall(
        rf"^```{language}\n(.*?)^```", PAGE.read_text("utf-8"), re.DOTALL | re.MULTILINE
    )


def copy_repository(folder: Path) -> None:
    """Link all that a run and its tests need, and copy what the page changes."""
    for found in ROOT.iterdir():
        if found.name in COPIED:
            shutil.copytree(found, folder / found.name)
        elif found.suffix in {".py", ".toml"} or (found / "__init__.py").exists():
            (folder / found.name).symlink_to(found)
    (folder / "tests").unlink()
    (folder / "tests").mkdir()
    for found in (ROOT / "tests").glob("*.py"):
        (folder / "tests" / found.name).symlink_to(found)


def follow_the_page(folder: Path) -> None:
    """Write the job's file, its entries and its test as the page shows them."""
    job, entry, test = blocks("python")
    for name, text in zip(FILES, (job, test), strict=True):
        (folder / name).write_text(text, "utf-8")
    registry = folder / "jobs" / "registry.py"
    before, marker, after = registry.read_text("utf-8").partition(
        "JOBS: Final[dict[str, str]] = {\n"
    )
    registry.write_text(before + marker + entry + after, "utf-8")
    (schedule,) = blocks("yaml")
    with (folder / "config" / "jobs.yaml").open("a", encoding="utf-8") as file:
        file.write(f"\n{schedule}")


def run(folder: Path, *command: str) -> None:
    """Run a Python module in the copy; it must succeed."""
    environ = {**os.environ, "PYTHONPATH": str(folder)}
    ran = subprocess.run(  # noqa: S603 - our own command
        [sys.executable, "-m", *command],
        cwd=folder, env=environ, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, f"{ran.stdout}{ran.stderr}"


def test_a_job_can_be_added_as_the_page_says(tmp_path: Path) -> None:
    """Its test passes, ruff accepts its files, and its schedule is read."""
    copy_repository(tmp_path)
    follow_the_page(tmp_path)
    run(tmp_path, "pytest", "-n", "0", "-q", "-p", "no:cacheprovider", FILES[1])
    run(tmp_path, "ruff", "check", *FILES)
    run(tmp_path, "ruff", "format", "--check", *FILES)
    schedule = read_schedules(tmp_path / "config" / "jobs.yaml")["daily_totals"]
    assert (schedule.deployed, schedule.cron) == (True, "30 3 * * *")
