"""An event loop for a run's thread that keeps checking whether the run must stop.

So a request that hangs, a pause before the next attempt and a slow Redis all end within moments of
the run's deadline, a SIGTERM or a lost lease. Knows neither HTTP nor Redis.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any

_CHECK_SECONDS: Final = 0.2


class WatchedLoop:
    """Runs coroutines, one at a time, in the thread that calls it; `check` raises what stops it."""

    def __init__(self, check: Callable[[], None]) -> None:
        self._check = check
        self._loop = asyncio.new_event_loop()

    def run[T](self, work: Coroutine[Any, Any, T]) -> T:
        """The coroutine's result; stopping the run cancels it."""
        return self._loop.run_until_complete(self._watch(work))

    def close(self, last: Coroutine[Any, Any, object]) -> None:
        """Run a final coroutine even if the run must stop; then end other tasks and the loop."""
        left = asyncio.all_tasks(self._loop)
        for task in left:
            task.cancel()
        if left:
            self._loop.run_until_complete(asyncio.wait(left))
        self._loop.run_until_complete(last)
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()  # and waits for no thread of it: one may still resolve a name

    async def _watch[T](self, work: Coroutine[Any, Any, T]) -> T:
        task = asyncio.ensure_future(work)
        try:
            while True:
                self._check()
                done, _ = await asyncio.wait([task], timeout=_CHECK_SECONDS)
                if done:
                    return task.result()
        finally:
            if not task.done():
                task.cancel()
                await asyncio.wait([task])
