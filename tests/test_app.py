"""The service over real HTTP: JSON in, JSON out, and no traceback ever in an answer."""

from __future__ import annotations

import http.client
import json
import logging
import os
import re
import runpy
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from app import LOG, MAX_BODY_BYTES, create_app, end_runs
from runs import VERSION
from runs.errors import AuditError, EtlError, LeaseHeldError, RunTimeoutError
from runs.progress import IN_PROGRESS, RunInProgress
from runs.supervision import STOP
from tests.paths import PACKAGES, ROOT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# A key file that isn't there: a run that gets this far ends with a CredentialsError.
ENVIRON = {"GOOGLE_CLOUD_PROJECT_ID": "my-project", "BIGQUERY_CREDENTIALS_PATH": "/no/key.json"}
SAFE = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
NO_KEY = "The key file of BIGQUERY_CREDENTIALS_PATH can't be read (No such file or directory)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the service answered."""

    status: int
    headers: http.client.HTTPMessage
    body: Any

    @property
    def message(self) -> str:
        """The sentence of an error."""
        assert set(self.body) == {"error"}
        return str(self.body["error"]["message"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """A service of its own process."""

    port: int
    log: Path
    end: Callable[[int], None]  # by a signal

    def request(
        self,
        method: str,
        path: str,
        body: bytes | Iterator[bytes] | None = None,
        headers: dict[str, str] | None = None,
    ) -> Answer:
        """Send one request; whatever comes back must be JSON."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        connection.request(method, path, body=body, headers=headers or {})
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        assert answer.headers["Content-Type"] == "application/json"
        return Answer(status=answer.status, headers=answer.headers, body=json.loads(content))

    def logged(self) -> list[dict[str, Any]]:
        """The log lines so far."""
        return [json.loads(line) for line in self.log.read_text().splitlines()]


@contextmanager
def serving(
    log: Path,
    *,
    app: str = "app:app",
    folder: str = str(ROOT),
    wrapper: str = "",
    **environ: str,
) -> Iterator[Service]:
    """Serve with these settings and no others, by the gunicorn configuration of the image."""
    surroundings = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    command = [*wrapper.split(), sys.executable, "-m", "gunicorn", "--bind", "127.0.0.1:0", app]
    with (
        log.open("w") as out,
        subprocess.Popen(  # noqa: S603 - our own command
            command, cwd=folder, env=surroundings | environ, stdout=out, stderr=subprocess.PIPE
        ) as process,
    ):
        try:
            assert process.stderr is not None
            started = (re.search(rb"Listening at: http://[^:]+:(\d+)", x) for x in process.stderr)
            port = next(int(found[1]) for found in started if found)
            yield Service(port=port, log=log, end=process.send_signal)
        finally:
            process.terminate()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service with settings that are right and a key file that is missing."""
    with serving(tmp_path_factory.mktemp("service") / "log", **ENVIRON) as running:
        yield running


def test_health(service: Service) -> None:
    """The service says at once that it is there, and which version it is."""
    answer = service.request("GET", "/health")
    assert (answer.status, answer.body) == (200, {"status": "ok", "version": VERSION})


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b"{", "The body is not JSON (line 1, column 2): send an object like {}"),
        (b"[]", "The body must be a JSON object: send an object like {}"),
        (b'{"limit": 0}', "limit must be a whole number of sessions, at least 1;"),
        (b'{"limit": "10"}', "limit must be a whole number, or left out."),
        (b'{"end_date": "2026-01-01"}', "end_date needs a start_date: add one,"),
        (b'{"start_date": "tomorrow"}', "start_date must be a day, like 2026-01-31,"),
        (b'{"fullload": true}', "There is no field 'fullload': use full_load, limit,"),
        (b'{"limit": 1, "limit": 2}', "'limit' stands twice in one object: leave one out."),
        (b" " * (MAX_BODY_BYTES - 1) + b"[", "The body is not JSON"),
    ],
    ids=lambda value: value[:20],
)
def test_bad_requests(service: Service, body: bytes, sentence: str) -> None:
    """A request that can't be meant is a 400 whose sentence names the field."""
    answer = service.request("POST", "/run", body)
    assert answer.status == 400
    assert answer.body["error"].keys() == {"type", "message"}
    assert answer.body["error"]["type"] == "RequestError"
    assert answer.message.startswith(sentence)


