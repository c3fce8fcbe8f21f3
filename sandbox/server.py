"""The emulator's process, started by `emulator` and not by hand.

Usage: `python -m sandbox.server DIRECTORY REST_PORT GRPC_PORT`; port 0 is any free one.
It serves until nobody is attached to its directory any more, or until it gets a SIGTERM.
"""

from __future__ import annotations

import gc
import json
import os
import secrets
import socket
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from sandbox.errors import SandboxError
from sandbox.files import SandboxFiles
from sandbox.locks import FileLock

if TYPE_CHECKING:
    import uvicorn

HOST = "127.0.0.1"
FAILED = 3
THREADS = "SANDBOX_THREADS"  # of DuckDB; as many as there are cores unless it is set
FAST = "SANDBOX_FAST"  # 1 for tests: cheap, and nothing is stored
# Settings that the emulator would take from the environment, where they mean something else.
_FOREIGN_VARIABLES = {
    "BIGQUERY_HOST", "BIGQUERY_PORT", "CALLER", "DATA_DIR", "DEFAULT_DATASET_ID",
    "DEFAULT_PROJECT_ID", "GCS_LOCAL_ROOT", "GROUPS", "GRPC_PORT", "POSTGRES_CONNECTION_ID",
    "POSTGRES_URI", "STORAGE_EMULATOR_HOST",
}  # fmt: skip
# The emulator loads these on its first request and can't download them without a network.
_EXTENSIONS = ("ducklake", "icu", "spatial", "inet")
_OBJECTS_BEFORE_COLLECTION = 50_000  # a statement's tree has thousands
_SECONDS_FOR_LOCK = 1.0
_SECONDS_TO_FINISH = 5.0


def main(arguments: list[str]) -> int:
    """Serve until the last one attached has gone, and return the exit code."""
    directory, rest_port, grpc_port = arguments
    files = SandboxFiles(Path(directory))
    running = FileLock(files.running)  # freed by the kernel: the emulator runs until it is gone
    try:
        _check_alone(files, running)
        _serve(files, int(rest_port), int(grpc_port))
    except SandboxError as error:
        print(error, file=sys.stderr)  # noqa: T201 - for the log
        return FAILED
    return 0


def _check_alone(files: SandboxFiles, running: FileLock) -> None:
    # Whoever asks whether an emulator runs holds this lock for an instant.
    if not running.acquire_within(_SECONDS_FOR_LOCK):
        msg = f"An emulator runs in {files.directory} already: attach to it."
        raise SandboxError(msg)
    print("Process", os.getpid(), flush=True)  # noqa: T201 - for the log


def _serve(files: SandboxFiles, rest_port: int, grpc_port: int) -> None:
    listener = _listen(rest_port)
    _check_free(grpc_port)
    for name in list(os.environ):
        if name.upper() in _FOREIGN_VARIABLES:
            del os.environ[name]
    _install_extensions()
    _run(files, listener, grpc_port)


def _listen(port: int) -> socket.socket:
    # asyncio switches Nagle's delay (40 ms a request) off only where the protocol is named.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
    except OSError as error:
        listener.close()
        msg = f"Port {port} of {HOST} can't be used ({error.strerror}): choose another, or none."
        raise SandboxError(msg) from error
    return listener


def _check_free(port: int) -> None:
    """Refuse a port in use: gRPC itself would share it with another gRPC server."""
    _listen(port).close()


def _install_extensions() -> None:
    """Put DuckDB's extensions where the emulator looks for them, once per machine and version."""
    import duckdb
    from duckdb_extensions import import_extension

    home = Path.home() / ".duckdb"
    try:
        home.mkdir(exist_ok=True)
        with FileLock(home / "sandbox.lock") as lock, duckdb.connect() as connection:
            lock.acquire()
            for name in _EXTENSIONS:
                import_extension(name, con=connection)
    except (OSError, duckdb.Error) as error:
        reason = str(error).splitlines()[0]
        msg = (
            f"DuckDB's extensions can't be put into {home} ({reason}): make it writable, or set"
            " HOME to a directory that is."
        )
        raise SandboxError(msg) from error


def _run(files: SandboxFiles, listener: socket.socket, grpc_port: int) -> None:
    gc.disable()  # while things are loaded that stay
    sys.modules["pandas"] = None  # type: ignore[assignment] # a quarter of a second, for nothing here
    import uvicorn
    from local_bigquery import app
    from local_bigquery.engine import database
    from local_bigquery.grpc import server as storage
    from local_bigquery.settings import settings

    from sandbox.catalog import look_up_in_lakes, make_lookups_quick
    from sandbox.fast import use_fast_emulator
    from sandbox.functions import use_kept_functions
    from sandbox.token_check import TokenCheck

    settings.data_dir = files.stored
    storage_server, grpc_port = storage.start(HOST, grpc_port)
    token = secrets.token_urlsafe(32)
    if os.environ.get(FAST) == "1":
        app = use_fast_emulator(app)
    else:
        look_up_in_lakes()
        use_kept_functions()
    config = uvicorn.Config(
        TokenCheck(app, token), log_level="warning", timeout_graceful_shutdown=1
    )
    rest_server = uvicorn.Server(config)
    database.connection()
    if threads := os.environ.get(THREADS):
        database.execute(f"SET threads = {int(threads)}")
    make_lookups_quick()
    gc.freeze()  # what is loaded by now stays, and need not be looked through again
    gc.set_threshold(_OBJECTS_BEFORE_COLLECTION)
    gc.enable()
    _announce(files, listener.getsockname()[1], grpc_port, token)
    threading.Thread(target=_end_with_the_last, args=(files, rest_server), daemon=True).start()
    rest_server.run(sockets=[listener])
    _limit_the_end()
    storage_server.stop(None).wait()


def _end_with_the_last(files: SandboxFiles, rest_server: uvicorn.Server) -> None:
    """Ask the server to end once nobody is attached; from then on the lock is never given back."""
    FileLock(files.attached).acquire()
    files.endpoints.unlink(missing_ok=True)
    rest_server.should_exit = True


def _limit_the_end() -> None:
    """Give jobs that still run a moment: nobody waits for them any more."""
    timer = threading.Timer(_SECONDS_TO_FINISH, os._exit, (0,))
    timer.daemon = True
    timer.start()


def _announce(files: SandboxFiles, rest_port: int, grpc_port: int, token: str) -> None:
    where = {
        "rest": f"http://{HOST}:{rest_port}",
        "grpc": f"{HOST}:{grpc_port}",
        "process": os.getpid(),
        "token": token,
    }
    draft = files.endpoints.with_suffix(".draft")
    draft.unlink(missing_ok=True)
    draft.touch(mode=0o600)  # before the token is in it
    draft.write_text(json.dumps(where), encoding="utf-8")
    draft.replace(files.endpoints)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
