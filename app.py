"""The HTTP service: requests in, reports and errors out, as JSON. What a run does is `main`'s.

Run by gunicorn as `app:app`. Nothing that a run needs is imported before the first run, so that
the service answers `GET /health` at once.
"""

from __future__ import annotations

import logging
import os
import sys
from http import HTTPStatus
from typing import TYPE_CHECKING, Final
from uuid import uuid4

from flask import Flask, Response, current_app, jsonify, request
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge

from pipeline import VERSION
from pipeline.errors import EtlError, SettingsError
from pipeline.runs import RunRequest
from pipeline.settings import Settings
from reporting import configure_logging

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flask.typing import ResponseReturnValue

LOG: Final = logging.getLogger("posthog_etl.app")
MAX_BODY_BYTES: Final = 64 * 1024


def create_app(environ: Mapping[str, str], *, is_local: bool = False) -> Flask:
    """The service for these environment variables; it starts, and says so, where they are wrong.

    `is_local`: runs work on the sandbox's emulator.
    """
    try:
        Settings.from_environment(environ, local=is_local)
    except SettingsError as error:
        LOG.error("POST /run will be refused: %s", error)  # noqa: TRY400 - the sentence says it all
    service = Flask("app", static_folder=None)
    service.config["MAX_CONTENT_LENGTH"] = MAX_BODY_BYTES + 1  # one more, to see that it is more
    service.json.sort_keys = False  # type: ignore[attr-defined]
    service.register_error_handler(EtlError, _failure)
    service.register_error_handler(HTTPException, _refusal)
    service.register_error_handler(Exception, _bug)
    service.get("/health")(_health)
    service.post("/run")(lambda: _run(environ, is_local=is_local))
    return service


def _health() -> ResponseReturnValue:
    return jsonify(status="ok", version=VERSION)


def _run(environ: Mapping[str, str], *, is_local: bool) -> ResponseReturnValue:
    settings = Settings.from_environment(environ, local=is_local)
    _check_auth(settings)
    asked = RunRequest.from_json(_body())

    import main

    report = main.run(asked, settings, is_local=is_local, trigger=_trigger())
    return jsonify(report.to_json())


def _body() -> bytes:
    """The body, whatever the Content-Type: Cloud Scheduler's default says it is no JSON."""
    body = request.get_data(cache=False)
    if len(body) > MAX_BODY_BYTES:  # where no Content-Length gave it away, Flask cuts it off
        raise RequestEntityTooLarge
    return body


def _check_auth(settings: Settings) -> None:
    """Raise SettingsError where the service itself should check callers: it can't yet."""
    if settings.auth != "platform":
        message = (
            f"AUTH={settings.auth} is not in this release:"
            " set AUTH=platform and let Cloud Run admit callers."
        )
        raise SettingsError(message)


def _trigger() -> str | None:
    """What Cloud Scheduler says it delivers, the same for every attempt; None for other callers."""
    name = request.headers.get("X-CloudScheduler-JobName")
    scheduled = request.headers.get("X-CloudScheduler-ScheduleTime")
    return f"{name} {scheduled}" if name and scheduled else None


def _failure(error: EtlError) -> ResponseReturnValue:
    level = (
        logging.ERROR if error.http_status >= HTTPStatus.INTERNAL_SERVER_ERROR else logging.WARNING
    )
    LOG.log(level, "%s %s: %s", request.method, request.path, error)
    return _error(type(error).__name__, str(error)), error.http_status


def _refusal(error: HTTPException) -> ResponseReturnValue:
    """What HTTP itself refuses, with its headers: a 405 names the methods in `Allow`."""
    answer = _error(type(error).__name__, _sentence(error))
    for name, value in error.get_headers():
        if name != "Content-Type":
            answer.headers[name] = value
    return answer, error.code or HTTPStatus.INTERNAL_SERVER_ERROR


def _sentence(error: HTTPException) -> str:
    if error.code in {HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED}:
        return f"There is no {request.method} {request.path}: use {_addresses()}."
    if error.code == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        return f"The body is too large: send at most {MAX_BODY_BYTES} bytes."
    return error.description or error.name


def _addresses() -> str:
    rules = [(rule.methods or set(), rule.rule) for rule in current_app.url_map.iter_rules()]
    return " or ".join(
        f"{'POST' if 'POST' in methods else 'GET'} {path}" for methods, path in rules
    )


def _bug(error: Exception) -> ResponseReturnValue:
    """Whatever is not an EtlError: the log has the traceback, the answer only its id."""
    error_id = uuid4().hex
    LOG.error("bug %s at %s %s", error_id, request.method, request.path, exc_info=error)
    message = f"Something unforeseen happened: look for {error_id} in the log."
    return _error("InternalError", message, id=error_id), HTTPStatus.INTERNAL_SERVER_ERROR


def _error(type_: str, message: str, **more: str) -> Response:
    return jsonify(error={"type": type_, "message": message, **more})


def _start() -> Flask:
    configure_logging(sys.stdout, as_json=True)
    return create_app(os.environ)


def local() -> Flask:
    """The service on the sandbox's emulator: `gunicorn 'app:local()'`, or `app.py --local`."""
    configure_logging(sys.stdout, as_json=True)
    return create_app(os.environ, is_local=True)


def __getattr__(name: str) -> Flask:
    """`app`, made of the process's environment when it is first asked for, not at import."""
    if name != "app":
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    service = globals()[name] = _start()
    return service


if __name__ == "__main__":
    service = local() if "--local" in sys.argv[1:] else _start()
    service.run(port=int(os.environ.get("PORT") or 8080))
