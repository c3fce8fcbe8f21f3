"""Where a browser says that a request comes from. Not who sends it: that is `callers.py`. Pure.

A web page may send requests to any address that its visitor's browser reaches, a service on the
visitor's own machine included. Browsers say so in `Origin` and `Sec-Fetch-Site`, which no page can
set; Cloud Scheduler and curl send neither. A name that leads to this machine (DNS rebinding) makes
a foreign page look like our own: a local service therefore answers to loopback names alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from runs.errors import ForbiddenError

if TYPE_CHECKING:
    from werkzeug.datastructures import Headers

_READING: Final = {"GET", "HEAD", "OPTIONS"}
_OUR_SITE: Final = {"same-origin", "none"}  # none: typed into the address bar
_LOOPBACK: Final = {"localhost", "127.0.0.1", "::1"}


def check_origin(method: str, headers: Headers, host: str) -> None:
    """Refuse (ForbiddenError) what may change something and comes from another origin."""
    if method in _READING:
        return
    site, origin = headers.get("Sec-Fetch-Site"), headers.get("Origin")
    is_foreign = site is not None and site not in _OUR_SITE
    if is_foreign or (origin is not None and urlsplit(origin).netloc.lower() != host.lower()):
        message = f"A {method} from a page of another origin is refused: send it from no browser."
        raise ForbiddenError(message)


def check_loopback(host: str) -> None:
    """Refuse (ForbiddenError) a Host that is no name of this machine."""
    try:
        name = urlsplit(f"//{host}").hostname
    except ValueError:
        name = None
    if name not in _LOOPBACK:
        message = "The service is local and answers to localhost alone: use http://localhost:PORT."
        raise ForbiddenError(message)