@pytest.mark.parametrize(
    "content_type",
    ["application/json", "application/octet-stream", "application/x-www-form-urlencoded", None],
)
def test_the_content_type_means_nothing(service: Service, content_type: str | None) -> None:
    """A body is JSON whatever it says it is, as Cloud Scheduler says something else."""
    headers = {"Content-Type": content_type} if content_type else {}
    answer = service.request("POST", "/run", b'{"limit": 0}', headers)
    assert answer.message.startswith("limit must be")


@pytest.mark.parametrize("body", [None, b"", b"{}"], ids=["none", "empty", "object"])
def test_an_empty_body_is_a_run(service: Service, body: bytes | None) -> None:
    """Without a body a run starts; this one can't read its key, and says so."""
    answer = service.request("POST", "/run", body)
    assert answer.status == 500
    assert answer.body["error"]["type"] == "CredentialsError"
    assert answer.message.startswith(NO_KEY)


def test_a_run_is_reported_what_cloud_scheduler_delivers(service: Service) -> None:
    """The trigger of a run is the scheduled job and its time; half of that is none."""
    name = {"X-CloudScheduler-JobName": "nightly"}
    both = name | {"X-CloudScheduler-ScheduleTime": "2026-01-01T03:00:00Z"}
    for headers in (both, name):
        service.request("POST", "/run", headers=headers)
    requested = [line for line in service.logged() if line["message"] == "run requested"]
    assert [line["trigger"] for line in requested[-2:]] == ["nightly 2026-01-01T03:00:00Z", None]


def test_a_run_with_a_limit_is_reported_of_no_delivery(service: Service) -> None:
    """Whoever names a delivery and asks for less does not make the real one a duplicate."""
    headers = {
        "X-CloudScheduler-JobName": "nightly",
        "X-CloudScheduler-ScheduleTime": "2026-01-01T03:00:00Z",
    }
    service.request("POST", "/run", b'{"limit": 1}', headers)
    requested = [line for line in service.logged() if line["message"] == "run requested"]
    assert requested[-1]["trigger"] is None


def sent_raw(service: Service, text: bytes) -> bytes:
    """What comes back where a client sends this, and nothing more."""
    with socket.create_connection(("127.0.0.1", service.port), timeout=60) as connection:
        connection.sendall(text)
        connection.shutdown(socket.SHUT_WR)
        return connection.makefile("rb").read()


@pytest.mark.parametrize(
    "rest",
    [
        b"Content-Length: 31\r\n\r\n",
        b'Content-Length: 31\r\n\r\n{"limit": 1}',
        b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n",
    ],
    ids=["nothing", "a part", "a size that is none", "no last chunk"],
)
def test_a_body_that_does_not_arrive_whole_starts_no_run(service: Service, rest: bytes) -> None:
    """A client that dies while it sends gets a 400: what it asked for is not known."""
    before = len(service.logged())
    answer = sent_raw(service, b"POST /run HTTP/1.1\r\nHost: a\r\n" + rest)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"The body arrived incomplete: send it again." in answer
    assert "run requested" not in [line["message"] for line in service.logged()[before:]]


def test_silent_clients_do_not_stop_the_service(service: Service) -> None:
    """Eight that begin a request and fall silent hold the eight threads for seconds, not for ever.

    Neither do those that announce a body that never comes.
    """
    begun = [b"GET /hea", b"POST /run HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n"]
    with ExitStack() as stack:
        for number in range(8):
            silent = socket.create_connection(("127.0.0.1", service.port), timeout=60)
            stack.enter_context(silent).sendall(begun[number % 2])
        assert service.request("GET", "/health").status == 200


