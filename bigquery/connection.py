"""Clients as a deployment's settings say: who opens and closes them. Sends no request itself."""

from __future__ import annotations

import threading
import time
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bigquery.clients import local_clients, make_clients
from bigquery.credentials import fetch_credentials
from bigquery.warehouse import Warehouse
from runs.errors import CredentialsError, SettingsError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from bigquery.clients import Clients
    from runs.settings import Settings

ANSWER_SECONDS: Final = 20.0
"""What a request about runs waits for BigQuery at most."""
READING_SECONDS: Final = 300.0
"""What a request about rows waits for BigQuery at most."""


@contextmanager
def connect(settings: Settings, *, is_local: bool) -> Iterator[Clients]:
    """Clients until the end of the block.

    Made from the settings' credentials or, when `is_local`, those of the sandbox's emulator.
    """
    with _local(settings) if is_local else _remote(settings) as clients:
        yield clients


@contextmanager
def _remote(settings: Settings) -> Iterator[Clients]:
    with closing(make_clients(settings, fetch_credentials(settings))) as clients:
        yield clients


@contextmanager
def _local(settings: Settings) -> Iterator[Clients]:
    """Clients of the sandbox's emulator, which is started if it is not running."""
    try:
        from sandbox import emulator
        from sandbox.errors import SandboxError
    except ModuleNotFoundError as error:
        message = (
            "--local needs the development packages: run make setup, and use .venv/bin/python."
        )
        raise SettingsError(message) from error
    try:
        with (
            emulator.attach(settings.sandbox_dir) as endpoints,
            closing(local_clients(endpoints)) as clients,
        ):
            yield clients
    except SandboxError as error:
        raise UnavailableError(str(error)) from error


def local_environment(environ: Mapping[str, str]) -> Mapping[str, str]:
    """The environment, with the settings of stand-ins for APIs that run beside the emulator."""
    try:
        from sandbox.apis.everything import running_settings
    except ModuleNotFoundError:
        return environ
    return running_settings(Path(environ.get("SANDBOX_DIR") or ".sandbox")) | dict(environ)


class CachedClients:
    """Clients for many requests: made when first needed, and again where they are of no use."""

    def __init__(self, settings: Settings, *, is_local: bool) -> None:
        self._settings = settings
        self._is_local = is_local
        self._lock = threading.Lock()
        self._open = ExitStack()
        self._clients: Clients | None = None

    @contextmanager
    def warehouse(self, seconds: float = ANSWER_SECONDS) -> Iterator[Warehouse]:
        """BigQuery as no run sees it: what takes longer than this ends as UnavailableError.

        A CredentialsError within has the key read again, and an emulator that is gone is started.
        """
        end = time.monotonic() + seconds

        def check() -> None:
            if time.monotonic() > end:
                message = f"BigQuery did not answer within {seconds:g} s: try again later."
                raise UnavailableError(message)

        try:
            yield Warehouse(
                clients=self._get(), settings=self._settings, run_id="no_run", check=check
            )
        except (CredentialsError, UnavailableError) as error:
            if self._is_local or isinstance(error, CredentialsError):
                self.close()
            raise

    def close(self) -> None:
        """Close them; the next caller gets new ones."""
        with self._lock:
            self._clients = None
            self._open.close()

    def _get(self) -> Clients:
        with self._lock:
            if self._clients is None:
                clients = connect(self._settings, is_local=self._is_local)
                self._clients = self._open.enter_context(clients)
            return self._clients
