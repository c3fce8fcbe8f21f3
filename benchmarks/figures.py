"""What benchmarks print: medians, ratios pair by pair, and one JSON object as the last line."""

from __future__ import annotations

import json
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """The median of theirs over ours, each pair measured one right after the other."""
    return median(their / our for our, their in zip(ours, theirs, strict=True))


def rounded(value: float) -> float:
    """Three digits: more are noise."""
    return float(f"{value:.3g}")


def print_json(figures: object) -> None:
    """The last line: what a program reads."""
    print(json.dumps(figures), flush=True)  # noqa: T201 - what a command is for
