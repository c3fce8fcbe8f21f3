"""How a view model becomes an answer: templates, their filters, and the headers of a page."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

from flask import Blueprint, make_response, render_template, request, session, url_for

from runs import VERSION
from service.console import formats, forms
from service.console.failures import failure

if TYPE_CHECKING:
    from collections.abc import Iterable

    from flask import Response

    from service.console.queries import Answer

HEADERS: Final = {
    "Content-Security-Policy": "default-src 'self'; object-src 'none'; base-uri 'none';"
    " form-action 'self'; frame-ancestors 'none'",
    "Referrer-Policy": "same-origin",  # without any, browsers send forms from the origin `null`
    "Vary": "Accept, HX-Request",
    "Cross-Origin-Opener-Policy": "same-origin",
}
STATIC: Final = Path(__file__).parent / "static"
NAVIGATION: Final = (
    ("/", "Overview"),
    ("/explore", "Explore"),
    ("/sessions", "Sessions"),
    ("/runs", "Runs"),
    ("/health-report", "Health"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What the questions of a page have cost."""

    bytes_billed: int = 0
    cost_usd: float = 0.0
    seconds: float = 0.0
    is_cached: bool = False
    sql: tuple[str, ...] = field(default=())

    @classmethod
    def of(cls, answers: Iterable[Answer]) -> Cost:
        """The sum of some answers."""
        found = tuple(answers)
        return cls(
            bytes_billed=sum(each.bytes_billed for each in found),
            cost_usd=sum(each.cost_usd for each in found),
            seconds=max((each.seconds for each in found), default=0.0),
            is_cached=bool(found) and all(each.is_cached for each in found),
            sql=tuple(each.sql for each in found if each.sql),
        )


def wants_page() -> bool:
    """Whether the caller is a browser: they name HTML, and other callers don't."""
    return "text/html" in request.headers.get("Accept", "")


def is_part() -> bool:
    """Whether htmx asks for a part of a page."""
    return request.headers.get("HX-Request") == "true"


def page(template: str, view: object, *, status: int = 200) -> Response:
    """A template with its view model, as an answer."""
    answer = make_response(render_template(template, view=view), status)
    answer.headers.update(HEADERS)
    return answer


def error_page(type_: str, message: str, status: int) -> Response:
    """An error as a page."""
    return page("error.html", failure(type_, message, status), status=status)


@cache
def static_url(name: str) -> str:
    """The address of a file with a hash of it, so that browsers may keep it for good."""
    digest = hashlib.sha256((STATIC / name).read_bytes()).hexdigest()[:12]
    return url_for("console.static_file", name=name, v=digest)


def add_to_templates(blueprint: Blueprint) -> None:
    """The filters and names that every template may use."""
    for each in (
        formats.number,
        formats.counted,
        formats.compact,
        formats.share,
        formats.duration,
        formats.size,
        formats.dollars,
        formats.moment,
        formats.clock,
        formats.day,
        formats.signed,
        formats.words,
        formats.parsed,
    ):
        blueprint.add_app_template_filter(each)
    blueprint.app_context_processor(_names)


def _names() -> dict[str, object]:
    return {
        "static_url": static_url,
        "navigation": NAVIGATION,
        "path": request.path,
        "version": VERSION,
        "csrf": forms.token,
        "can_sign_out": "signed_in_until" in session,
    }
