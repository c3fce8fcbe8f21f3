"""Throws of the dice, from a seeded generator."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def happens(rng: np.random.Generator, share: float) -> bool:
    """Return True in that share of all cases."""
    return bool(rng.random() < share)


def some(rng: np.random.Generator, count: int, share: float) -> NDArray[np.bool_]:
    """Return a mask over `count` rows that is true for about that share of them."""
    return rng.random(count) < share


def some_and_one_at_least(rng: np.random.Generator, count: int, share: float) -> NDArray[np.bool_]:
    """Return a mask over `count` rows, not none, that is true for about that share and for one."""
    mask = some(rng, count, share)
    mask[rng.integers(0, count)] = True
    return mask
