"""Kernel file locks, which a process loses however it ends. Not reentrant, one per object."""

from __future__ import annotations

import fcntl
import os
import time
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from pathlib import Path

_POLL_SECONDS = 0.02


class FileLock:
    """A lock on `path`, made when missing; shared or exclusive, held until released or closed."""

    def __init__(self, path: Path) -> None:
        """Open the file; nothing is locked yet."""
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)

    def __enter__(self) -> Self:
        """Return the lock as it is: `with` closes it at the end, it does not acquire it."""
        return self

    def __exit__(self, *_: object) -> None:
        """Release and close."""
        self.close()

    def acquire(self, *, shared: bool = False) -> None:
        """Wait for the lock, however long it takes."""
        fcntl.flock(self._descriptor, _mode(shared=shared))

    def try_acquire(self, *, shared: bool = False) -> bool:
        """Take the lock if that needs no waiting, and say whether it was taken.

        On False nothing is held: also a lock of the other kind that was held before is lost.
        """
        try:
            fcntl.flock(self._descriptor, _mode(shared=shared) | fcntl.LOCK_NB)
        except BlockingIOError:
            self.release()
            return False
        return True

    def acquire_within(self, seconds: float, *, shared: bool = False) -> bool:
        """Wait for the lock for that long, and say whether it was taken."""
        end = time.monotonic() + seconds
        while not self.try_acquire(shared=shared):
            if time.monotonic() > end:
                return False
            time.sleep(_POLL_SECONDS)
        return True

    def release(self) -> None:
        """Give the lock up; it can be taken again."""
        fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def close(self) -> None:
        """Give the lock up for good."""
        os.close(self._descriptor)


def is_held(path: Path) -> bool:
    """Whether somebody holds the lock on `path` exclusively just now."""
    with FileLock(path) as lock:
        return not lock.try_acquire(shared=True)


def _mode(*, shared: bool) -> int:
    return fcntl.LOCK_SH if shared else fcntl.LOCK_EX
