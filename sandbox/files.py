"""What lies in a SANDBOX_DIR, by name. No behaviour."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class SandboxFiles:
    """The files of the sandbox in `directory`.

    Three locks say who is there; the kernel frees them however a process ends:
    `changing` is held by the one process that attaches, detaches or resets just now;
    `attached` is shared by everybody attached; the emulator waits for it exclusively, and ends
    when it gets it;
    `running` is held by the emulator as long as it lives.
    """

    directory: Path

    @property
    def changing(self) -> Path:
        """Lock: one change at a time."""
        return self.directory / "changing.lock"

    @property
    def attached(self) -> Path:
        """Lock: shared by everybody attached."""
        return self.directory / "attached.lock"

    @property
    def running(self) -> Path:
        """Lock: held by the emulator."""
        return self.directory / "running.lock"

    @property
    def endpoints(self) -> Path:
        """Where the emulator listens and its process id, as JSON; only of meaning while it runs."""
        return self.directory / "endpoints.json"

    @property
    def log(self) -> Path:
        """What the emulator printed since it was started last."""
        return self.directory / "emulator.log"

    @property
    def stored(self) -> Path:
        """The emulator's own data."""
        return self.directory / "data"