FOREIGN = [
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
    {"Origin": "http://127.0.0.1:1"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
]


@pytest.mark.parametrize("headers", FOREIGN, ids=str)
@pytest.mark.parametrize("auth", ["platform", "api_key"])
def test_a_page_of_another_origin_starts_no_run(headers: dict[str, str], auth: str) -> None:
    """Whoever checks callers: a browser that sends what another site's page wants is refused."""
    key = "0123456789abcdef"
    environ = ENVIRON | ({"AUTH": "api_key", "ETL_API_KEY": key} if auth == "api_key" else {})
    client = create_app(environ).test_client()
    answer = client.post("/run", data=b"{}", headers={"X-API-Key": key} | headers)
    assert answer.status_code == 403
    assert answer.get_json()["error"] == {
        "type": "ForbiddenError",
        "message": "A page of another origin may not do this: use curl, or a page of the service.",
    }
    assert client.get("/health", headers=headers).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [{}, {"Origin": "https://etl.example", "Sec-Fetch-Site": "same-origin"}],
    ids=["no browser", "its own page"],
)
def test_a_page_of_the_service_may_start_a_run(headers: dict[str, str]) -> None:
    """Cloud Scheduler and curl say nothing of origins; a proxy in front may end TLS."""
    answer = (
        create_app(ENVIRON)
        .test_client()
        .post("/run", data=b'{"limit": 0}', headers={"Host": "etl.example"} | headers)
    )
    assert answer.status_code == 400


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:8080", 200),
        ("127.0.0.1", 200),
        ("[::1]:8080", 200),
        ("attacker.example:8080", 403),
        ("127.0.0.1.attacker.example", 403),
        ("0.0.0.0:8080", 403),
    ],
)
@pytest.mark.parametrize("kind", ["is_local", "only_loopback"])
def test_a_local_service_answers_to_its_own_names_alone(host: str, status: int, kind: str) -> None:
    """A name of somebody else's that points to this machine reads nothing and starts nothing."""
    client = create_app(ENVIRON, **{kind: True}).test_client()  # type: ignore[arg-type]
    for path in ("/config", "/health"):
        assert client.get(path, headers={"Host": host}).status_code == status
    elsewhere = create_app(ENVIRON).test_client().get("/config", headers={"Host": host})
    assert elsewhere.status_code == 200


def test_failures_are_logged(service: Service) -> None:
    """Whoever reads the log sees why a request failed, without a traceback."""
    service.request("POST", "/run")
    line = service.logged()[-1]
    assert line["severity"] == "ERROR"
    assert line["message"].startswith(f"POST /run: {NO_KEY}")
    assert "exception" not in line


def test_a_large_body(service: Service) -> None:
    """A body over 64 KiB is refused, with the limit."""
    answer = service.request("POST", "/run", b" " * (MAX_BODY_BYTES + 1))
    assert answer.status == 413
    assert answer.message == "The body is too large: send at most 65536 bytes."


def test_a_large_body_of_unknown_length(service: Service) -> None:
    """A body that doesn't say its length isn't read beyond the limit either."""
    answer = service.request("POST", "/run", iter([b" " * MAX_BODY_BYTES, b" "]))
    assert answer.status == 413


@pytest.mark.parametrize("path", ["/run/", "/healthz", "/static/app.js"])
def test_unknown_addresses(service: Service, path: str) -> None:
    """An address that isn't there is a 404 that names those that are."""
    answer = service.request("GET", path)
    assert answer.status == 404
    assert answer.message.startswith(f"There is no GET {path}: use GET /health or GET /ready or ")
    assert answer.message.endswith(" or POST /run.")


@pytest.mark.parametrize(("method", "path", "allowed"), [("GET", "/run", "POST")])
def test_other_methods(service: Service, method: str, path: str, allowed: str) -> None:
    """A method that an address doesn't take is a 405 that names those it takes."""
    answer = service.request(method, path)
    assert answer.status == 405
    assert allowed in answer.headers["Allow"]
    assert answer.message.startswith(f"There is no {method} {path}: use GET /health or ")


def test_wrong_settings(tmp_path: Path) -> None:
    """A misconfigured service starts, says so in its log, and answers what is wrong with it."""
    with serving(tmp_path / "log", CHURN_DAYS="0") as service:
        assert service.request("GET", "/health").status == 200
        answer = service.request("POST", "/run")
        started = service.logged()[0]
    assert answer.status == 500
    assert answer.body["error"]["type"] == "SettingsError"
    assert answer.message.startswith("GOOGLE_CLOUD_PROJECT_ID must be set to ")
    assert "CHURN_DAYS must be set to a whole number" in answer.message
    assert started["severity"] == "ERROR"
    assert started["message"] == f"POST /run will be refused: {answer.message}"


@pytest.mark.parametrize("path", ["/ready", "/status", "/runs", "/jobs", "/config", "/nowhere"])
def test_wrong_settings_are_reported_to_nobody_unknown(path: str) -> None:
    """Where the service should check callers and can't, they learn nothing, and nothing is open."""
    answer = create_app({"AUTH": "api_key"}).test_client().get(path)
    assert answer.status_code == 500
    assert answer.get_json()["error"] == {
        "type": "SettingsError",
        "message": "The settings of the service are wrong: its log says which.",
    }


