"""A small app's history with two runs, one of them failed, for the tests of the console."""

from __future__ import annotations

import datetime as dt
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import pytest
from werkzeug.serving import make_server

from app import create_app
from runs.errors import AuditError
from sandbox.filling import seed_history
from sandbox.generator.history import Period
from tests.scenario import Scenario

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from flask import Flask
    from flask.testing import FlaskClient

    from bigquery.clients import Clients

OTHER_RUN: Final = "20260101T000000_aaaaaaaa"  # of somebody else
_FEWER: Final = "CREATE TABLE {n} AS SELECT * FROM {t} LIMIT 1"
_ALL: Final = "CREATE TABLE {n} AS SELECT * FROM {t}"


@contextmanager
def history(clients: Clients) -> Iterator[Scenario]:
    """Forty days up to yesterday, a full load, and a run that an audit has stopped."""
    yesterday = dt.datetime.now(dt.UTC).date() - dt.timedelta(days=1)
    with Scenario(clients=clients) as scenario:
        seed_history(
            clients.bigquery,
            scenario.datasets,
            seed=3,
            sessions=70,
            period=Period(last_day=yesterday, days=40),
            properties="string",
            progress=lambda _: None,
        )
        scenario.run()
        scenario.replace("firebase_users", _FEWER)
        with pytest.raises(AuditError):
            scenario.run()
        scenario.replace("firebase_users", _ALL)
        yield scenario


def environ_of(scenario: Scenario, sandbox_dir: Path) -> dict[str, str]:
    """The variables of a service on the scenario's datasets."""
    return {
        "POSTHOG_DATASET_ID": scenario.datasets.posthog,
        "FIREBASE_DATASET_ID": scenario.datasets.firebase,
        "POSTHOG_AGGREGATED_DATASET_ID": scenario.destination,
        "SANDBOX_DIR": str(sandbox_dir),
    }


@contextmanager
def calling(environ: dict[str, str]) -> Iterator[FlaskClient]:
    """A browser of the service with these variables, whose clients are closed at the end."""
    service = create_app(environ, is_local=True)
    with closing_clients(service):
        yield service.test_client()


@contextmanager
def closing_clients(service: Flask) -> Iterator[None]:
    """Close what a service opens within the block."""
    yield
    site: Any = service.view_functions["ready"]
    site.__self__._made.clients.close()  # noqa: SLF001 - a process would end here


@contextmanager
def serving_here(service: Flask) -> Iterator[str]:
    """The address of a service in a thread of this process."""
    with make_server("127.0.0.1", 0, service, threaded=True) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://localhost:{server.server_port}"
        server.shutdown()
        thread.join()


def take_lease(scenario: Scenario, seconds: int = 60) -> None:
    """Let somebody else hold the lease."""
    scenario.query(
        f"UPDATE {{d}}.etl_lease_sessions SET run_id = '{OTHER_RUN}', fence = fence + 1,"
        f" expires_at = TIMESTAMP_ADD(CURRENT_TIMESTAMP(), INTERVAL {seconds} SECOND) WHERE TRUE"
    )


def release_lease(scenario: Scenario) -> None:
    """Let them give it back."""
    scenario.query("UPDATE {d}.etl_lease_sessions SET run_id = NULL, expires_at = NULL WHERE TRUE")
