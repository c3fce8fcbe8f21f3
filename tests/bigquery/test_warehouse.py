"""BigQuery as it behaves on a bad day: not allowed, not there, not free."""

from __future__ import annotations

import dataclasses
import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING

import grpc
import pytest

from bigquery import retries
from bigquery.clients import Clients, local_clients
from bigquery.staging import drop_staging
from bigquery.warehouse import Warehouse
from runs.errors import UnavailableError
from runs.settings import Settings
from sandbox.emulator import Endpoints
from tests.scenario import Scenario, differences
from tests.sessions.test_requests_on_data import day_of_sessions

if TYPE_CHECKING:
    from collections.abc import Iterator


class _Denied(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpc is untyped
    """A Storage API that every caller lacks the role for."""

    def service(
        self,
        handler_call_details: grpc.HandlerCallDetails,  # noqa: ARG002 - every call is refused
    ) -> grpc.RpcMethodHandler:
        return grpc.unary_unary_rpc_method_handler(self._refuse)

    @staticmethod
    def _refuse(_: bytes, context: grpc.ServicerContext) -> bytes:
        context.abort(grpc.StatusCode.PERMISSION_DENIED, "bigquery.readsessions.create is missing")
        return b""


@contextmanager
def denied_storage(endpoints: Endpoints) -> Iterator[Clients]:
    """Clients of the emulator whose Storage API says PermissionDenied, over the wire."""
    server = grpc.server(ThreadPoolExecutor(1), handlers=(_Denied(),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    clients = local_clients(dataclasses.replace(endpoints, grpc=f"127.0.0.1:{port}"))
    yield clients
    clients.close()
    server.stop(None).wait()


def test_without_the_storage_api_batches_come_by_rest(endpoints: Endpoints) -> None:
    """Where read sessions are not allowed the run succeeds all the same, with one warning."""
    with denied_storage(endpoints) as clients, Scenario(clients=clients) as scenario:
        scenario.settings["max_batch_events"] = 5
        scenario.arrive("posthog_events", day_of_sessions(0, 9))
        report = scenario.run()
        assert [text for text in report.warnings if "readSessionUser" in text]
        assert len(report.warnings) == 2  # the other one: these events are old
        assert differences(scenario.sessions(), scenario.expected()) == []


def test_an_address_where_nobody_answers_is_one_sentence(
    clients: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Connections refused: tried again for a bounded time, then one sentence and code 75."""
    monkeypatch.setattr(retries, "_RETRY_SECONDS", 2.0)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        rest = f"http://127.0.0.1:{unused.getsockname()[1]}"
        nobody = local_clients(Endpoints(rest=rest, grpc="127.0.0.1:9", token=""))
        with Scenario(clients=clients) as scenario:
            scenario.clients = nobody
            with pytest.raises(
                UnavailableError, match=r"can't be reached|try again later"
            ) as raised:
                scenario.run()
            scenario.clients = clients
        nobody.close()
    assert raised.value.exit_code == 75
    assert "\n" not in str(raised.value)


def test_staging_tables_expire_by_themselves(clients: Clients) -> None:
    """Whatever becomes of a run, each of its staging tables has an expiry within a day."""
    with Scenario(clients=clients) as scenario:
        scenario.arrive("posthog_events", day_of_sessions(0, 2))
        run_id = scenario.run().run_id
        jobs = [job for job in clients.bigquery.list_jobs(max_results=100) if run_id in job.job_id]
    made = [job.query for job in jobs if "CREATE OR REPLACE TABLE" in getattr(job, "query", "")]
    assert sum(sql.count("CREATE OR REPLACE TABLE") for sql in made) == 10
    assert sum(sql.count("expiration_timestamp") for sql in made) == 10


def test_a_run_does_not_fail_by_what_it_leaves_to_expire(
    clients: Clients, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Where BigQuery is gone, or the process ends: a warning, since the run is over by then."""
    settings = Settings(project_id="local")
    warehouse = Warehouse(clients=clients, settings=settings, run_id="over")
    monkeypatch.setattr(clients.bigquery, "_http_internal", object())  # of no use any more
    drop_staging(warehouse, [warehouse.staging("projected")])
    monkeypatch.setattr("concurrent.futures.thread._shutdown", True)  # as at the end of a process
    drop_staging(warehouse, [warehouse.staging("projected")])
    told = [each.message for each in caplog.records if "left to expire" in each.message]
    assert len(told) == 2
    assert told[1].endswith("RuntimeError")
