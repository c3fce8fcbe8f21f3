"""The memory of this process, as Linux counts it."""

from __future__ import annotations

import re
from pathlib import Path


def resident_mib() -> float:
    """What it holds now."""
    return _status("VmRSS")


def peak_mib() -> float:
    """The most it has held since `count_peak_anew`."""
    return _status("VmHWM")


def file_mib() -> float:
    """How much of what it holds are pages of files, programs and libraries most of them."""
    return _status("RssFile")


def count_peak_anew() -> None:
    """Forget the peak so far."""
    Path("/proc/self/clear_refs").write_text("5")


def _status(name: str) -> float:
    text = Path("/proc/self/status").read_text()
    found = re.search(rf"^{name}:\s+(\d+) kB", text, re.MULTILINE)
    return int(found[1]) / 1024 if found else 0
