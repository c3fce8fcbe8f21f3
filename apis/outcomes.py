"""How each changed id of a kind ends, and whether the sum closes. Pure."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """What Redis shall hold under a key."""

    key: str
    fields: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Filtered:
    """A title or person that a rule keeps out, and the key under which it may still be."""

    key: str
    rule: str


@dataclass(kw_only=True, slots=True)
class Outcomes:
    """Ids by how they ended: exactly one way each."""

    upserted: int = 0
    gone: int = 0
    filtered: Counter[str] = field(default_factory=Counter)  # by rule
    failed: dict[int, str] = field(default_factory=dict)  # id: why

    @property
    def total(self) -> int:
        """All of them."""
        return self.upserted + self.gone + self.filtered.total() + len(self.failed)

    def add(self, other: Outcomes) -> None:
        """Add those of another batch."""
        self.upserted += other.upserted
        self.gone += other.gone
        self.filtered += other.filtered
        self.failed |= other.failed

    def to_json(self) -> dict[str, Any]:
        """Counts, and the first few of the ids that failed."""
        return {
            "upserted": self.upserted,
            "gone": self.gone,
            "filtered": dict(sorted(self.filtered.items())),
            "failed": len(self.failed),
            "failures": {str(key): self.failed[key] for key in sorted(self.failed)[:20]},
        }
