"""From where a browser may call the service: not from another site's page. Pure.

A page can send a POST without asking first, and read answers from a name of its own that it has
made point here. Other clients send neither `Origin` nor `Sec-Fetch-Site`, and any `Host`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from runs.errors import ForbiddenError

_HARMLESS: Final = {"GET", "HEAD", "OPTIONS"}
_OWN_SITES: Final = {None, "same-origin", "none"}  # none: a person, not a page
_LOOPBACK: Final = re.compile(r"(?:localhost|127\.0\.0\.1|\[::1\])(?::[0-9]{1,5})?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """What a request says of where it comes from and goes to: its method and headers."""

    method: str
    host: str
    origin: str | None = None
    site: str | None = None
    """`Sec-Fetch-Site`."""


def check_host(sent: Sent) -> None:
    """Nothing, or a ForbiddenError unless the request is for a name that only this machine has."""
    if not _LOOPBACK.fullmatch(sent.host.lower()):
        message = "The service is for this machine alone: call it as localhost or 127.0.0.1."
        raise ForbiddenError(message)


def check_origin(sent: Sent) -> None:
    """Nothing, or a ForbiddenError where a page of another origin wants something to be done."""
    if sent.method in _HARMLESS:
        return
    is_own = sent.origin is None or _host_of(sent.origin) == sent.host.lower()
    if not is_own or sent.site not in _OWN_SITES:
        message = "A page of another origin may not do this: use curl, or a page of the service."
        raise ForbiddenError(message)


def _host_of(origin: str) -> str:
    """Host and port; the scheme may be that of a proxy in front."""
    return origin.lower().partition("://")[2]
