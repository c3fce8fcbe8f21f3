"""Promise 3 on a bad network: requests refused, dropped, answered in vain, or late.

SOAK=1: every fault at every kind of request, alone and at several moments of a run.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, get_args

import pytest

import etl_functions as etl
from pipeline.errors import EtlError, RunTimeoutError, UnavailableError
from tests.fault_proxy import Fault, HttpProxy, Kind, TcpProxy
from tests.test_requests_on_data import MIDNIGHT, day_of_sessions, event
from tests.world import World, differences
from warehouse import local_clients

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pipeline.runs import RunReport
    from sandbox.emulator import Endpoints

IS_SOAK = os.environ.get("SOAK") == "1"
ALWAYS = 1_000_000
KINDS: tuple[Kind, ...] = get_args(Kind.__value__)
# What the product asks of the REST endpoint: method, path.
REQUESTS = {
    "jobs.insert of a query": ("POST", r"^/bigquery/v2/projects/\w+/jobs(\?|$)"),
    "jobs.insert of a load": ("POST", r"^/upload/"),
    "jobs.getQueryResults": ("GET", r"/queries/"),
    "jobs.get": ("GET", r"/jobs/"),
    "tables.get": ("GET", r"/tables/"),
    "tables.insert": ("POST", r"/tables(\?|$)"),
    "tables.delete": ("DELETE", r"/tables/"),
    "datasets.get": ("GET", r"/datasets/\w+(\?|$)"),
}
CREATIONS = (r"/datasets(\?|$)", r"/tables(\?|$)")  # where a first run POSTs to
ONCE_A_RUN = {"jobs.insert of a load", "jobs.get", "datasets.get", "tables.insert"}
MATRIX = [
    pytest.param(kind, {request: first}, id=f"{kind} at {request} {first}")
    for kind, request, first in itertools.product(KINDS, REQUESTS, (1, 2, 9))
]
# The same in few runs: one fault of a kind at each kind of request, at different moments.
SAMPLE = [
    pytest.param(
        kind,
        {
            request: 1 if request in ONCE_A_RUN else 1 + (row + column) % 2
            for column, request in enumerate(REQUESTS)
        },
        id=kind,
    )
    for row, kind in enumerate(KINDS)
]


@dataclass(kw_only=True)
class Wire:
    """A world whose clients go through the proxies."""

    world: World
    rest: HttpProxy
    grpc: TcpProxy
    usual: int  # bytes of a full load's download
    numbers: Iterator[int] = field(default_factory=itertools.count)

    def arrive(self) -> None:
        """New rows: one for a session that is published already, and one of a new session."""
        number = next(self.numbers)
        rows = [event(name, MIDNIGHT.replace(hour=12, minute=number // 60, second=number % 60))
                for name in (f"d0-{number % 6}", f"new-{number}")]  # fmt: skip
        self.world.arrive("posthog_events", rows)

    def run(self, *faults: Fault) -> RunReport:
        """A run while these happen."""
        with self.rest.faulty(*faults):
            return self.world.run()

    def check_exact(self) -> None:
        """The published table is the oracle's."""
        assert differences(self.world.sessions(), self.world.expected()) == []

    def check_made_good(self) -> None:
        """The next run succeeds without a full load, and leaves the oracle's table."""
        assert self.world.run().kind in {"incremental", "nothing_new"}
        self.check_exact()


@pytest.fixture(scope="module")
def shared(endpoints: Endpoints) -> Iterator[Wire]:
    """A day of sessions behind the proxies, run once."""
    with ExitStack() as stack:
        rest = stack.enter_context(HttpProxy(endpoints.rest))
        grpc = stack.enter_context(TcpProxy(endpoints.grpc))
        proxied = dataclasses.replace(endpoints, rest=rest.address, grpc=grpc.address)
        clients = local_clients(proxied)
        stack.callback(clients.close)
        world = World(clients=clients)
        world.arrive("posthog_events", day_of_sessions(0, 6))
        world.run()
        yield Wire(world=world, rest=rest, grpc=grpc, usual=grpc.received)


@pytest.fixture
def wire(shared: Wire, monkeypatch: pytest.MonkeyPatch) -> Wire:
    """The same with new rows, and a run that gives up after seconds."""
    monkeypatch.setattr(etl, "_RETRY_SECONDS", 5.0)
    shared.arrive()
    return shared


@pytest.mark.parametrize(("kind", "requests"), [*SAMPLE, *(MATRIX if IS_SOAK else ())])
def test_no_single_fault_fails_a_run(wire: Wire, kind: Kind, requests: dict[str, int]) -> None:
    """A request that fails once, whatever it is and however, is repeated or taken up again."""
    faults = [
        Fault(kind=kind, method=REQUESTS[name][0], path=REQUESTS[name][1], first=first)
        for name, first in requests.items()
    ]
    report = wire.run(*faults)
    assert report.sessions["touched"] == 2
    wire.check_exact()
    # A run may have fewer requests of a kind than the matrix names. Those of the sample it all has,
    # but jobs.get: that is for jobs that were submitted in vain or take longer.
    missed = requests.keys() - {
        name for name, each in zip(requests, faults, strict=True) if each.hits
    }
    assert len(faults) == 1 or missed <= {"jobs.get"}


