"""BigQuery where access is denied, where it is unreachable, and where tables are not ours."""

from __future__ import annotations

import dataclasses
import socket
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING

import grpc
import pytest

from bigquery import retries
from bigquery.clients import Clients, local_clients
from bigquery.connection import CachedClients
from bigquery.destination import ensure_dataset, ensure_table, ensure_view
from bigquery.retries import wait_for
from bigquery.staging import drop_staging
from bigquery.tables import Field, TableSchema
from bigquery.warehouse import Warehouse
from runs.errors import DestinationError, UnavailableError
from runs.settings import Settings
from sandbox.emulator import Endpoints
from tests.scenario import Scenario, differences
from tests.sessions.test_requests_on_data import day_of_sessions

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


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


def test_an_unreachable_bigquery_is_one_sentence(
    clients: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refused connections are retried for a limited time; then one sentence and code 75 follow."""
    monkeypatch.setattr(retries, "_RETRY_SECONDS", 2.0)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        rest = f"http://127.0.0.1:{unused.getsockname()[1]}"
        unreachable = local_clients(Endpoints(rest=rest, grpc="127.0.0.1:9", token=""))
        with Scenario(clients=clients) as scenario:
            scenario.clients = unreachable
            with pytest.raises(
                UnavailableError, match=r"can't be reached|try again later"
            ) as raised:
                scenario.run()
            scenario.clients = clients
        unreachable.close()
    assert raised.value.exit_code == 75
    assert "\n" not in str(raised.value)


def test_staging_tables_expire_by_themselves(clients: Clients) -> None:
    """However a run ends, each of its staging tables expires within a day."""
    with Scenario(clients=clients) as scenario:
        scenario.arrive("posthog_events", day_of_sessions(0, 2))
        run_id = scenario.run().run_id
        jobs = [job for job in clients.bigquery.list_jobs(max_results=100) if run_id in job.job_id]
    statements = [
        job.query for job in jobs if "CREATE OR REPLACE TABLE" in getattr(job, "query", "")
    ]
    assert sum(sql.count("CREATE OR REPLACE TABLE") for sql in statements) == 10
    assert sum(sql.count("expiration_timestamp") for sql in statements) == 10


def test_staging_tables_that_cannot_be_dropped_do_not_fail_a_run(
    clients: Clients, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """If BigQuery is gone or the process ends, a warning says that they are left to expire."""
    settings = Settings(project_id="local")
    warehouse = Warehouse(clients=clients, settings=settings, run_id="over")
    monkeypatch.setattr(clients.bigquery, "_http_internal", object())  # of no use any more
    drop_staging(warehouse, [warehouse.staging("projected")])
    monkeypatch.setattr("concurrent.futures.thread._shutdown", True)  # as at the end of a process
    drop_staging(warehouse, [warehouse.staging("projected")])
    warnings = [each.message for each in caplog.records if "left to expire" in each.message]
    assert len(warnings) == 2
    assert warnings[1].endswith("RuntimeError")


WANTED = TableSchema(
    description="",
    fields=(
        Field(name="id", type="STRING"),
        Field(
            name="days", type="RECORD", is_repeated=True, fields=(Field(name="n", type="INT64"),)
        ),
    ),
)


@pytest.fixture(scope="module")
def destination(clients: Clients) -> Iterator[Warehouse]:
    """A dataset without tables."""
    settings = Settings(project_id="local", aggregated_dataset_id="of_another_kind")
    warehouse = Warehouse(clients=clients, settings=settings, run_id="kinds")
    ensure_dataset(warehouse)
    yield warehouse
    clients.bigquery.delete_dataset("of_another_kind", delete_contents=True)


@pytest.mark.parametrize(
    ("definition", "message"),
    [
        ("VIEW {t} AS SELECT 'x' AS id", "is a VIEW and should be a TABLE"),
        ("TABLE {t} (id INT64)", "Column id of .* is INT64 NULLABLE and should be STRING NULL"),
        ("TABLE {t} (id ARRAY<STRING>)", "is STRING REPEATED and should be STRING NULLABLE"),
        ("TABLE {t} (id STRING, own INT64 NOT NULL)", "Column own .* should be INT64 NULLABLE"),
        ("TABLE {t} (days ARRAY<STRUCT<n STRING>>)", "Column days.n .* should be INT64 NULLABLE"),
        ("TABLE {t} (days STRUCT<n INT64>)", "is RECORD NULLABLE and should be RECORD REPEATED"),
    ],
)
def test_a_table_of_another_kind_is_reported(
    destination: Warehouse, definition: str, message: str
) -> None:
    """A table that can't hold the rows is named before anything is read, with the remedy."""
    table = destination.table("existing")
    client = destination.clients.bigquery
    client.query(f"CREATE {definition.format(t=table.sql)}").result()
    try:
        with pytest.raises(DestinationError, match=f"{message}.*: (rename or drop|drop or rename)"):
            ensure_table(destination, table, WANTED)
        assert client.get_table(str(table)).table_type == definition.partition(" ")[0]
    finally:
        client.delete_table(str(table))


def test_an_operators_own_columns_stay_and_a_table_is_no_view(destination: Warehouse) -> None:
    """Columns that an operator adds may have any type, if they may be null."""
    table = destination.table("operators_own")
    client = destination.clients.bigquery
    client.query(f"CREATE TABLE {table.sql} (own ARRAY<STRING>, mine INT64)").result()
    assert {each.name for each in ensure_table(destination, table, WANTED)[1].schema} == {
        "own", "mine", "id", "days",
    }  # fmt: skip
    with pytest.raises(DestinationError, match="is a TABLE and should be a VIEW"):
        ensure_view(destination, "operators_own", "SELECT 1 AS id", WANTED)


def test_a_request_waits_for_bigquery_for_a_limited_time(
    sandbox_dir: Path, endpoints: Endpoints
) -> None:
    """Then its clients are made again, in case the emulator is gone; other clients stay."""
    assert endpoints.project == "local"
    settings = Settings(project_id="local", sandbox_dir=sandbox_dir)
    cached = CachedClients(settings, is_local=True)
    with (
        pytest.raises(UnavailableError, match="did not answer within 0 s"),
        cached.warehouse(0) as w,
    ):
        wait_for(w, Future())  # the answer that never comes
    with cached.warehouse() as other:
        assert other.clients is not w.clients
    with cached.warehouse() as again:
        assert again.clients is other.clients
    cached.close()
