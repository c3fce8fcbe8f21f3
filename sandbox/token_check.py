"""Who may speak to the emulator: whoever can read its directory, and no page of a browser."""

from __future__ import annotations

import hmac
import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

_OWN_NAMES: Final = re.compile(rb"(?:localhost|127\.0\.0\.1)(?::[0-9]{1,5})?")
_REFUSAL: Final = (
    b'{"error": {"code": 403, "message": "The emulator is for clients of this machine that send'
    b' the token of endpoints.json.", "errors": [{"reason": "accessDenied"}]}}'
)


class TokenCheck:
    """An ASGI application that passes on what a client with the token sends to this machine."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app = app
        self._proof = f"Bearer {token}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 403 to everything else."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        if not self._admits(headers):
            await send({"type": "http.response.start", "status": 403, "headers": _HEADERS})
            await send({"type": "http.response.body", "body": _REFUSAL})
            return
        # To the emulator itself it would be the name of an account.
        kept = [each for each in scope["headers"] if each[0] != b"authorization"]
        await self._app({**scope, "headers": kept}, receive, send)

    def _admits(self, headers: dict[bytes, bytes]) -> bool:
        return (
            b"origin" not in headers
            and _OWN_NAMES.fullmatch(headers.get(b"host", b"")) is not None
            and hmac.compare_digest(headers.get(b"authorization", b""), self._proof)
        )


_HEADERS: Final = [(b"content-type", b"application/json")]
