"""How the driver names rows: all of a block or memory as a `range`, a part as a sorted array."""

from __future__ import annotations

import numpy as np

Positions = range | np.ndarray
"""Ascending whole numbers; as an array int64 (n,)."""


def pick(positions: Positions, index: np.ndarray) -> np.ndarray:
    """positions[index], int64 (m,)."""
    if isinstance(positions, range):
        return positions.start + index.astype(np.int64)
    return positions[index]


def part(positions: Positions, first: int, end: int) -> np.ndarray:
    """positions[first:end], int64."""
    return np.asarray(positions[first:end], dtype=np.int64)
