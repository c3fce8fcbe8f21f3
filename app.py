"""The HTTP service: answers requests with reports and errors as JSON. Defines no job.

Run by gunicorn as `app:app`. What a run needs is imported by the first request that needs it,
so the service answers `GET /health` at once.
"""

from __future__ import annotations

import argparse
import logging
import os
import re
import reprlib
import signal
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property, partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Final
from uuid import uuid4

from flask import Flask, Response, current_app, g, jsonify, request
from werkzeug.exceptions import HTTPException, NotFound, RequestEntityTooLarge

from bigquery.connection import READING_SECONDS, CachedClients, local_environment
from runs import VERSION
from runs.errors import AuthenticationError, EtlError, RequestError, SettingsError
from runs.execution import cut_short_warning
from runs.ledger_sql import RunsRequest, is_run_id
from runs.log import configure_logging, log_fields
from runs.progress import IN_PROGRESS
from runs.request import RunRequest
from runs.settings import Settings
from service import inspection
from service.callers import CallerHeaders, Gate, make_gate
from service.console import access, routes
from service.console.responses import error_page, wants_page
from service.deliveries import delivery
from service.origins import Sent, check_host, check_origin
from service.readiness import Readiness

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flask.typing import ResponseReturnValue

    from runs.report import RunReport
    from service.console.site import Site

LOG: Final = logging.getLogger("posthog_etl.app")
MAX_BODY_BYTES: Final = 64 * 1024
_HEADERS: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
_OPEN: Final = "/health"  # for the platform, which has no token
_SECONDS_TO_END: Final = 8.0
_CUT_SHORT: Final = "The body arrived incomplete: send it again."
_TRACES: Final = {
    "X-Cloud-Trace-Context": re.compile(r"([0-9a-f]{32})(?:/.*)?"),
    "traceparent": re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}.*"),
}


def create_app(
    environ: Mapping[str, str],
    *,
    is_local: bool = False,
    only_loopback: bool = False,
    certificates_url: str | None = None,
) -> Flask:
    """Create the service. If the environment variables are wrong, it logs that and still starts.

    `is_local`: runs use the sandbox's emulator. `only_loopback`: answer only to this machine's own
    names; `is_local` implies it. `certificates_url`: of the token issuer; None: Google's.
    """
    site = _Site(environ, is_local=is_local, certificates_url=certificates_url)
    service = Flask("app", static_folder=None)
    service.config["MAX_CONTENT_LENGTH"] = MAX_BODY_BYTES + 1  # +1 reveals a longer body
    service.json.sort_keys = False  # type: ignore[attr-defined]
    if is_local or only_loopback:
        service.before_request(_for_this_machine)
    service.before_request(_of_no_other_page)
    service.before_request(site.admit)
    service.after_request(_protect)
    service.teardown_request(_close)
    service.register_error_handler(EtlError, _failure)
    service.register_error_handler(HTTPException, _refusal)
    service.register_error_handler(Exception, _bug)
    service.get(_OPEN)(_health)
    service.get("/ready")(site.ready)
    service.get("/status")(site.status)
    service.get("/runs")(site.runs)
    service.get("/runs/<run_id>")(site.run)
    service.get("/verify")(site.verify)
    service.get("/sessions/<path:session_id>")(site.session)
    service.get("/jobs")(site.jobs)
    service.get("/config")(site.config)
    service.post("/run")(site.start)
    service.register_blueprint(routes.make_blueprint(lambda: site.console))
    access.add_cookies(service, environ.get("ETL_API_KEY", "").strip())
    return service


@dataclass(frozen=True, slots=True, kw_only=True)
class _Deployment:
    """The settings, and what the service makes from them if they are valid."""

    settings: Settings
    gate: Gate
    clients: CachedClients
    readiness: Readiness


