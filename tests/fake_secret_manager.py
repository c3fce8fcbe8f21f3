"""Secret Manager's REST `:access` on loopback, with its real answers and its real failures."""

from __future__ import annotations

import base64
import json
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Final, Literal

import google_crc32c
from google.auth.credentials import AnonymousCredentials
from google.cloud.secretmanager import SecretManagerServiceClient

if TYPE_CHECKING:
    from collections.abc import Iterator

    from google.auth.credentials import Credentials

type Trouble = Literal[
    "denied", "signed_out", "disabled", "damaged", "garbled", "unavailable", "silent"
]

_REFUSALS: Final[dict[str, tuple[int, str, str]]] = {
    "denied": (403, "PERMISSION_DENIED", "Permission 'secretmanager.versions.access' denied"),
    "signed_out": (401, "UNAUTHENTICATED", "Request had invalid authentication credentials."),
    "disabled": (400, "FAILED_PRECONDITION", "Secret Version is in DISABLED state."),
    "unavailable": (503, "UNAVAILABLE", "The service is currently unavailable."),
    "missing": (404, "NOT_FOUND", "Secret or version not found."),
}


@dataclass(kw_only=True)
class FakeSecretManager:
    """The secrets, the trouble it makes (for so many requests, or for ever), and what was asked."""

    url: str
    payloads: dict[str, bytes] = field(default_factory=dict)
    trouble: Trouble | None = None
    troubles_left: int | None = None
    asked: list[str] = field(default_factory=list)

    def client(self, credentials: Credentials | None = None) -> SecretManagerServiceClient:
        """Google's own client of this server; the caller closes it."""
        return SecretManagerServiceClient(
            transport="rest",
            client_options={"api_endpoint": self.url},
            credentials=credentials or AnonymousCredentials(),
        )

    def answer(self, name: str) -> tuple[int, bytes]:
        """Status and body for one access to a secret version."""
        self.asked.append(name)
        trouble = self._next_trouble()
        if name not in self.payloads:
            return _refusal("missing")
        if trouble in _REFUSALS:
            return _refusal(trouble)
        payload = self.payloads[name]
        checksum = google_crc32c.value(payload) ^ (trouble == "damaged")
        encoded = base64.b64encode(payload).decode()
        body = {"name": name, "payload": {"data": encoded, "dataCrc32c": str(checksum)}}
        text = json.dumps(body)
        return 200, (text[:-10] if trouble == "garbled" else text).encode()

    def _next_trouble(self) -> Trouble | None:
        if self.troubles_left is None:
            return self.trouble
        self.troubles_left -= 1
        return self.trouble if self.troubles_left >= 0 else None


def _refusal(trouble: str) -> tuple[int, bytes]:
    code, status, message = _REFUSALS[trouble]
    error = {"code": code, "message": message, "status": status}
    return code, json.dumps({"error": error}).encode()


@contextmanager
def serve() -> Iterator[FakeSecretManager]:
    """Serve an empty fake on a free port until the end of the block."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        server.daemon_threads = True
        fake = _Handler.fakes[server.server_port] = FakeSecretManager(
            url=f"http://127.0.0.1:{server.server_port}"
        )
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        try:
            yield fake
        finally:
            server.shutdown()


class _Handler(BaseHTTPRequestHandler):
    fakes: Final[dict[int, FakeSecretManager]] = {}

    def do_GET(self) -> None:
        name, _, method = self.path.partition("?")[0].removeprefix("/v1/").partition(":")
        fake = self.fakes[self.server.server_address[1]]  # type: ignore[index]
        status, body = fake.answer(name) if method == "access" else _refusal("missing")
        if fake.trouble == "silent":
            self.rfile.read(1)  # until the client has had enough
            self.close_connection = True
            return
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Stay silent."""
