"""The sign-in page: a key for a cookie."""

from __future__ import annotations

import hmac
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from flask import redirect, request

from service.console import access, forms
from service.console.responses import page

if TYPE_CHECKING:
    from flask.typing import ResponseReturnValue

    from service.console.site import Site

LOG: Final = logging.getLogger("posthog_etl.console")
WRONG_KEYS: Final = access.WrongKeys()
_WRONG: Final = "The key is wrong."


@dataclass(frozen=True, slots=True, kw_only=True)
class SignIn:
    """All that the page shows."""

    title: str = "Sign in"
    next: str
    error: str | None = None
    is_needed: bool


def show(site: Site) -> ResponseReturnValue:
    """The page; its POST takes the key."""
    following = _safe(request.values.get("next", "/"))
    if site.settings.auth != "api_key":
        return page("sign_in.html", SignIn(next=following, is_needed=False))
    if request.method == "GET" and access.is_signed_in():
        return redirect(following)
    if request.method == "GET":
        return page("sign_in.html", SignIn(next=following, is_needed=True))
    error, status = _try_key(site.settings.api_key or "")
    if error is None:
        access.sign_in()
        return redirect(following, 303)
    answer = page(
        "sign_in.html", SignIn(next=following, error=error, is_needed=True), status=status
    )
    if wait := WRONG_KEYS.seconds_to_wait():
        answer.headers["Retry-After"] = str(wait)
    return answer


def _try_key(key: str) -> tuple[str | None, int]:
    """What is wrong with what was sent, and the status to say it with; None where nothing is."""
    if problem := forms.problem():
        return problem, 400
    if wait := WRONG_KEYS.seconds_to_wait():
        return f"Too many wrong keys: wait {wait} s, then try again.", 429
    # Digests: the time that it takes to compare texts reveals the length of the key.
    sent = request.form.get("key", "").encode("utf-8", "surrogatepass")
    if hmac.compare_digest(_digest(sent), _digest(key.encode())):
        return None, 200
    WRONG_KEYS.add()
    LOG.warning("a wrong key was sent to the sign-in page")
    return _WRONG, 401


def _digest(text: bytes) -> bytes:
    return hmac.digest(b"", text, "sha256")


def _safe(address: str) -> str:
    """An address of this service; any other becomes the overview."""
    is_ours = address.startswith("/") and not address.startswith(("//", "/\\"))
    return address if is_ours and address.isprintable() else "/"


def leave(site: Site) -> ResponseReturnValue:  # noqa: ARG001 - as every page is called
    """Sign out."""
    if not forms.problem():
        access.sign_out()
    return redirect("/sign-in", 303)
