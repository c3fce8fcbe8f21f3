"""Scenarios for jobs to run in, and a process whose child processes are killed."""

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
from tests.jobs.scenario import PASSWORD, SECRETS, JobScenario
from tests.paths import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from bigquery.clients import Clients
    from sandbox.emulator import Endpoints

type Kill = Callable[[JobScenario, str, str], int]


@pytest.fixture(scope="session")
def redis_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a Redis with JSON and a password."""
    with serve_redis(tmp_path_factory.mktemp("redis"), password=PASSWORD) as found:
        yield found


@contextmanager
def create_scenario(
    clients: Clients, endpoints: Endpoints, redis_port: int
) -> Iterator[JobScenario]:
    """A scenario of fake APIs without data, whose datasets do not exist yet."""
    with ExitStack() as stack:
        redis_client = redis.Redis(
            host=HOST, port=redis_port, password=PASSWORD, decode_responses=True
        )
        stack.callback(redis_client.close)
        found = JobScenario(
            clients=clients,
            endpoints=endpoints,
            anthropic=stack.enter_context(
                serve(FakeAnthropic(key=SECRETS["ANTHROPIC_ADMIN_API_KEY"]))
            ),
            dogs=stack.enter_context(serve(FakeDogs())),
            tmdb=stack.enter_context(serve(FakeTmdb(key=SECRETS["TMDB_READ_TOKEN"]))),
            redis=redis_client,
            redis_port=redis_port,
        )
        stack.callback(found.drop)
        yield found


@pytest.fixture
def scenario(clients: Clients, endpoints: Endpoints, redis_port: int) -> Iterator[JobScenario]:
    """A scenario for one test."""
    with create_scenario(clients, endpoints, redis_port) as found:
        yield found


@pytest.fixture(scope="session")
def kill() -> Iterator[Kill]:
    """Run a job in a process that kills itself at a given point; its exit code."""
    command = [sys.executable, "-m", "tests.jobs.killed_jobs"]
    with subprocess.Popen(  # noqa: S603 - our own command
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin
        assert process.stdout
        requests, exit_codes = process.stdin, process.stdout

        def kill(scenario: JobScenario, job: str, at: str) -> int:
            requests.write(scenario.kill_request(job, at))
            requests.flush()
            return int(exit_codes.readline())

        yield kill
        requests.close()
