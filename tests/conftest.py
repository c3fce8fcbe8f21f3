"""One emulator for each test module, through the real clients; and what the long tests add up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from sandbox import emulator
from warehouse import Clients, local_clients

if TYPE_CHECKING:
    from collections.abc import Iterator

type Count = Callable[[str, int], None]

_PREFIX = "figure: "

# Modules that take longest, so that none of them is left for one process alone at the end.
_LONGEST = (
    "test_kills", "test_googlesql", "test_exactness", "test_requests_on_data", "test_faults",
    "test_machine", "test_operations_sql", "test_lease", "test_source_shapes", "test_persons",
    "test_load_benchmarks", "test_hostile", "test_canaries", "test_image", "test_service",
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest modules first; the order of the others stays."""
    places = {name: place for place, name in enumerate(_LONGEST)}
    items.sort(key=lambda item: places.get(item.path.stem, len(places)))


@pytest.fixture(scope="module")
def endpoints(tmp_path_factory: pytest.TempPathFactory) -> Iterator[emulator.Endpoints]:
    """Where the module's emulator answers: a fresh one, since it slows down with what it held."""
    with emulator.attach(tmp_path_factory.mktemp("sandbox")) as found:
        yield found


@pytest.fixture(scope="module")
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
