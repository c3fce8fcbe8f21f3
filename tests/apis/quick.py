"""API clients with short timeouts and pauses, so that no test waits as long as a run would."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from apis.http import Rate, RetryPolicy

if TYPE_CHECKING:
    from apis.http import Api

RETRY_POLICY = RetryPolicy(
    attempts=4,
    first_pause_seconds=0.01,
    longest_pause_seconds=0.05,
    longest_retry_after_seconds=5.0,
    connect_seconds=1.0,
    read_seconds=0.4,
    attempt_seconds=1.0,
)


def quick(api: Api) -> Api:
    """The API with short timeouts, and a rate limit that no test reaches."""
    return replace(api, rate=Rate(requests=1000, seconds=1), retry_policy=RETRY_POLICY)
