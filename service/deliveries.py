"""The name of a scheduled delivery, so that a repeated one does not run twice. Pure.

Anybody who may call can send Cloud Scheduler's headers, so a name must not let one call stand for
another: it is valid for one request, only if that is complete, and not before its time.
"""

from __future__ import annotations

import hashlib
import json
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from runs.request import RunRequest

_SKEW: Final = timedelta(minutes=5)  # between Google's clock and ours


def delivery(
    name: str | None, scheduled: str | None, run_request: RunRequest, now: datetime
) -> str | None:
    """The name, equal for all attempts at a delivery; None if the call must not count as one."""
    at = _time(scheduled)
    if not name or at is None or at > now + _SKEW or not run_request.is_complete:
        return None
    is_nightly = run_request == type(run_request)()
    return f"{name} {scheduled}" + ("" if is_nightly else f" {_digest(run_request)}")


def _time(text: str | None) -> datetime | None:
    try:
        at = datetime.fromisoformat(text or "")
    except ValueError:
        return None
    return at if at.tzinfo else None


def _digest(run_request: RunRequest) -> str:
    text = json.dumps(run_request.to_json() | {"force": False}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
