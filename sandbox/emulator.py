"""Attaching to the BigQuery emulator of a directory, started where needed. Knows no tables.

The emulator is a process of its own that ends with the last one attached, whoever started it and
however they end. `files.SandboxFiles` says which lock means what.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from google.auth.credentials import AnonymousCredentials
from google.auth.transport.requests import AuthorizedSession
from google.cloud import bigquery

from sandbox.errors import SandboxError
from sandbox.files import SandboxFiles
from sandbox.locks import FileLock, is_held
from sandbox.server import FAILED

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Endpoints", "SandboxError", "attach", "bigquery_client", "is_running", "reset"]

_SECONDS_TO_START = 60.0
_SECONDS_TO_END = 15.0
_SECONDS_TO_ANSWER = 10.0
_POLL_SECONDS = 0.02
_mine = threading.local()  # what this thread is changing
# Requests to our own child process go around a proxy that the environment names.
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoints:
    """Where an emulator answers: `rest` as a URL, `grpc` (the Storage API) as 127.0.0.1:PORT."""

    rest: str
    grpc: str
    token: str = field(repr=False)
    project: str = "local"

    @property
    def headers(self) -> dict[str, str]:
        """What every request to `rest` must send."""
        return {"Authorization": f"Bearer {self.token}"}


@contextlib.contextmanager
def attach(
    directory: Path, *, rest_port: int | None = None, grpc_port: int | None = None
) -> Iterator[Endpoints]:
    """Keep the emulator of `directory` running within the `with` block, starting it where needed.

    Ports are free ones unless given. Raises SandboxError when the emulator does not come up or
    runs on other ports already. On the way out of the last block the emulator has ended.
    """
    files = _files(directory)
    with FileLock(files.attached) as attached:
        with changing(files):
            if not attached.acquire_within(_SECONDS_TO_END, shared=True):
                raise _not_ending(files)
            try:
                endpoints = _endpoints(files, rest_port or 0, grpc_port or 0)
                _check_ports(files, endpoints, rest_port, grpc_port)
            except BaseException:
                _detach(files, attached)
                raise
        try:
            yield endpoints
        finally:
            with changing(files):
                _detach(files, attached)


def bigquery_client(endpoints: Endpoints) -> bigquery.Client:
    """Return Google's own client for the emulator; the caller closes it."""
    session = AuthorizedSession(AnonymousCredentials())
    session.trust_env = False  # no proxy here either
    session.headers.update(endpoints.headers)
    return bigquery.Client(
        project=endpoints.project,
        credentials=AnonymousCredentials(),
        client_options={"api_endpoint": endpoints.rest},
        _http=session,
    )


def is_running(directory: Path) -> bool:
    """Whether an emulator of `directory` is alive just now."""
    return is_held(_files(directory).running)


def reset(directory: Path) -> None:
    """Delete what the sandbox stored in `directory`; SandboxError while somebody is attached."""
    files = _files(directory)
    with changing(files), FileLock(files.attached) as attached:
        if _others_attached(attached):
            msg = f"A command is attached to the sandbox in {files.directory}: end it first."
            raise SandboxError(msg)
        _await_end(files)
        for path in (files.endpoints, files.log, files.stored):
            if path.is_symlink() or path.is_file():  # of a link, what it leads to stays
                path.unlink()
        shutil.rmtree(files.stored, ignore_errors=True)


def _files(directory: Path) -> SandboxFiles:
    if bad := set("'?") & set(str(directory.resolve())):  # DuckDB takes them for something else
        msg = f"The emulator can't use a directory with {bad.pop()} in its path: set SANDBOX_DIR."
        raise SandboxError(msg)
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        msg = f"The directory {directory} can't be made ({error.strerror}): set SANDBOX_DIR."
        raise SandboxError(msg) from error
    if not os.access(directory, os.W_OK):
        msg = f"The directory {directory} can't be written to: set SANDBOX_DIR."
        raise SandboxError(msg)
    return SandboxFiles(directory.resolve())


@contextlib.contextmanager
def changing(files: SandboxFiles) -> Iterator[None]:
    """Nobody else begins or ends to be attached within the block.

    A thread may enter it twice: the collector may leave a block of `attach` that was abandoned at
    any moment, also while its thread enters another.
    """
    mine: set[Path] = _mine.__dict__.setdefault("changing", set())
    if files.changing in mine:
        yield
        return
    mine.add(files.changing)
    try:
        with FileLock(files.changing) as lock:
            lock.acquire()
            yield
    finally:
        mine.discard(files.changing)


