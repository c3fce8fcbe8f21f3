"""What `--check` finds: one sentence about each thing that should hold. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable

type Outcome = Literal["ok", "warning", "failed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """The outcome of one check, and a sentence about it."""

    name: str
    outcome: Outcome
    message: str

    def to_json(self) -> dict[str, str]:
        """Every field."""
        return {"name": self.name, "outcome": self.outcome, "message": self.message}


def worst(checks: Iterable[Check]) -> Outcome:
    """The outcome of all checks together."""
    order: tuple[Outcome, ...] = ("ok", "warning", "failed")
    return max((each.outcome for each in checks), key=order.index, default="ok")
