"""The clients of a run, for Google's BigQuery or an emulator. Makes them and sends no request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from google.auth.credentials import Credentials
    from google.cloud import bigquery
    from google.cloud.bigquery_storage import BigQueryReadClient

    from runs.settings import Settings
    from sandbox.emulator import Endpoints

_BIGQUERY_URL: Final = "https://bigquery.googleapis.com"


@dataclass(frozen=True, slots=True, kw_only=True)
class Clients:
    """The two clients a run works with."""

    bigquery: bigquery.Client
    storage: BigQueryReadClient

    def close(self) -> None:
        """Close their connections."""
        self.bigquery.close()
        self.storage.transport.close()


def make_clients(settings: Settings, credentials: Credentials) -> Clients:
    """Clients of Google's BigQuery, whatever the environment says about other addresses."""
    from google.cloud import bigquery
    from google.cloud.bigquery_storage import BigQueryReadClient

    return Clients(
        bigquery=bigquery.Client(
            project=settings.project_id,
            credentials=credentials,
            location=settings.location,
            # Explicit: otherwise BIGQUERY_EMULATOR_HOST could receive real tokens.
            client_options={"api_endpoint": _BIGQUERY_URL},
        ),
        storage=BigQueryReadClient(credentials=credentials),
    )


def local_clients(endpoints: Endpoints) -> Clients:
    """Clients of an emulator, without credentials."""
    import grpc
    from google.auth.credentials import AnonymousCredentials
    from google.auth.transport.requests import AuthorizedSession
    from google.cloud import bigquery
    from google.cloud.bigquery_storage import BigQueryReadClient
    from google.cloud.bigquery_storage_v1.services.big_query_read.transports import (
        BigQueryReadGrpcTransport,
    )

    # The environment's proxy must not be used for an emulator on this machine.
    channel = grpc.insecure_channel(
        endpoints.grpc,
        options=[("grpc.max_receive_message_length", -1), ("grpc.enable_http_proxy", 0)],
    )
    session = AuthorizedSession(AnonymousCredentials())
    session.trust_env = False
    session.headers.update(endpoints.headers)
    return Clients(
        bigquery=bigquery.Client(
            project=endpoints.project,
            credentials=AnonymousCredentials(),
            client_options={"api_endpoint": endpoints.rest},
            _http=session,
        ),
        storage=BigQueryReadClient(transport=BigQueryReadGrpcTransport(channel=channel)),
    )