def _deploy(
    environ: Mapping[str, str], *, is_local: bool, certificates_url: str | None
) -> _Deployment | SettingsError:
    try:
        settings = Settings.from_environment(environ, local=is_local)
    except SettingsError as error:
        LOG.error("POST /run will be refused: %s", error)  # noqa: TRY400 - no traceback is needed
        return error
    if warning := cut_short_warning(environ, settings):
        LOG.warning("%s", warning)
    clients = CachedClients(settings, is_local=is_local)
    return _Deployment(
        settings=settings,
        gate=make_gate(settings, certificates_url=certificates_url),
        clients=clients,
        readiness=Readiness(settings, clients.warehouse),
    )


class _Site:
    """The endpoints that need settings, and what they share."""

    def __init__(
        self, environ: Mapping[str, str], *, is_local: bool, certificates_url: str | None
    ) -> None:
        self._environ = environ
        self._is_local = is_local
        self._made = _deploy(environ, is_local=is_local, certificates_url=certificates_url)

    @property
    def _deployment(self) -> _Deployment:
        """Raises SettingsError if the settings are wrong; details only if AUTH is `platform`."""
        if isinstance(self._made, _Deployment):
            return self._made
        if self._environ.get("AUTH", "").strip() in {"", "platform"}:
            raise SettingsError(str(self._made))
        message = "The settings of the service are wrong: its log says which."
        raise SettingsError(message)

    def admit(self) -> None:
        """Before every request: add its trace to the log lines, and check its caller."""
        g.stack = ExitStack()
        g.stack.enter_context(log_fields(_trace(self._environ)))
        if request.path != _OPEN and not access.admits(self._deployment.settings):
            get = request.headers.get
            self._deployment.gate(
                CallerHeaders(
                    authorization=get("Authorization"),
                    api_key=get("X-API-Key"),
                    iap_assertion=get("X-Goog-IAP-JWT-Assertion"),
                )
            )

    @cached_property
    def console(self) -> Site:
        """What the console's pages look at."""
        from service.console.site import Site

        made = self._deployment
        return Site(
            settings=made.settings,
            connect=partial(made.clients.warehouse, READING_SECONDS),
            readiness=made.readiness,
            start=self._run,
        )

    def ready(self) -> ResponseReturnValue:
        """Whether a run would find what it needs."""
        probes = self._deployment.readiness.probes()
        is_ready = not any(probe.problem for probe in probes)
        return jsonify(
            status="ready" if is_ready else "not ready",
            checks={probe.name: probe.to_json() for probe in probes},
        ), HTTPStatus.OK if is_ready else HTTPStatus.SERVICE_UNAVAILABLE

    def status(self) -> ResponseReturnValue:
        """The runs of this process; if there are none, who else holds the lease."""
        now = datetime.now(UTC)
        here = [run.to_json(now) for run in IN_PROGRESS.all()]
        if here:
            return jsonify(status="running", runs=here, lease=None, problem=None)
        try:
            with self._deployment.clients.warehouse() as warehouse:
                lease = inspection.lease_holder(warehouse)
        except EtlError as error:
            return jsonify(status="unknown", runs=[], lease=None, problem=str(error))
        status = "running elsewhere" if lease else "idle"
        return jsonify(status=status, runs=[], lease=lease, problem=None)

    def runs(self) -> ResponseReturnValue:
        """A page of the ledger and the next one's address; browsers get the console's page."""
        if wants_page():
            return routes.show(lambda: self.console, "runs")
        page = RunsRequest.from_query(request.args.to_dict(flat=False))
        with self._deployment.clients.warehouse() as warehouse:
            runs = inspection.read_runs(warehouse, page)
        is_last = len(runs) < page.limit
        following = None if is_last else f"/runs?limit={page.limit}&before={runs[-1]['run_id']}"
        return jsonify(runs=runs, next=following)

    def run(self, run_id: str) -> ResponseReturnValue:
        """A run's report, with progress if it runs here; browsers get a page."""
        if wants_page():
            return routes.show(lambda: self.console, "run", run_id=run_id)
        here = next((run for run in IN_PROGRESS.all() if run.run_id == run_id), None)
        found = None
        if is_run_id(run_id):
            with self._deployment.clients.warehouse() as warehouse:
                found = inspection.read_run(warehouse, run_id)
        if here is not None:
            progress = here.to_json(datetime.now(UTC))
            waiting = {"run_id": run_id, "job": here.job, "status": "running"}
            return jsonify({**(found or waiting), "progress": progress})
        if found is None:
            message = f"There is no run {reprlib.repr(run_id)}: GET /runs lists those there are."
            raise NotFound(message)
        return jsonify({**found, "progress": None})

    def verify(self) -> ResponseReturnValue:
        """Compare some stored sessions with the source, cell by cell."""
        from service.verification import read_verification

        query = request.args.to_dict(flat=False)
        with self._deployment.clients.warehouse(READING_SECONDS) as warehouse:
            return jsonify(read_verification(warehouse, query, datetime.now(UTC)))

    def session(self, session_id: str) -> ResponseReturnValue:
        """What a session is made of; a 404 says why there is none."""
        from service.verification import read_story

        with self._deployment.clients.warehouse(READING_SECONDS) as warehouse:
            story = read_story(warehouse, session_id)
        if isinstance(story, str):
            raise NotFound(story)
        return jsonify(story)

    def jobs(self) -> ResponseReturnValue:
        """Each job's last success, and how fresh its data are."""
        with self._deployment.clients.warehouse() as warehouse:
            return jsonify(jobs=inspection.read_jobs(warehouse, datetime.now(UTC)))

    def config(self) -> ResponseReturnValue:
        """The settings in effect, without secrets and ids, and what each job takes and lacks."""
        settings = self._deployment.settings
        jobs = inspection.describe_jobs(settings)
        return jsonify(settings=settings.to_json(), jobs=jobs, version=VERSION)

    def start(self) -> ResponseReturnValue:
        """A run, and its report when it has ended."""
        if request.args:
            message = "POST /run takes no query parameters: say in the body what to run."
            raise RequestError(message)
        run_request = RunRequest.from_json(_body())
        return jsonify(self._run(run_request, _trigger(run_request)).to_json())

    def _run(self, run_request: RunRequest, trigger: str | None = None) -> RunReport:
        import main

        settings = self._deployment.settings
        return main.run(run_request, settings, is_local=self._is_local, trigger=trigger)


