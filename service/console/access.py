"""Who may look: the cookie that a browser gets where callers prove themselves by a key.

Not the check of the key, nor of the tokens of programs: those are in `service/callers.py`.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import threading
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Final
from urllib.parse import urlencode

from flask import current_app, redirect, request, session
from flask.sessions import SecureCookieSessionInterface

from service.console.responses import wants_page

if TYPE_CHECKING:
    from flask import Flask
    from flask.typing import ResponseReturnValue

    from runs.settings import Settings

SIGNED_IN_SECONDS: Final = 12 * 3600
WRONG_KEYS_A_MINUTE: Final = 5
_UNTIL: Final = "signed_in_until"
_PROGRAMS: Final = "/run"  # the key itself starts runs without a form
_KEY_PURPOSE: Final = b"posthog-etl console cookies"


class _Cookies(SecureCookieSessionInterface):
    """Cookies for HTTPS alone, wherever the browser came by it."""

    def get_cookie_secure(self, app: Flask) -> bool:  # noqa: ARG002 - as Flask calls it
        """Whether the browser is to send it by HTTPS alone."""
        return request.is_secure or request.headers.get("X-Forwarded-Proto") == "https"


def add_cookies(service: Flask, api_key: str) -> None:
    """Let the service sign cookies, by a secret that ends with the process or with the API key."""
    service.secret_key = (
        hmac.digest(api_key.encode(), _KEY_PURPOSE, hashlib.sha256)
        if api_key
        else secrets.token_bytes(32)
    )
    service.session_interface = _Cookies()
    service.config.update(
        HAS_SIGN_IN=bool(api_key),
        SESSION_COOKIE_NAME="posthog_etl",
        SESSION_COOKIE_HTTPONLY=True,
        SESSION_COOKIE_SAMESITE="Strict",
        SESSION_REFRESH_EACH_REQUEST=False,
        PERMANENT_SESSION_LIFETIME=timedelta(seconds=SIGNED_IN_SECONDS),
        WTF_CSRF_TIME_LIMIT=SIGNED_IN_SECONDS,
    )


def admits(settings: Settings) -> bool:
    """Whether no header is needed: for the sign-in page, and for browsers that signed in."""
    if settings.auth != "api_key" or request.path == _PROGRAMS:
        return False
    return request.path == "/sign-in" or request.path.startswith("/static/") or is_signed_in()


def is_signed_in() -> bool:
    """Whether the browser has a cookie that counts, by its own expiry too."""
    until = session.get(_UNTIL)
    return isinstance(until, int) and time.time() < until


def sign_in() -> None:
    """Give the browser a cookie that counts; what it had before is gone."""
    session.clear()
    session.permanent = True
    session[_UNTIL] = int(time.time()) + SIGNED_IN_SECONDS


def sign_out() -> None:
    """Take it away."""
    session.clear()


class WrongKeys:
    """How many wrong keys of late, by anybody: with too many, no key is looked at for a while.

    Not by address, which a proxy hides and an attacker changes. Programs with the key's header
    don't come by here.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._wrong_at: list[float] = []

    def seconds_to_wait(self) -> int:
        """0 where a key may be tried now."""
        with self._lock:
            now = time.monotonic()
            self._wrong_at = [at for at in self._wrong_at if now - at < 60]  # noqa: PLR2004
            if len(self._wrong_at) < WRONG_KEYS_A_MINUTE:
                return 0
            return int(60 - (now - self._wrong_at[0])) + 1

    def add(self) -> None:
        """Note a wrong key."""
        with self._lock:
            self._wrong_at.append(time.monotonic())


def needs_sign_in() -> bool:
    """Whether a browser without a cookie asks for a page where there is a sign-in page."""
    is_page = wants_page() and request.method == "GET"
    return is_page and bool(current_app.config.get("HAS_SIGN_IN"))


def redirect_to_sign_in() -> ResponseReturnValue:
    """Lead a browser to the sign-in page, and back to where it wanted to go."""
    wanted = request.full_path if request.query_string else request.path
    return redirect(f"/sign-in?{urlencode({'next': wanted})}")
