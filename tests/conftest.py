"""One emulator for each process of tests, the real clients, and what the long tests add up."""

from __future__ import annotations

import contextlib
import gc
import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from bigquery.clients import Clients, local_clients
from sandbox import emulator
from sandbox.fast.shared import SHARED
from sandbox.server import FAST, THREADS
from sandbox.sources import SourceDatasets, create_tables
from tests.forks import environ_of, start_forks
from tests.paths import COMPILED, EMULATORS, ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from subprocess import CompletedProcess

    from tests.forks import Forks, Run

os.environ.setdefault(THREADS, "1")  # tests run in several processes, each with an emulator
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # a thread that waits costs time
os.environ.setdefault(FAST, "1")  # any test runs on the plain emulator, too, with SANDBOX_FAST=0

# Random tests get the same inputs each time, and no limit of seconds: a first run exceeds it while
# Hypothesis makes its tables of Unicode.
settings.load_profile("ci")

type Count = Callable[[str, int], None]

_PREFIX = "figure: "
_MOST_SECONDS = 3 * 24 * 3600  # that emulators use what an earlier run of tests made
_COMPILING = pytest.StashKey[subprocess.Popen[bytes]]()


def pytest_sessionstart(session: pytest.Session) -> None:
    """Compile ZetaSQL, half a minute's work, in moments when the processes of tests wait.

    Before that, delete what emulators made days ago.
    """
    if "PYTEST_XDIST_WORKER" in os.environ:
        return
    for file in EMULATORS.glob("*/functions_*.duckdb"):  # the first one there
        with contextlib.suppress(FileNotFoundError):  # another run of tests deletes it, too
            if file.stat().st_mtime < time.time() - _MOST_SECONDS:
                shutil.rmtree(file.parent, ignore_errors=True)
    if not session.config.getoption("numprocesses"):
        return
    if not (COMPILED / "modules").exists():
        command = [sys.executable, "-m", "tests.googlesql"]
        session.config.stash[_COMPILING] = subprocess.Popen(  # noqa: S603 - our own command
            command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )


def pytest_sessionfinish(session: pytest.Session) -> None:
    """End the compilation, if nobody has needed it."""
    if compiling := session.config.stash.get(_COMPILING, None):
        compiling.terminate()
        compiling.wait()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files outside folders, two of which are long: the last should be short."""
    items.sort(key=lambda item: len(item.path.parts))


def pytest_collection_finish() -> None:
    """What has been imported and collected stays, and need not be looked through again."""
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def shared_by_emulators() -> None:
    """A directory in which every emulator of tests uses what another one made of the same code."""
    code = [ROOT / "requirements-dev.txt"]
    code += [ROOT / "sandbox" / name for name in ("catalog.py", "functions.py")]
    code += sorted((ROOT / "sandbox" / "fast").glob("*.py"))
    digest = hashlib.sha256(b"".join(each.read_bytes() for each in code)).hexdigest()
    folder = EMULATORS / digest[:16]
    folder.mkdir(parents=True, exist_ok=True)
    os.environ[SHARED] = str(folder)


@pytest.fixture(scope="session")
def sandbox_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of this process's emulator, by which other processes attach to it."""
    return tmp_path_factory.mktemp("sandbox")


@pytest.fixture(scope="session")
def endpoints(sandbox_dir: Path) -> Iterator[emulator.Endpoints]:
    """Where this process's emulator answers. It slows with its tables: tests drop theirs."""
    with emulator.attach(sandbox_dir) as found:
        yield found


@pytest.fixture(scope="session")
def clients(endpoints: emulator.Endpoints) -> Iterator[Clients]:
    """The product's own clients of that emulator."""
    found = local_clients(endpoints)
    yield found
    found.close()


@pytest.fixture(scope="module")
def usual_sources(clients: Clients) -> Iterator[SourceDatasets]:
    """The source tables under their usual names; they and what runs make go with the module."""
    sources = SourceDatasets()
    create_tables(clients.bigquery, sources)
    yield sources
    for dataset in (sources.posthog, sources.firebase, "posthog_aggregated"):
        clients.bigquery.delete_dataset(dataset, delete_contents=True, not_found_ok=True)


@pytest.fixture(scope="session")
def forks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forks]:
    """A process whose forks are command lines."""
    with start_forks(tmp_path_factory.mktemp("forks")) as found:
        yield found


@pytest.fixture(scope="session")
def run(forks: Forks) -> Run:
    """What `python main.py ARGUMENTS` prints, and its exit code: of a process that is forked."""

    def run(
        *arguments: str, folder: Path | None = None, environment: dict[str, str] | None = None
    ) -> CompletedProcess[str]:
        return forks.run(arguments, environ_of(folder) | (environment or {}))

    return run


@pytest.fixture
def count(record_property: Callable[[str, object], None]) -> Count:
    """Add to a figure that stands at the end of the tests: kills survived, say."""
    return lambda name, number: record_property(f"{_PREFIX}{name}", number)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The sum of each figure, over all tests and processes."""
    figures: Counter[str] = Counter()
    for report in terminalreporter.stats.get("", []):
        if getattr(report, "when", "") == "teardown":  # has those of setup and call, too
            for name, number in report.user_properties:
                if name.startswith(_PREFIX) and isinstance(number, int):
                    figures[name.removeprefix(_PREFIX)] += number
    for name, number in sorted(figures.items()):
        terminalreporter.write_line(f"{name}: {number:,}")
