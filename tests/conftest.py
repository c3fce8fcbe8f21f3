"""One emulator for each process of tests, the real clients, and what the long tests add up."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from bigquery.clients import Clients, local_clients
from sandbox import emulator
from sandbox.server import FAST, THREADS

if TYPE_CHECKING:
    from collections.abc import Iterator

os.environ.setdefault(THREADS, "1")  # tests run in several processes, each with an emulator
os.environ.setdefault(FAST, "1")  # any test runs on the plain emulator, too, with SANDBOX_FAST=0

type Count = Callable[[str, int], None]

_PREFIX = "figure: "

# Modules that take longest, so that none of them is left for one process alone at the end.
_LONGEST = (
    "test_kills", "test_googlesql", "test_exactness", "test_requests_on_data", "test_faults",
    "test_machine", "test_operations_sql", "test_lease", "test_source_shapes", "test_persons",
    "test_load_benchmarks", "test_hostile", "test_canaries", "test_image", "test_service",
)  # fmt: skip


# Runs that say again, of another kind of input, what a quicker test says: `make soak` has them.
_LONG = (
    "::test_missing_days_are", "::test_a_day_without_sessions", "::test_what_must_never_be",
    "::test_a_missing_run_fails", "::test_a_person_is_deleted", "[state missing]",
    "[sessions replaced]", "::test_a_limit_above_all", "::test_a_start_date_alone",
    "::test_half_an_emoji", "::test_users_without_phone", "fails_a_run[429]",
    "fails_a_run[answer cut]", "[503-jobs.insert", "[429-jobs.insert", "taken_up_again[0.0]",
    "[stopped-", "[accessDenied-", "[bytesBilledLimitExceeded-",
    "[full load, after the other]", "no_canary[timeout]",
    "no_canary[aborted]", "no_canary[source misshapen]", "::test_every_kind_of_run_but",
    "fails_a_run[hang]", "fails_a_run[dropped]", "[dropped-jobs.getQueryResults",
    "tried_again[quota", "by_the_next[extract]", "by_the_next[plan]", "by_the_next[enrich]",
    "by_the_next[audit]", "[request_1]", "[request_2]", "[metrics changed]",
    "[DATETIME, partitioned by it]", "::test_a_publication_whose_answer_is_lost",
    "::test_a_session_of_over_100_000_rows_is_kept", "::test_dates_mend", "[a view]",
    "::test_a_publication_that_fails_halfway", "::test_a_delivery_is_done_only_when",
    "::test_a_publication_nobody_hears",
)  # fmt: skip


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the long tests to SOAK=1, and put the longest modules first."""
    if os.environ.get("SOAK") != "1":
        long = [item for item in items if any(each in item.nodeid for each in _LONG)]
        config.hook.pytest_deselected(items=long)
        items[:] = [item for item in items if item not in long]
    places = {name: place for place, name in enumerate(_LONGEST)}
    items.sort(key=lambda item: places.get(item.path.stem, len(places)))


@pytest.fixture(scope="session")
def endpoints(tmp_path_factory: pytest.TempPathFactory) -> Iterator[emulator.Endpoints]:
    """Where this process's emulator answers. It slows with its tables: tests drop theirs."""
    with emulator.attach(tmp_path_factory.mktemp("sandbox")) as found:
        yield found


@pytest.fixture(scope="session")
def clients(endpoints: emulator.Endpoints) -> Iterator[Clients]:
    """The product's own clients of that emulator."""
    found = local_clients(endpoints)
    yield found
    found.close()


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
