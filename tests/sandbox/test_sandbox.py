"""The sandbox's emulator: who starts it, who shares it, when it ends. A real one in every test."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

import pytest

from sandbox.demo_history import check_free, main
from sandbox.emulator import (
    Endpoints,
    SandboxError,
    _not_started,
    attach,
    bigquery_client,
    changing,
    is_running,
    reset,
)
from sandbox.files import SandboxFiles
from sandbox.server import FAST
from tests.paths import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(autouse=True)
def _stored(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use the emulator that stores its tables, as users do."""
    monkeypatch.delenv(FAST, raising=False)


def _answer(endpoints: Endpoints, sql: str) -> list[tuple[object, ...]]:
    client = bigquery_client(endpoints)
    try:
        return [tuple(row.values()) for row in client.query_and_wait(sql)]
    finally:
        client.close()


def _await_end(directory: Path) -> None:
    end = time.monotonic() + 10
    while is_running(directory):
        assert time.monotonic() < end, f"the emulator of {directory} did not end"
        time.sleep(0.02)


@pytest.fixture
def starter(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that started the emulator of `tmp_path` and stays attached."""
    program = (
        "import pathlib, sys, sandbox.emulator\n"
        "with sandbox.emulator.attach(pathlib.Path(sys.argv[1])) as endpoints:\n"
        "    print(endpoints.rest, flush=True)\n"
        "    sys.stdin.read()\n"
    )
    process = subprocess.Popen(  # noqa: S603 - our own program
        [sys.executable, "-c", program, str(tmp_path)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        yield process
        if process.poll() is None:
            process.kill()


def _first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_the_emulator_ends_with_the_last_one_attached_and_keeps_its_tables(tmp_path: Path) -> None:
    """A second attacher shares it; after the last one it ends, but its tables stay.

    The next emulator has another token.
    """
    with attach(tmp_path) as first:
        with attach(tmp_path) as second:
            assert second == first
            _answer(first, "CREATE TABLE local.kept AS SELECT 7 AS number")
        assert is_running(tmp_path)
        assert _answer(first, "SELECT number FROM local.kept") == [(7,)]
    assert not is_running(tmp_path)
    with attach(tmp_path) as again:
        assert again.token != first.token
        assert _answer(again, "SELECT number FROM local.kept") == [(7,)]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The directory of a running emulator, started in a folder with a foreign `json.py`."""
    folder = tmp_path_factory.mktemp("callers")
    (folder / "json.py").write_text("raise SystemExit(98)")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv(FAST, raising=False)
        patch.chdir(folder)
        running = attach(folder / "sandbox")
        running.__enter__()
    yield folder / "sandbox"
    running.__exit__(None, None, None)


@pytest.fixture
def emulator(directory: Path) -> Iterator[Endpoints]:
    """The endpoints of a running emulator; a new one if a test has killed it."""
    with attach(directory) as endpoints:
        yield endpoints


@pytest.mark.parametrize(
    "changed",
    [
        {"Authorization": ""},
        {"Authorization": "Bearer another"},
        {"Host": "attacker.example:8360"},
        {"Host": "127.0.0.1.attacker.example"},
        {"Origin": "http://attacker.example"},
    ],
    ids=str,
)
def test_the_emulator_refuses_requests_without_its_token(
    emulator: Endpoints, changed: dict[str, str]
) -> None:
    """Neither another user of the machine nor a web page can read or write through it."""
    connection = http.client.HTTPConnection(emulator.rest.removeprefix("http://"), timeout=30)
    headers = emulator.headers | {"Content-Type": "application/json"} | changed
    body = b'{"query": "SELECT 1", "useLegacySql": false}'
    connection.request("POST", "/bigquery/v2/projects/local/queries", body, headers)
    answer = connection.getresponse()
    assert answer.status == 403
    assert b"send the token of endpoints.json" in answer.read()
    connection.close()


def test_only_its_owner_may_read_the_token(directory: Path, emulator: Endpoints) -> None:
    """Its file has mode 0600, and the token is in no repr."""
    assert (directory / "endpoints.json").stat().st_mode & 0o777 == 0o600
    assert emulator.token in (directory / "endpoints.json").read_text()
    assert emulator.token not in repr(emulator)


def test_a_module_of_the_callers_folder_is_not_run(emulator: Endpoints) -> None:
    """The emulator does not import a `json.py` from the folder in which a command is given."""
    assert _answer(emulator, "SELECT 1") == [(1,)]


def test_the_emulator_outlives_its_starter_while_another_is_attached(
    tmp_path: Path, starter: subprocess.Popen[str]
) -> None:
    """The normal end of the process that started it does not end the emulator."""
    rest = _first_line(starter)
    with attach(tmp_path) as endpoints:
        assert endpoints.rest == rest
        starter.communicate()
        assert starter.returncode == 0
        assert _answer(endpoints, "SELECT 1") == [(1,)]
    assert not is_running(tmp_path)


def test_a_killed_starter_leaves_no_emulator(
    tmp_path: Path, starter: subprocess.Popen[str]
) -> None:
    """After SIGKILL of the only process attached, the emulator ends by itself."""
    _first_line(starter)
    starter.kill()
    _await_end(tmp_path)


def test_a_starter_killed_during_the_start_blocks_nobody(
    tmp_path: Path, starter: subprocess.Popen[str]
) -> None:
    """The next attacher takes over the half-started emulator, or starts its own."""
    while not is_running(tmp_path):
        time.sleep(0.01)
    starter.kill()
    with attach(tmp_path) as endpoints:
        assert _answer(endpoints, "SELECT 1") == [(1,)]


def test_symbolic_links_are_not_followed(tmp_path: Path) -> None:
    """Links in the sandbox's directory cannot have other files emptied or deleted."""
    theirs, folder = tmp_path / "theirs", tmp_path / "sandbox"
    (theirs / "folder").mkdir(parents=True)
    (theirs / "file").write_text("kept")
    folder.mkdir()
    for name, target in (("emulator.log", "file"), ("endpoints.json", "file"), ("data", "folder")):
        (folder / name).symlink_to(theirs / target)
    reset(folder)
    assert {each.suffix for each in folder.iterdir()} == {".lock"}
    (folder / "emulator.log").symlink_to(theirs / "file")
    with attach(folder) as endpoints:
        assert _answer(endpoints, "SELECT 1") == [(1,)]
    assert (theirs / "file").read_text() == "kept"
    assert (theirs / "folder").is_dir()


def test_a_killed_emulator_is_replaced(directory: Path, emulator: Endpoints) -> None:
    """Whoever attaches next gets a new emulator with the same tables."""
    _answer(emulator, "CREATE TABLE local.kept AS SELECT 7 AS number")
    log = (directory / "emulator.log").read_text()
    os.kill(int(log.split()[1]), signal.SIGKILL)
    _await_end(directory)
    with attach(directory) as again:
        assert _answer(again, "SELECT number FROM local.kept") == [(7,)]


def test_two_directories_have_separate_emulators(endpoints: Endpoints, emulator: Endpoints) -> None:
    """Each has its own ports and its own tables."""
    assert {endpoints.rest, endpoints.grpc}.isdisjoint({emulator.rest, emulator.grpc})
    _answer(emulator, "CREATE TABLE local.mine AS SELECT 1 AS number")
    with pytest.raises(Exception, match="mine"):
        _answer(endpoints, "SELECT * FROM local.mine")


@pytest.mark.parametrize("wanted", ["rest_port", "grpc_port"])
def test_a_port_in_use_is_reported_in_one_sentence(tmp_path: Path, wanted: str) -> None:
    """It names the port and the remedy, and no emulator is left running."""
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        with (
            pytest.raises(SandboxError, match=rf"^Port {port} of 127\.0\.0\.1 .*choose another"),
            attach(tmp_path, **{wanted: port}),
        ):
            pass
    assert not is_running(tmp_path)


def test_the_demo_checks_its_port_first() -> None:
    """A port in use is reported at once, with a command for another one; a free one is accepted."""
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        with pytest.raises(SandboxError, match=rf"port {port}: try make demo PORT={port + 1}"):
            main(["--port", str(port)])
    check_free(port)


def test_a_thread_can_nest_changes_while_other_threads_wait(
    tmp_path: Path,
) -> None:
    """The garbage collector may end an abandoned change within another one of its thread."""
    files, changes = SandboxFiles(tmp_path), list[str]()

    def change() -> None:
        with changing(files), changing(files):
            changes.append("changed")

    thread = threading.Thread(target=change, daemon=True)
    with changing(files):
        thread.start()
        thread.join(0.2)
        assert changes == []
    thread.join(10)
    assert changes == ["changed"]
    with changing(files):  # afterwards it is free again
        pass


def test_a_failed_start_is_reported_in_one_sentence(tmp_path: Path) -> None:
    """For unusable stored data it names the log to look at."""
    (tmp_path / "data").write_text("not a directory")
    with pytest.raises(SandboxError, match=r"did not come up \(.*\): see .*emulator\.log\.$"):
        attach(tmp_path).__enter__()
    assert not is_running(tmp_path)


def test_reset_deletes_the_data(tmp_path: Path) -> None:
    """Only locks, and files that are not the sandbox's, are left."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "local.ducklake").touch()
    (tmp_path / "mine.txt").touch()
    reset(tmp_path)
    assert {path.suffix for path in tmp_path.iterdir()} == {".lock", ".txt"}


def test_a_directory_that_the_emulator_cannot_use_is_reported(tmp_path: Path) -> None:
    """One with a path that DuckDB would misread, and a sandbox that was moved."""
    with pytest.raises(SandboxError, match="a directory with ' in its path: set SANDBOX_DIR"):
        is_running(tmp_path / "it's")
    files = SandboxFiles(tmp_path)
    files.log.write_text("Error: DATA_PATH does not match\nhint: OVERRIDE_DATA_PATH\n(^)\n")
    assert "was moved or copied" in str(_not_started(files, 1))
    files.log.write_text("something else\n")
    assert "did not come up (something else)" in str(_not_started(files, 1))