def _detach(files: SandboxFiles, attached: FileLock) -> None:
    attached.release()
    if not _others_attached(attached):
        _await_end(files)


def _others_attached(attached: FileLock) -> bool:
    """Whether anybody shares the lock, which is not held here; only while `changing` is held.

    The emulator takes it exclusively when nobody shares it, and keeps it until it has ended:
    a lock that can be had neither way is the emulator's.
    """
    if attached.try_acquire():
        attached.release()
        return False
    if attached.try_acquire(shared=True):
        attached.release()
        return True
    return False


def _await_end(files: SandboxFiles) -> None:
    with FileLock(files.running) as running:
        if not running.acquire_within(_SECONDS_TO_END, shared=True):
            raise _not_ending(files)


def _not_ending(files: SandboxFiles) -> SandboxError:
    return SandboxError(
        f"The emulator of {files.directory} does not end: end the process named in {files.log}."
    )


def _endpoints(files: SandboxFiles, rest_port: int, grpc_port: int) -> Endpoints:
    """Return where the emulator answers, having started it unless it runs; `attached` is held."""
    process: subprocess.Popen[bytes] | None = None
    end = time.monotonic() + _SECONDS_TO_START
    while time.monotonic() < end:
        if is_held(files.running):
            endpoints = _announced(files)
            if endpoints is not None and _answers(endpoints):
                return endpoints
        elif process is None:
            process = _start(files, rest_port, grpc_port)
        elif process.poll() is not None:
            raise _not_started(files, process.returncode)
        time.sleep(_POLL_SECONDS)
    msg = f"The emulator of {files.directory} does not answer: see {files.log}."
    raise SandboxError(msg)


def _start(files: SandboxFiles, rest_port: int, grpc_port: int) -> subprocess.Popen[bytes]:
    files.endpoints.unlink(missing_ok=True)
    package_root = str(Path(__file__).resolve().parent.parent)
    search_path = os.pathsep.join(filter(None, [package_root, os.environ.get("PYTHONPATH")]))
    arguments = [str(files.directory), str(rest_port), str(grpc_port)]
    files.log.unlink(missing_ok=True)  # a link may lead to somebody's file
    with files.log.open("wb") as log:
        process = subprocess.Popen(  # noqa: S603
            [sys.executable, "-P", "-W", "ignore", "-m", "sandbox.server", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=os.environ | {"PYTHONPATH": search_path},
            start_new_session=True,  # Ctrl-C is for its starter: others may be attached
        )
    threading.Thread(target=process.wait, daemon=True).start()  # leaves no zombie
    return process


def _not_started(files: SandboxFiles, code: int) -> SandboxError:
    lines = files.log.read_text(encoding="utf-8", errors="replace").split("\n")
    last = next((line.strip() for line in reversed(lines) if line.strip()), f"exit code {code}")
    if code == FAILED:
        return SandboxError(last)
    if any("DATA_PATH" in line for line in lines):
        return SandboxError(
            f"The sandbox {files.directory} was moved or copied, and its tables name the place"
            " where it was: put it back, or empty it by .venv/bin/python -m sandbox reset."
        )
    return SandboxError(
        f"The emulator of {files.directory} did not come up ({last}): see {files.log}."
    )


def _announced(files: SandboxFiles) -> Endpoints | None:
    try:
        where = json.loads(files.endpoints.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return Endpoints(rest=where["rest"], grpc=where["grpc"], token=where["token"])


def _answers(endpoints: Endpoints) -> bool:
    host, port = endpoints.grpc.split(":")
    request = urllib.request.Request(  # noqa: S310
        f"{endpoints.rest}/bigquery/v2/projects/{endpoints.project}/queries",
        data=b'{"query": "SELECT 1", "useLegacySql": false}',
        headers=endpoints.headers | {"Content-Type": "application/json"},
    )
    try:
        with _opener.open(request, timeout=_SECONDS_TO_ANSWER) as response:
            response.read()
        socket.create_connection((host, int(port)), timeout=_SECONDS_TO_ANSWER).close()
    except OSError:
        return False
    return True


def _check_ports(
    files: SandboxFiles, endpoints: Endpoints, rest_port: int | None, grpc_port: int | None
) -> None:
    for wanted, address in ((rest_port, endpoints.rest), (grpc_port, endpoints.grpc)):
        if wanted is not None and not address.endswith(f":{wanted}"):
            msg = (
                f"The emulator of {files.directory} runs at {address} already: "
                f"end what is attached to it, or leave out port {wanted}."
            )
            raise SandboxError(msg)