def _trace(environ: Mapping[str, str]) -> dict[str, str]:
    """The field by which Cloud Logging groups a request's lines; empty if it has no trace."""
    project = environ.get("GOOGLE_CLOUD_PROJECT_ID")
    for header, pattern in _TRACES.items():
        found = pattern.fullmatch(request.headers.get(header, ""))
        if found and project:
            return {"logging.googleapis.com/trace": f"projects/{project}/traces/{found[1]}"}
    return {}


def _for_this_machine() -> None:
    check_host(_sent())


def _of_no_other_page() -> None:
    check_origin(_sent())


def _sent() -> Sent:
    return Sent(
        method=request.method,
        host=request.headers.get("Host", ""),
        origin=request.headers.get("Origin"),
        site=request.headers.get("Sec-Fetch-Site"),
    )


def _protect(answer: Response) -> Response:
    """Forbid browsers to store, sniff, frame or execute the answer."""
    for name, value in _HEADERS.items():
        answer.headers.setdefault(name, value)
    return answer


def _close(_: BaseException | None) -> None:
    if "stack" in g:
        g.stack.close()


def _health() -> ResponseReturnValue:
    return jsonify(status="ok", version=VERSION)


def _body() -> bytes:
    """The body, ignoring the Content-Type: Cloud Scheduler's default is not JSON."""
    try:
        body = request.get_data(cache=False)
    except RequestEntityTooLarge:
        raise
    except Exception as error:  # gunicorn raises many types for a bad body
        raise RequestError(_CUT_SHORT) from error
    if len(body) > MAX_BODY_BYTES:  # without a Content-Length, Flask truncates it
        raise RequestEntityTooLarge
    if request.content_length not in {None, len(body)}:
        raise RequestError(_CUT_SHORT)
    return body


def _trigger(run_request: RunRequest) -> str | None:
    """Cloud Scheduler's id of a delivery, the same for each attempt; None for other callers."""
    name = request.headers.get("X-CloudScheduler-JobName")
    scheduled = request.headers.get("X-CloudScheduler-ScheduleTime")
    return delivery(name, scheduled, run_request, datetime.now(UTC))


