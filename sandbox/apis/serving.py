"""A fake API over HTTP: it keeps the requests, and fails as the test asks. It knows no API."""

from __future__ import annotations

import json
import re
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Final, Literal
from urllib.parse import parse_qsl, urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

type Trouble = Literal["status", "truncated", "cut", "dropped", "hang", "slow", "page", "changed"]

_HOST: Final = "127.0.0.1"


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiRequest:
    """A request as it arrived."""

    path: str
    query: tuple[tuple[str, str], ...]
    headers: Mapping[str, str]
    at: float = field(default_factory=time.monotonic)

    def value(self, name: str) -> str | None:
        """The first of a parameter's values."""
        return next((value for found, value in self.query if found == name), None)

    def values(self, name: str) -> list[str]:
        """All of a parameter's values."""
        return [value for found, value in self.query if found == name]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """An answer: a body that JSON can say, and headers besides the usual ones."""

    status: int = 200
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(kw_only=True)
class Fault:
    """What goes wrong with requests of a path, after the first `skip`, so many `times`.

    status: an error of that status, in the API's words. truncated: half of the JSON, as if it were
    all. cut: half of it, then the connection ends. dropped: the connection ends without an answer.
    hang: no answer. slow: an answer after `seconds`. page: HTML. changed: the answer as `change`
    makes it.
    """

    trouble: Trouble = "status"
    path: str = ".*"
    status: int = 503
    retry_after: str | None = None
    location: str | None = None  # of a redirect
    seconds: float = 0.0
    change: Callable[[Any], Any] = lambda body: body
    skip: int = 0
    times: int | None = 1  # None: for ever


class FakeApi:
    """What every fake has; one says what it answers by `reply`, and how it words an error."""

    key: str | None = None
    key_header = "x-api-key"
    key_prefix = ""

    def __init__(self) -> None:
        self.url = ""
        self.requests: list[ApiRequest] = []
        self.latency_seconds = 0.0
        self._faults: list[Fault] = []
        self._lock = threading.Lock()

    def reply(self, request: ApiRequest) -> Reply:
        """The answer to a request whose key is right."""
        raise NotImplementedError

    def error(self, status: int, message: str) -> Reply:
        """An error in the API's own words."""
        raise NotImplementedError

    def break_down(self, fault: Fault) -> None:
        """From now on, fail so."""
        self._faults.append(fault)

    def recover(self) -> None:
        """Fail no more."""
        self._faults.clear()

    def answer(self, request: ApiRequest) -> tuple[Reply, Fault | None]:
        """The answer to a request, and what shall be wrong with it."""
        with self._lock:
            self.requests.append(request)
            fault = self._next_fault(request)
        if fault and fault.trouble == "status":
            reply = self.error(fault.status, "Something went wrong.")
            wanted = {"Retry-After": fault.retry_after, "Location": fault.location}
            headers = {name: value for name, value in wanted.items() if value is not None}
            return Reply(status=reply.status, body=reply.body, headers=headers), None
        given = request.headers.get(self.key_header.lower())
        if self.key is not None and given != f"{self.key_prefix}{self.key}":
            return self.error(401, "invalid key"), fault
        return self.reply(request), fault

    def _next_fault(self, request: ApiRequest) -> Fault | None:
        for fault in self._faults:
            if re.fullmatch(fault.path, request.path) and fault.times != 0:
                if fault.skip > 0:
                    fault.skip -= 1
                    continue
                if fault.times is not None:
                    fault.times -= 1
                return fault
        return None


@contextmanager
def serve[Fake: FakeApi](fake: Fake, port: int = 0) -> Iterator[Fake]:
    """Serve a fake, on a free port unless one is given, until the end of the block."""
    with _Server((_HOST, port), _Handler) as server:
        server.fake = fake
        fake.url = f"http://{_HOST}:{server.server_port}"
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        try:
            yield fake
        finally:
            server.is_over.set()
            server.shutdown()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128
    fake: FakeApi

    def __init__(self, *arguments: Any) -> None:  # noqa: ANN401 - passed on
        super().__init__(*arguments)
        self.is_over = threading.Event()

    def handle_error(self, *_: object) -> None:
        """Stay silent: a client that left is no error."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        request = ApiRequest(
            path=url.path,
            query=tuple(parse_qsl(url.query, keep_blank_values=True)),
            headers={name.lower(): value for name, value in self.headers.items()},
        )
        reply, fault = self.server.fake.answer(request)
        self._wait(self.server.fake.latency_seconds)
        if fault is None:
            self._send(reply)
        else:
            self._fail(reply, fault)

    def _wait(self, seconds: float) -> None:
        if seconds:
            self.server.is_over.wait(seconds)

    def _fail(self, reply: Reply, fault: Fault) -> None:
        match fault.trouble:
            case "hang":
                self.server.is_over.wait()
                self.close_connection = True
            case "dropped":
                self.close_connection = True
            case "cut" | "truncated":
                self._send(reply, part=fault.trouble)
            case "page":
                self._write(b"<html>Sign in</html>", "text/html", Reply())
            case "changed":
                changed = fault.change(json.loads(json.dumps(reply.body)))
                self._send(Reply(status=reply.status, body=changed, headers=reply.headers))
            case _:
                self._wait(fault.seconds)
                self._send(reply)

    def _send(self, reply: Reply, part: Literal["cut", "truncated"] | None = None) -> None:
        body = json.dumps(reply.body).encode()
        half = body[: len(body) // 2] if part else body
        length = len(body) if part == "cut" else None
        self.close_connection = self.close_connection or part == "cut"
        self._write(half, "application/json; charset=utf-8", reply, length)

    def _write(self, body: bytes, kind: str, reply: Reply, length: int | None = None) -> None:
        self.send_response(reply.status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        for name, value in reply.headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Stay silent."""
