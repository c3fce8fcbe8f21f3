"""Bad networks, on loopback: proxies between the real clients and the emulator, to order faults of.

`HttpProxy` understands HTTP and stands before the REST endpoint; of what the requests are about it
knows jobs, so that it can fail them. `GrpcProxy` knows the two methods of the Storage Read API that
are used; `TcpProxy` understands nothing. Both stand before the gRPC port.
"""

from __future__ import annotations

import http.client
import json
import re
import socket
import struct
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Literal, Self
from urllib.parse import urlsplit

import grpc

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

type Kind = Literal[
    "503", "429", "504", "408", "dropped", "answer lost", "answer cut", "hang", "job failed"
]

# Refusals as BigQuery words them; the reason is what its client looks at, where there is one.
_REASONS = {503: "serviceUnavailable", 429: "rateLimitExceeded"}
_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length"}


@dataclass(kw_only=True)
class Fault:
    """What goes wrong with the `first`-th request that matches and the `times` - 1 after it.

    `503`, `429` …: refused without being passed on. `dropped`: the connection ends instead of that.
    `answer lost`: it takes effect, and the connection ends instead of the answer; `answer cut`: in
    the middle of it. `hang`: nothing happens for `seconds`, then all is well. `job failed`: the job
    is taken on, and whoever asks about it hears that it failed, for this `reason`. As in BigQuery
    it has no effect then; with `has_effect` it has, as a script may whose commit went through.
    """

    kind: Kind
    method: str
    path: str  # a pattern, found anywhere in the path
    body: str = ""  # likewise
    first: int = 1
    times: int = 1
    seconds: float = 1.0
    reason: str = "rateLimitExceeded"
    has_effect: bool = False
    matched: int = 0
    hits: list[str] = field(default_factory=list)  # method and path of each request it befell

    def befalls(self, method: str, path: str, body: str) -> bool:
        """Whether it is this request's turn; only to be asked once for each."""
        if method != self.method or not re.search(self.path, path):
            return False
        if not re.search(self.body, body):
            return False
        self.matched += 1
        if not self.first <= self.matched < self.first + self.times:
            return False
        self.hits.append(f"{method} {path}")
        return True


@dataclass(frozen=True, kw_only=True)
class Edit:
    """What another server would have answered: what the emulator can't, like a dry run's bytes."""

    method: str
    path: str  # a pattern, found anywhere in the path
    change: Callable[[dict[str, Any]], dict[str, Any]]
    body: str = ""  # a pattern of the request
    status: int | None = None

    def concerns(self, method: str, path: str, body: str) -> bool:
        """Whether it is about this request."""
        fits = method == self.method and re.search(self.path, path) and re.search(self.body, body)
        return bool(fits)


class HttpProxy:
    """Passes requests on to an HTTP server, but for the faults and edits that were ordered."""

    def __init__(self, server: str) -> None:
        self.server = urlsplit(server)
        self.released = threading.Event()  # ends whatever hangs
        self._faults: list[Fault] = []
        self.edits: list[Edit] = []
        self.heard: list[str] = []  # the method, path and body of each request while it edits
        self.failed: dict[str, dict[str, Any]] = {}  # the jobs that failed by order, by id
        self.injected = 0
        self._lock = threading.Lock()
        handler = type("Handler", (_Handler,), {"proxy": self})
        self._httpd = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._thread = threading.Thread(target=self._httpd.serve_forever, args=(0.05,))

    @property
    def address(self) -> str:
        """Where it answers, as a URL."""
        return f"http://127.0.0.1:{self._httpd.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.released.set()
        self._httpd.shutdown()
        self._thread.join()
        self._httpd.server_close()

    @contextmanager
    def faulty(self, *faults: Fault) -> Iterator[None]:
        """Let these happen within the block."""
        with self._lock:
            self._faults = list(faults)
        try:
            yield
        finally:
            with self._lock:
                self._faults = []

    def fault_of(self, method: str, path: str, body: str) -> Fault | None:
        """What is to go wrong with a request: the first fault whose turn it is."""
        with self._lock:
            found = next((each for each in self._faults if each.befalls(method, path, body)), None)
            self.injected += found is not None
            return found


