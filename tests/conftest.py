"""One emulator for each test module, through the real clients."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sandbox import emulator
from warehouse import Clients, local_clients

if TYPE_CHECKING:
    from collections.abc import Iterator


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
