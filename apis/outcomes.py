"""Outcomes of reading: sums that an API reported, and how each changed id ended. Pure."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from decimal import ROUND_HALF_EVEN, Context, Decimal
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

EXACT: Final = Context(prec=100, rounding=ROUND_HALF_EVEN)
NUMERIC_STEP: Final = Decimal("1e-9")


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """What Redis must hold for a key."""

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


@dataclass(kw_only=True, slots=True)
class Totals:
    """An API's totals so far: `sums` by the name of the column that holds them.

    `rounded`: amounts with more digits than NUMERIC holds, of which half a step may be lost.
    """

    rows: int = 0
    sums: dict[str, Decimal] = field(default_factory=dict)
    rounded: int = 0

    def add(self, column: str, value: Decimal | int) -> None:
        """Add to the sum of a column."""
        so_far = self.sums.get(column, Decimal(0))
        self.sums[column] = EXACT.add(so_far, Decimal(value))

    @property
    def tolerance(self) -> Decimal:
        """By how much the sum of what is stored may differ."""
        return self.rounded * NUMERIC_STEP / 2