def test_a_query_parameter_says_nothing_to_a_run(service: Service) -> None:
    """POST /run?limit=5 is refused, since it would run without the limit."""
    answer = service.request("POST", "/run?limit=5")
    assert (answer.status, answer.body["error"]["type"]) == (400, "RequestError")
    assert "say in the body what to run" in answer.message


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/health"), ("GET", "/nowhere"), ("POST", "/run"), ("GET", "/run")]
)
def test_every_answer_is_safe_in_a_browser(service: Service, method: str, path: str) -> None:
    """Whatever the status: not kept, not sniffed, not framed, and no script of it is run."""
    headers = service.request(method, path).headers
    assert {name: headers[name] for name in SAFE} == SAFE


@pytest.mark.parametrize("error", [LeaseHeldError, AuditError, RunTimeoutError])
def test_every_failure_has_its_status(error: type[EtlError]) -> None:
    """The answer to a failed run has the status of its error, with its type and its sentence."""

    def fail() -> None:
        raise error("Something is wrong: mend it.")  # noqa: EM101, TRY003 - a test's own text

    service = create_app(ENVIRON)
    service.get("/fail")(fail)  # type: ignore[type-var]
    answer = service.test_client().get("/fail")
    assert answer.status_code == error.http_status
    expected = {"type": error.__name__, "message": "Something is wrong: mend it."}
    assert answer.get_json() == {"error": expected}


def test_a_bug(caplog: pytest.LogCaptureFixture) -> None:
    """A bug's answer holds an id and nothing of the bug; the log holds its traceback by that id."""

    def fail() -> None:
        raise KeyError("phone number")  # noqa: EM101, TRY003 - a test's own text

    service = create_app(ENVIRON)
    service.get("/fail")(fail)  # type: ignore[type-var]
    LOG.addHandler(caplog.handler)
    try:
        answer = service.test_client().get("/fail")
    finally:
        LOG.removeHandler(caplog.handler)
    assert answer.status_code == 500
    error = answer.get_json()["error"]
    assert error.keys() == {"type", "message", "id"}
    assert error["type"] == "InternalError"
    assert "phone number" not in answer.text
    record = next(each for each in caplog.records if error["id"] in each.getMessage())
    assert record.levelno == logging.ERROR
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], KeyError)


def test_nothing_heavy_is_imported_to_start() -> None:
    """The service answers /health before pandas, pyarrow or any Google client is imported."""
    script = """
import sys, app
assert app.app.test_client().get("/health").status_code == 200
print(*sorted(sys.modules.keys() & {"pandas", "numpy", "pyarrow", "google", "rich", "main"}))
"""
    ran = subprocess.run(  # noqa: S603 - our own command
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert ran.stdout.splitlines()[-1] == ""


def test_importing_the_module_makes_nothing() -> None:
    """The service is made when it is asked for, and asking for anything else is an error."""
    script = "import app; assert 'app' not in vars(app); app.app; assert 'app' in vars(app)"
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, check=True)  # noqa: S603
    with pytest.raises(AttributeError, match="no attribute 'application'"):
        __import__("app").application  # noqa: B018 - the attribute is what is tested


# Root may write anywhere; nobody may not, and keeps only the right to read where Python lies.
NOBODY = (
    "setpriv --reuid=65534 --regid=65534 --clear-groups"
    " --inh-caps=+dac_read_search --ambient-caps=+dac_read_search"
)