class _Handler(BaseHTTPRequestHandler):
    """One connection of a client; each of its requests goes on over a connection of its own."""

    proxy: HttpProxy
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # headers and body leave together

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fault = self.proxy.fault_of(self.command, self.path, body.decode(errors="replace"))
        kind = fault.kind if fault else None
        if fault and kind == "hang":
            self.proxy.released.wait(fault.seconds)
        if self._is_about_failed(body):
            return
        if fault and kind == "job failed":
            self._fail_job(body, fault)
        elif kind and kind.isdigit():
            self._refuse(int(kind), _REASONS.get(int(kind)))
        elif kind == "dropped":
            self._drop()
        else:
            status, headers, answer = self._edited(body, *self._pass_on(body))
            if kind == "answer lost":
                self._drop()
                return
            is_cut = kind == "answer cut"
            sent = answer[: len(answer) // 2] if is_cut else answer
            with suppress(ConnectionError):  # the client may have given up
                self._answer(status, headers, sent, length=len(answer))
            if is_cut:
                self._drop()

    def _edited(
        self, body: bytes, status: int, headers: list[tuple[str, str]], answer: bytes
    ) -> tuple[int, list[tuple[str, str]], bytes]:
        """The answer as the edits that concern the request have it."""
        asked = self.command, self.path, body.decode(errors="replace")
        if self.proxy.edits:
            self.proxy.heard.append(" ".join(asked))
        for edit in self.proxy.edits:
            if edit.concerns(*asked):
                answer = json.dumps(edit.change(json.loads(answer))).encode()
                status = edit.status or status
        return status, headers, answer

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _serve  # noqa: N815 - as http.server calls

    def _pass_on(
        self, body: bytes, *, method: str = "", path: str = ""
    ) -> tuple[int, list[tuple[str, str]], bytes]:
        server = self.proxy.server
        onward = http.client.HTTPConnection(str(server.hostname), server.port, timeout=120)
        with closing(onward):
            headers = {k: v for k, v in self.headers.items() if k.lower() not in _HOP_BY_HOP}
            onward.request(method or self.command, path or self.path, body=body, headers=headers)
            answer = onward.getresponse()
            kept = [(k, v) for k, v in answer.getheaders() if k.lower() not in _HOP_BY_HOP]
            return answer.status, kept, answer.read()

    def _answer(
        self, status: int, headers: list[tuple[str, str]], body: bytes, *, length: int
    ) -> None:
        self.send_response_only(status)
        for name, value in headers:
            self.send_header(name, value)
        if status >= http.client.OK and status != http.client.NO_CONTENT:
            self.send_header("Content-Length", str(length))
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    def _fail_job(self, body: bytes, fault: Fault) -> None:
        """Say that the job runs; when asked again it will have failed."""
        job = _job_of(body)
        if fault.has_effect:
            self._pass_on(body)
            found = self.path.partition("?")[0].replace("/jobs", "/queries")
            done = f"{found}/{job['jobReference']['jobId']}?timeoutMs=60000"
            self._pass_on(b"", method="GET", path=done)  # answered when it is done
        error = {"reason": fault.reason, "message": "by order"}
        status = {"state": "DONE", "errorResult": error, "errors": [error]}
        self.proxy.failed[job["jobReference"]["jobId"]] = {**job, "status": status}
        self._answer_json({**job, "status": {"state": "RUNNING"}})

    def _is_about_failed(self, body: bytes) -> bool:
        """Answer what is asked about a job that failed by order; whether it was."""
        found = re.search(r"/(jobs|queries)/([^/?]+)", self.path)
        if found and found[2] in self.proxy.failed:
            job = self.proxy.failed[found[2]]
            if found[1] == "jobs":
                self._answer_json(job)
            else:
                self._refuse(HTTPStatus.BAD_REQUEST, job["status"]["errorResult"]["reason"])
            return True
        is_submission = self.command == "POST" and re.search(r"/jobs(\?|$)", self.path)
        if is_submission and _job_of(body)["jobReference"]["jobId"] in self.proxy.failed:
            self._refuse(HTTPStatus.CONFLICT, "duplicate")
            return True
        return False

    def _answer_json(self, answer: object, status: int = HTTPStatus.OK) -> None:
        body = json.dumps(answer).encode()
        self._answer(status, [("Content-Type", "application/json")], body, length=len(body))

    def _refuse(self, status: int, reason: str | None) -> None:
        errors = [{"reason": reason, "message": "by order"}] if reason else []
        error = {"code": status, "message": "by order", "errors": errors}
        self._answer_json({"error": error}, status)

    def _drop(self) -> None:
        self.close_connection = True
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name there
        """Nothing: the tests say what they saw."""


def _job_of(body: bytes) -> dict[str, Any]:
    """The job that a submission describes: all of it, or the first part of an upload."""
    text = body.decode(errors="replace")
    job: dict[str, Any] = json.JSONDecoder().raw_decode(text[text.index("{") :])[0]
    return job


class GrpcProxy(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpc is untyped
    """Passes calls of the Storage Read API on, and ends those that `failures` names.

    `failures`: for a method, the status of the next call and how many messages go before it.
    """

    def __init__(self, server: str) -> None:
        options = [("grpc.max_receive_message_length", -1), ("grpc.enable_http_proxy", 0)]
        self._channel = grpc.insecure_channel(server, options=options)
        self._server = grpc.server(ThreadPoolExecutor(8), handlers=(self,), options=options)
        port = self._server.add_insecure_port("127.0.0.1:0")
        self.address = f"127.0.0.1:{port}"
        self.failures: dict[str, tuple[grpc.StatusCode, int]] = {}
        self.failed = 0

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop(None).wait()
        self._channel.close()

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        """Both methods as bytes: one answer, or a stream of them."""
        method = handler_call_details.method
        name = method.rpartition("/")[2]

        def one(request: bytes, context: grpc.ServicerContext) -> bytes:
            status, _ = self.failures.pop(name, (None, 0))
            if status:
                self.failed += 1
                context.abort(status, "by order")
            answer: bytes = self._channel.unary_unary(method)(request)
            return answer

        def many(request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
            status, messages = self.failures.pop(name, (None, 0))
            for number, message in enumerate(self._channel.unary_stream(method)(request)):
                if status and number == messages:
                    break
                yield message
            if status:
                self.failed += 1
                context.abort(status, "by order")

        if name == "ReadRows":
            return grpc.unary_stream_rpc_method_handler(many)
        return grpc.unary_unary_rpc_method_handler(one)


class TcpProxy:
    """Passes bytes on, and breaks connections where the server has sent so many of them.

    `break_after`: bytes of the server, counted over all connections, after which the connection
    that brings the next ones is reset; never where None. Then it counts on from the start, `times`
    times in all.
    """

    def __init__(self, server: str) -> None:
        host, port = server.split(":")
        self._server = (host, int(port))
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._accept)
        self.received = 0
        self.broken = 0
        self.broken_ever = 0
        self.break_after: int | None = None
        self.times = 1
        self.is_silent = threading.Event()  # while set, what the server says does not arrive

    @property
    def address(self) -> str:
        """Where it answers, as HOST:PORT."""
        return f"127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.is_silent.clear()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes accept()
        self._listener.close()
        self._thread.join()
        with self._lock:
            for each in self._open:
                _reset(each)

    def _accept(self) -> None:
        with suppress(OSError):  # the listener was closed
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._server)
                with self._lock:
                    self._open |= {client, server}
                for source, target, is_answer in ((client, server, False), (server, client, True)):
                    threading.Thread(
                        target=self._pump, args=(source, target, is_answer), daemon=True
                    ).start()

    def _pump(self, source: socket.socket, target: socket.socket, is_answer: bool) -> None:  # noqa: FBT001 - a thread's arguments
        with suppress(OSError):
            while chunk := source.recv(65_536):
                if is_answer:
                    chunk, is_broken = self._counted(chunk)
                    if not self.is_silent.is_set():
                        target.sendall(chunk)
                    if is_broken:
                        break
                else:
                    target.sendall(chunk)
        with self._lock:
            for each in (source, target):
                _reset(each)
                self._open.discard(each)

    def _counted(self, chunk: bytes) -> tuple[bytes, bool]:
        """What of the chunk may still arrive, and whether the connection breaks after it."""
        with self._lock:
            room = None if self.break_after is None else self.break_after - self.received
            self.received += len(chunk)
            if room is None or len(chunk) <= room or self.broken >= self.times:
                return chunk, False
            self.broken += 1
            self.broken_ever += 1
            self.received = 0
            return chunk[: max(room, 0)], True


def _reset(connection: socket.socket) -> None:
    """Close the connection as a crash would: with a reset, whatever is still on its way."""
    with suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()
