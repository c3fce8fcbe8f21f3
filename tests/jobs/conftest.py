"""Places for jobs to run in, and a process whose children are killed."""

from __future__ import annotations

import subprocess
import sys
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import pytest
import redis

from sandbox.apis.anthropic import FakeAnthropic
from sandbox.apis.dogs import FakeDogs
from sandbox.apis.serving import serve
from sandbox.apis.tmdb import FakeTmdb
from sandbox.apis.valkey import HOST, serve_redis
from tests.jobs.place import PASSWORD, SECRETS, Place
from tests.paths import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from bigquery.clients import Clients
    from sandbox.emulator import Endpoints

type Kill = Callable[[Place, str, str], int]


@pytest.fixture(scope="session")
def redis_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Where a Redis with JSON and a password answers."""
    with serve_redis(tmp_path_factory.mktemp("redis"), password=PASSWORD) as found:
        yield found


@contextmanager
def made_place(clients: Clients, endpoints: Endpoints, redis_port: int) -> Iterator[Place]:
    """Stand-ins without data, and datasets that are not there yet."""
    with ExitStack() as stack:
        stored = redis.Redis(host=HOST, port=redis_port, password=PASSWORD, decode_responses=True)
        stack.callback(stored.close)
        found = Place(
            clients=clients,
            endpoints=endpoints,
            anthropic=stack.enter_context(
                serve(FakeAnthropic(key=SECRETS["ANTHROPIC_ADMIN_API_KEY"]))
            ),
            dogs=stack.enter_context(serve(FakeDogs())),
            tmdb=stack.enter_context(serve(FakeTmdb(key=SECRETS["TMDB_READ_TOKEN"]))),
            redis=stored,
            redis_port=redis_port,
        )
        stack.callback(found.drop)
        yield found


@pytest.fixture
def place(clients: Clients, endpoints: Endpoints, redis_port: int) -> Iterator[Place]:
    """A place for one test."""
    with made_place(clients, endpoints, redis_port) as found:
        yield found


@pytest.fixture(scope="session")
def kill() -> Iterator[Kill]:
    """Run a job in a process that is killed at a point of it; its exit code."""
    command = [sys.executable, "-m", "tests.jobs.victim"]
    with subprocess.Popen(  # noqa: S603 - our own command
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin
        assert process.stdout
        told, answers = process.stdin, process.stdout

        def kill(place: Place, job: str, at: str) -> int:
            told.write(place.asked_of_victim(job, at))
            told.flush()
            return int(answers.readline())

        yield kill
        told.close()