def _failure(error: EtlError) -> ResponseReturnValue:
    level = (
        logging.ERROR if error.http_status >= HTTPStatus.INTERNAL_SERVER_ERROR else logging.WARNING
    )
    LOG.log(level, "%s %s: %s", request.method, request.path, error)
    if isinstance(error, AuthenticationError) and access.needs_sign_in():
        return access.redirect_to_sign_in()
    answer = _error(type(error).__name__, str(error), error.http_status)
    if isinstance(error, AuthenticationError):
        answer.headers["WWW-Authenticate"] = "Bearer"
    return answer


def _refusal(error: HTTPException) -> ResponseReturnValue:
    """An error of HTTP itself, with its headers: a 405 names the methods in `Allow`."""
    status = error.code or HTTPStatus.INTERNAL_SERVER_ERROR
    answer = _error(type(error).__name__, _sentence(error), status)
    for name, value in error.get_headers():
        if name != "Content-Type":
            answer.headers[name] = value
    return answer


def _sentence(error: HTTPException) -> str:
    has_own_description = error.description != type(error).description
    if (
        error.code in {HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED}
        and not has_own_description
    ):
        return f"There is no {request.method} {request.path}: use {_addresses()}."
    if error.code == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        return f"The body is too large: send at most {MAX_BODY_BYTES} bytes."
    return error.description or error.name


def _addresses() -> str:
    every = current_app.url_map.iter_rules()
    rules = [(rule.methods or set(), rule.rule) for rule in every if "." not in rule.endpoint]
    return " or ".join(
        f"{'POST' if 'POST' in methods else 'GET'} {path}" for methods, path in rules
    )


def _bug(error: Exception) -> ResponseReturnValue:
    """Any other error: the log has the traceback, the answer only an id to find it by."""
    error_id = uuid4().hex
    LOG.error("bug %s at %s %s", error_id, request.method, request.path, exc_info=error)
    message = f"Something unforeseen happened: look for {error_id} in the log."
    return _error("InternalError", message, HTTPStatus.INTERNAL_SERVER_ERROR, id=error_id)


def _error(type_: str, message: str, status: int, **more: str) -> Response:
    """An error as JSON, or as a page for a browser."""
    if wants_page():
        return error_page(type_, message, status)
    answer = jsonify(error={"type": type_, "message": message, **more})
    answer.status_code = status
    return answer


def _start(*, only_loopback: bool = False) -> Flask:
    configure_logging(sys.stdout, as_json=True)
    return create_app(os.environ, only_loopback=only_loopback)


def local() -> Flask:
    """The service on the sandbox's emulator: `gunicorn 'app:local()'`, or `app.py --local`."""
    configure_logging(sys.stdout, as_json=True)
    return create_app(local_environment(os.environ), is_local=True)


def __getattr__(name: str) -> Flask:
    """`app`, made from the process's environment when it is first used, not at import."""
    if name != "app":
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    service = globals()[name] = _start()
    return service


def _serve_here(arguments: list[str]) -> None:
    """Serve this machine, for a quick try, without gunicorn."""
    parser = argparse.ArgumentParser(prog="app.py", allow_abbrev=False)
    parser.add_argument("--local", action="store_true", help="on the sandbox's emulator")
    is_local = parser.parse_args(arguments).local
    try:
        settings = Settings.from_environment(os.environ, local=is_local)
    except SettingsError as error:
        parser.error(str(error))
    service = local() if is_local else _start(only_loopback=True)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    service.run(host="127.0.0.1", port=settings.port)  # until Ctrl-C
    end_runs()


def end_runs() -> None:
    """Tell the runs of this process to stop, and give them some seconds to do so."""
    if "runs.supervision" not in sys.modules:  # there were none
        return
    sys.modules["runs.supervision"].STOP.set()
    end = time.monotonic() + _SECONDS_TO_END
    while IN_PROGRESS.all() and time.monotonic() < end:
        time.sleep(0.05)


if __name__ == "__main__":
    _serve_here(sys.argv[1:])