@pytest.mark.parametrize("kind", KINDS if IS_SOAK else ["answer lost"])
def test_a_first_run_survives_faults_as_it_creates_the_destination(wire: Wire, kind: Kind) -> None:
    """What was created though nobody heard is met again: one dataset, its tables, every row."""
    faults = [Fault(kind=kind, method="POST", path=path) for path in CREATIONS]
    twin = wire.world.twin()
    with wire.rest.faulty(*faults):
        twin.run()
    assert [len(fault.hits) for fault in faults] == [1, 1]
    assert differences(twin.sessions(), twin.expected()) == []
    twin.clients.bigquery.delete_dataset(twin.destination, delete_contents=True)


@pytest.mark.parametrize("kind", KINDS if IS_SOAK else ["answer lost", "answer cut"])
def test_a_publication_whose_answer_is_lost_is_not_repeated(wire: Wire, kind: Kind) -> None:
    """The transaction is found again under its job id: it commits once, and the run succeeds."""
    method, path = REQUESTS["jobs.insert of a query"]
    fault = Fault(kind=kind, method=method, path=path, body="BEGIN TRANSACTION")
    wire.run(fault)
    assert len(fault.hits) == 1
    wire.check_exact()


@pytest.mark.parametrize(
    "asked",
    [
        r"/queries/.*_publish_",
        r"/(queries|jobs)/.*_publish_",
    ],
    ids=["jobs.get answers", "nothing answers"],
)
def test_a_publication_nobody_hears_of_is_whole(wire: Wire, asked: str) -> None:
    """Committed though every answer about it is lost: the run fails, the next has nothing to do."""
    method, path = REQUESTS["jobs.insert of a query"]
    submit = Fault(kind="answer lost", method=method, path=path, body="BEGIN TRANSACTION")
    ask = Fault(kind="dropped", method="GET", path=asked, times=ALWAYS)
    with pytest.raises(UnavailableError):
        wire.run(submit, ask)
    assert submit.hits
    assert ask.hits
    wire.check_exact()
    assert wire.world.run().kind == "nothing_new"
    wire.check_exact()


OUTAGES = [
    ("503", "jobs.insert of a query", 9),
    ("dropped", "jobs.getQueryResults", 9),
    ("answer cut", "tables.get", 6),
    pytest.param(
        "429",
        "jobs.insert of a load",
        1,
    ),
]


@pytest.mark.parametrize(
    ("kind", "request_", "first"),
    [*itertools.product(KINDS, REQUESTS, (1, 9))] if IS_SOAK else OUTAGES,
    ids=str,
)
def test_an_outage_is_one_sentence_and_changes_nothing(
    wire: Wire, kind: Kind, request_: str, first: int
) -> None:
    """What fails for good ends the run with an error of ours; the old table or the new stands."""
    before = wire.world.sessions()
    method, path = REQUESTS[request_]
    fault = Fault(kind=kind, method=method, path=path, first=first, times=ALWAYS)
    with suppress(EtlError):
        wire.run(fault)
    now = wire.world.sessions()
    assert now == before or differences(now, wire.world.expected()) == []
    wire.world.query("UPDATE {d}.etl_lease_sessions SET run_id = NULL WHERE TRUE")
    wire.check_made_good()


@pytest.mark.parametrize("part", [0.0, 0.3, 0.6, 0.95] if IS_SOAK else [0.0, 0.6])
def test_a_download_that_breaks_off_is_taken_up_again(wire: Wire, part: float) -> None:
    """The Storage API's connection is reset anywhere, once: the run succeeds, no row twice."""
    wire.grpc.received = wire.grpc.broken = 0
    wire.grpc.break_after = int(wire.usual * part)
    try:
        wire.world.run(full_load=True)
    finally:
        wire.grpc.break_after = None
    assert wire.grpc.broken == 1
    wire.check_exact()


def test_a_download_that_hangs_ends_at_the_deadline(wire: Wire) -> None:
    """The deadline holds also while the Storage API says nothing more."""
    before = wire.world.sessions()
    wire.world.settings["timeout_seconds"] = 12
    wire.grpc.is_silent.set()
    try:
        with pytest.raises(RunTimeoutError):
            wire.run()
    finally:
        wire.grpc.is_silent.clear()
        del wire.world.settings["timeout_seconds"]
    assert wire.world.sessions() == before
    wire.check_made_good()
