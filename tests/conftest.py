"""One emulator for the whole test session, through the real clients."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import etl_functions as etl
from sandbox import emulator
from tests.world import World

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture(scope="session")
def endpoints(tmp_path_factory: pytest.TempPathFactory) -> Iterator[emulator.Endpoints]:
    """Where the session's emulator answers."""
    with emulator.attach(tmp_path_factory.mktemp("sandbox")) as found:
        yield found


@pytest.fixture(scope="session")
def clients(endpoints: emulator.Endpoints) -> Iterator[etl.Clients]:
    """The product's own clients of that emulator."""
    found = etl.local_clients(endpoints)
    yield found
    found.close()


@pytest.fixture
def world(clients: etl.Clients) -> Callable[..., World]:
    """Makes worlds: datasets of their own, empty."""

    def make(**arguments: object) -> World:
        return World(clients=clients, **arguments)  # type: ignore[arg-type]

    return make
