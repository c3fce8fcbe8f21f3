"""The directory that emulators share, and the values in it. Knows nothing of what these are.

Whoever names the directory sees to it that what is there was written by the same code.
Written for local-bigquery 0.3.2.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import pickle
import threading
from pathlib import Path
from typing import Any, Final

SHARED: Final = "SANDBOX_SHARED"  # the directory; nothing is shared where this is not set


class SharedValues:
    """Values by key; a key's value may be replaced by another process at any time."""

    def __init__(self, folder: str | None) -> None:
        """Without a folder nothing is kept."""
        self._folder = folder

    def get(self, key: object) -> list[Any]:
        """What was put last; nothing if nothing was."""
        if self._folder is None:
            return []
        try:
            found: list[Any] = pickle.loads(_file(self._folder, key).read_bytes())  # noqa: S301 - put below
        except FileNotFoundError:
            return []
        return found

    def put(self, key: object, value: list[Any]) -> None:
        """Let the others find it, unless somebody has deleted the directory."""
        if self._folder is None:
            return
        file = _file(self._folder, key)
        draft = file.with_suffix(f".{os.getpid()}_{threading.get_ident()}")
        with contextlib.suppress(FileNotFoundError):
            draft.write_bytes(pickle.dumps(value))
            draft.replace(file)


def _file(folder: str, key: object) -> Path:
    return Path(folder, hashlib.sha256(repr(key).encode()).hexdigest())