def test_nothing_is_written_beside_the_program() -> None:
    """The service works for a user who is not root, on files that nobody may change."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name, "app")
        folder.mkdir()
        for path in [*ROOT.glob("*.py"), *(ROOT / name for name in PACKAGES)]:
            copy = shutil.copytree if path.is_dir() else shutil.copy
            copy(path, folder / path.name)
        paths = [folder, *folder.rglob("*")]
        for path in paths:
            path.chmod(0o555)
        Path(name).chmod(0o755)
        wrapper = NOBODY if os.geteuid() == 0 else ""
        with serving(Path(name, "log"), folder=str(folder), wrapper=wrapper, **ENVIRON) as service:
            assert service.request("GET", "/health").status == 200
            assert service.request("POST", "/run").message.startswith(NO_KEY)
        assert sorted([folder, *folder.rglob("*")]) == sorted(paths)
        for path in paths:
            path.chmod(0o755)


@pytest.mark.parametrize("options", [(), ("--local",)], ids=["real", "local"])
def test_the_service_starts_by_itself(tmp_path: Path, options: tuple[str, ...]) -> None:
    """`python app.py` serves on PORT, for a quick try."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environ = {**ENVIRON, "PORT": str(port), "SANDBOX_DIR": str(tmp_path)}
    command = [sys.executable, "app.py", *options]
    with subprocess.Popen(  # noqa: S603 - our own command
        command, cwd=ROOT, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        try:
            assert process.stderr is not None
            assert next(line for line in process.stderr if b"Running on" in line)
            quick = Service(port=port, log=tmp_path, end=process.send_signal)
            assert quick.request("GET", "/health").body["status"] == "ok"
            shown = quick.request("GET", "/config").body["settings"]
            assert shown["SANDBOX_DIR"] == str(tmp_path)
            rebound = quick.request("GET", "/config", headers={"Host": "attacker.example"})
            assert rebound.status == 403
        finally:
            process.terminate()


@pytest.mark.parametrize(
    ("option", "port", "message"),
    [("--locall", "8080", "unrecognized arguments: --locall"), ("", "abc", "PORT must be set to")],
)
def test_a_mistyped_option_serves_nothing(option: str, port: str, message: str) -> None:
    """`app.py --locall` is no service of the real project, and a wrong PORT is a sentence."""
    ran = subprocess.run(  # noqa: S603 - our own command
        [sys.executable, "app.py", *filter(None, [option])],
        cwd=ROOT,
        env=ENVIRON | {"PORT": port},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 2
    assert message in ran.stderr
    assert "Traceback" not in ran.stderr


def test_a_service_by_itself_ends_its_runs() -> None:
    """`app.py` waits until they have stopped, as gunicorn's worker does."""
    run = RunInProgress(run_id="r", job="sessions", started_at=datetime.now(UTC))
    IN_PROGRESS.put(run)

    def stop() -> None:
        STOP.wait(5)
        IN_PROGRESS.remove(run.run_id)

    thread = threading.Thread(target=stop)
    thread.start()
    try:
        end_runs()
        assert IN_PROGRESS.all() == []
        assert STOP.is_set()
    finally:
        STOP.clear()
        thread.join()


def test_the_service_of_the_emulator_is_for_this_machine() -> None:
    """`gunicorn 'app:local()'` listens on loopback unless an argument says otherwise."""
    command = [sys.executable, "-m", "gunicorn", "--print-config", "app:local()"]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)  # noqa: S603
    assert re.search(r"^bind += \['127\.0\.0\.1:", ran.stdout, re.MULTILINE)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_whatever_ends_the_service_stops_its_run(number: signal.Signals) -> None:
    """Gunicorn's own handlers of Ctrl-C and SIGQUIT would take the threads away from under it."""
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)
    kept = {each: signal.getsignal(each) for each in numbers}
    ended: list[int] = []
    try:
        for each in numbers:  # as gunicorn has done by then
            signal.signal(each, lambda caught, _: ended.append(caught))
        runpy.run_path(str(ROOT / "gunicorn.conf.py"))["post_worker_init"](None)
        signal.raise_signal(number)
        assert STOP.is_set()
    finally:
        STOP.clear()
        for each, handler in kept.items():
            signal.signal(each, handler)
    assert ended == [signal.SIGTERM]  # by gunicorn's handler of that


def test_how_gunicorn_serves() -> None:
    """One process that never kills a run, on PORT, and gone before Cloud Run's ten seconds."""
    ran = subprocess.run(
        [sys.executable, "-m", "gunicorn", "--print-config"],
        cwd=ROOT,
        env=os.environ | {"PORT": "9123"},
        capture_output=True,
        text=True,
        check=True,
    )
    found = dict(re.findall(r"^(\w+) += (.*)$", ran.stdout, re.MULTILINE))
    expected = {
        "bind": "['0.0.0.0:9123']",
        "workers": "1",
        "worker_class": "service.worker.Worker",
        "threads": "8",
        "timeout": "0",
        "graceful_timeout": "8",
        "control_socket_disable": "True",
        "forwarder_headers": "[]",
    }
    assert {name: found[name] for name in expected} == expected
