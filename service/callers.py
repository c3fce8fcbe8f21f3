"""Who may call the service, by token, by key or through a proxy. Not what a caller may ask for.

A refused caller does not learn the reason. The log has it, without what the caller sent. Headers of
Cloud Scheduler prove nothing, since anybody can send them.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import math
import threading
import time
from concurrent.futures import wait
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final, Never

from bigquery.retries import start
from runs.errors import AuthenticationError, ForbiddenError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from runs.settings import Settings

LOG: Final = logging.getLogger("posthog_etl.callers")
GOOGLE_CERTIFICATES: Final = "https://www.googleapis.com/oauth2/v1/certs"
IAP_KEYS: Final = "https://www.gstatic.com/iap/verify/public_key"
_ISSUERS: Final = {"https://accounts.google.com", "accounts.google.com"}
_IAP_ISSUERS: Final = {"https://cloud.google.com/iap"}
_SKEW_SECONDS: Final = 10  # between two clocks
_FETCH_SECONDS: Final = 5.0
_CACHE_SECONDS: Final = 3600.0  # Google announces a key long before it signs with it
_STALE_SECONDS: Final = 86400.0  # without an answer; Google's certificates are good for days
_FAILED_SECONDS: Final = 5.0  # a fetch that failed is not tried again before
_MISSED_SECONDS: Final = 60.0  # between two fetches for an unknown key
_LONGEST_TOKEN: Final = 8192  # Google's have about 1,200 characters
_UNAUTHENTICATED: Final = "The caller did not prove who it is: see AUTH in docs/reference.md."
_NOT_ALLOWED: Final = "This caller is not allowed to use the service: ask who runs it."


@dataclass(frozen=True, slots=True, kw_only=True)
class CallerHeaders:
    """The headers of a request that may prove who sends it."""

    authorization: str | None
    api_key: str | None
    iap_assertion: str | None = None


type Gate = Callable[[CallerHeaders], None]
"""Raises an EtlError where the caller may not pass."""


def make_gate(settings: Settings, *, certificates_url: str | None = None) -> Gate:
    """What every request but `GET /health` must pass, as the setting AUTH says.

    Raises AuthenticationError (401) whatever fails, ForbiddenError (403) for somebody known who is
    not in OIDC_ALLOWED, UnavailableError (503) where the certificates can't be had.
    """
    if settings.auth == "api_key":
        return _KeyGate(settings.api_key or "")
    if settings.auth == "oidc":
        return _TokenGate(settings, _Certificates(certificates_url or GOOGLE_CERTIFICATES))
    if settings.auth == "iap":
        return _IapGate(settings, _Certificates(certificates_url or IAP_KEYS))
    return lambda _: None  # the platform has checked


class _KeyGate:
    def __init__(self, key: str) -> None:
        self._digest = _digest(key)

    def __call__(self, headers: CallerHeaders) -> None:
        # Digests: the time that it takes to compare texts reveals the length of the key.
        if not hmac.compare_digest(_digest(headers.api_key or ""), self._digest):
            _refuse("X-API-Key is wrong" if headers.api_key else "there is no X-API-Key")


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()


def _refuse(why: str) -> Never:
    LOG.warning("a caller was refused: %s", why)
    raise AuthenticationError(_UNAUTHENTICATED)


class _TokenGate:
    def __init__(self, settings: Settings, certificates: _Certificates) -> None:
        self._audience = settings.oidc_audience
        self._allowed = frozenset(email.lower() for email in settings.oidc_allowed)
        self._certificates = certificates

    def __call__(self, headers: CallerHeaders) -> None:
        scheme, _, token = (headers.authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not token or len(token) > _LONGEST_TOKEN:
            _refuse("there is no bearer token")
        email = self._verified_email(token)
        if email.lower() not in self._allowed:
            LOG.warning("a caller was refused: %s is not in OIDC_ALLOWED", email)
            raise ForbiddenError(_NOT_ALLOWED)

    def _verified_email(self, token: str) -> str:
        """The e-mail address that Google vouches for."""
        claims = _verified(token, self._certificates, self._audience, _problem)
        return str(claims["email"])


class _IapGate:
    """Identity-Aware Proxy decides who may pass: its signature for this service suffices."""

    def __init__(self, settings: Settings, keys: _Certificates) -> None:
        self._audience = settings.iap_audience
        self._keys = keys

    def __call__(self, headers: CallerHeaders) -> None:
        token = headers.iap_assertion or ""
        if not token or len(token) > _LONGEST_TOKEN:
            _refuse("there is no X-Goog-IAP-JWT-Assertion: was the proxy bypassed?")
        _verified(token, self._keys, self._audience, _iap_problem)


def _verified(
    token: str,
    certificates: _Certificates,
    audience: str | None,
    problem_of: Callable[[Mapping[str, object], Mapping[str, object]], str | None],
) -> Mapping[str, object]:
    """The claims of a token that Google signed for this audience and this time, or a refusal."""
    from google.auth import jwt
    from google.auth.exceptions import InvalidValue

    try:
        head = jwt.decode_header(token)
        claims: Mapping[str, object] = jwt.decode(
            token,
            certs=certificates.of_key(head.get("kid")),
            audience=audience,
            clock_skew_in_seconds=_SKEW_SECONDS,
        )
        problem = problem_of(claims, head)
    except UnavailableError:
        raise
    except InvalidValue as error:  # of time, audience or algorithm: it quotes no token
        problem = str(error)
    except Exception as error:  # noqa: BLE001 - of many types, and none may let a caller in
        problem = f"the token is not one that Google signed ({type(error).__name__})"
    if problem:
        _refuse(problem)
    return claims


def _problem(claims: Mapping[str, object], _: Mapping[str, object]) -> str | None:
    """What is wrong with a token that Google signed for this audience and this time."""
    if claims.get("email_verified") is not True or not isinstance(claims.get("email"), str):
        return "the token has no e-mail address that was verified"
    return _origin_problem(claims, _ISSUERS)


def _iap_problem(claims: Mapping[str, object], head: Mapping[str, object]) -> str | None:
    """What is wrong with a token of Identity-Aware Proxy, which signs by one algorithm only."""
    if head.get("alg") != "ES256":
        return "the token is not signed by ES256"
    return _origin_problem(claims, _IAP_ISSUERS)


def _origin_problem(claims: Mapping[str, object], issuers: set[str]) -> str | None:
    if claims.get("iss") not in issuers:
        return "the token has another issuer"
    not_before = claims.get("nbf", 0)
    if not isinstance(not_before, int) or not_before > time.time() + _SKEW_SECONDS:
        return "the token is not valid yet"
    return None


class _Certificates:
    """Google's certificates by key id, fetched once an hour and when a key is not among them.

    One caller fetches, and those that come meanwhile don't wait for it: they take what is known.
    Where fetching fails, what is known is good for a day.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._fetching = threading.Lock()
        self._known: Mapping[str, str] = {}
        self._fetched_at = -math.inf
        self._tried_at = -math.inf

    def of_key(self, key_id: object) -> Mapping[str, str]:
        """All of them; UnavailableError where they can't be had."""
        now = time.monotonic()
        longest = _CACHE_SECONDS if key_id in self._known else _MISSED_SECONDS
        is_due = now - self._fetched_at > longest and now - self._tried_at > _FAILED_SECONDS
        if is_due and self._fetching.acquire(blocking=False):
            try:
                self._renew()
            finally:
                self._fetching.release()
        if time.monotonic() - self._fetched_at > _STALE_SECONDS:
            message = "Google's certificates could not be fetched: try again later."
            raise UnavailableError(message)
        return self._known

    def _renew(self) -> None:
        self._tried_at = time.monotonic()  # waiting callers don't repeat a slow failure
        outcome = start(partial(_fetch, self._url))
        found = outcome.result() if wait([outcome], timeout=_FETCH_SECONDS).done else None
        self._tried_at = time.monotonic()
        if found is not None:
            self._known, self._fetched_at, self._tried_at = found, self._tried_at, -math.inf
        else:
            LOG.warning("the certificates could not be fetched")


def _fetch(url: str) -> Mapping[str, str] | None:
    """The certificates; None where they can't be had. A slow server may delay it."""
    import requests

    try:
        answer = requests.get(url, timeout=_FETCH_SECONDS, allow_redirects=False)
        found = answer.json() if answer.status_code == requests.codes.ok else None
    except requests.RequestException as error:
        LOG.warning("the certificates could not be fetched: %s", type(error).__name__)
        return None
    return found if isinstance(found, dict) else None
