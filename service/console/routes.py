"""The console's addresses. What a page shows is in its module, imported by the first request."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from flask import Blueprint, send_from_directory

from service.console.responses import STATIC, add_to_templates

if TYPE_CHECKING:
    from collections.abc import Callable

    from flask import Response
    from flask.typing import ResponseReturnValue

    from service.console.site import Site

type GetSite = Callable[[], Site]

_A_YEAR: Final = 31_536_000
# Address, methods, module and function.
PAGES: Final = (
    ("/", ("GET",), "overview", "show"),
    ("/explore", ("GET",), "explore", "show"),
    ("/explore.csv", ("GET",), "explore", "download"),
    ("/sessions", ("GET",), "session_list", "show"),
    ("/session", ("GET",), "session_page", "show"),
    ("/person", ("GET",), "person", "show"),
    ("/runs/new", ("GET", "POST"), "start", "show"),
    ("/live", ("GET",), "live", "show"),
    ("/health-report", ("GET",), "health", "show"),
    ("/sign-in", ("GET", "POST"), "sign_in", "show"),
    ("/sign-out", ("POST",), "sign_in", "leave"),
)


def make_blueprint(get_site: GetSite) -> Blueprint:
    """The pages, for a service that says what they look at when they are asked for."""
    blueprint = Blueprint("console", __name__, template_folder="templates")
    for address, methods, module, function in PAGES:
        name = f"{module}_{function}"
        view = _view(get_site, module, function)
        blueprint.add_url_rule(address, endpoint=name, view_func=view, methods=list(methods))
    blueprint.add_url_rule("/static/<path:name>", endpoint="static_file", view_func=_static)
    add_to_templates(blueprint)
    return blueprint


def show(get_site: GetSite, module: str, **arguments: str) -> ResponseReturnValue:
    """A page that shares its address with an endpoint for programs."""
    return _view(get_site, module, "show")(**arguments)


def _view(get_site: GetSite, module: str, function: str) -> Callable[..., ResponseReturnValue]:
    def view(**arguments: str) -> ResponseReturnValue:
        from service.console import first_run
        from service.console.queries import NothingYetError

        found: Any = import_module(f"service.console.{module}")
        site = get_site()
        try:
            answer: ResponseReturnValue = getattr(found, function)(site, **arguments)
        except NothingYetError:
            return first_run.show(site)
        return answer

    return view


def _static(name: str) -> Response:
    """A file of the pages; its address changes with it."""
    answer = send_from_directory(STATIC, name)
    answer.headers["Cache-Control"] = f"public, max-age={_A_YEAR}, immutable"
    return answer
