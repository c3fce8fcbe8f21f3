"""The one error of the sandbox. Public as `sandbox.emulator.SandboxError`."""

from __future__ import annotations


class SandboxError(Exception):
    """The sandbox can't do what was asked: one sentence that names the object and the remedy."""
