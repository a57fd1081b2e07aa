"""A training's progressive loss: every batch's loss before its step, by share of the training."""

from __future__ import annotations

import numpy as np

PARTS = 60
"""Equal parts of the rows to come into which a curve is cut; of 3, 4, 5 and 6 it is a multiple."""


class LossCurve:
    """Mean loss of the rows of each of PARTS equal parts of a training.

    Every row is scored before the step that learns it, so the curve is that of rows not seen yet
    (prequential evaluation). A batch counts where it begins.
    """

    def __init__(self, rows: int) -> None:
        self._rows, self._seen = rows, 0
        self._sums, self._counts = np.zeros(PARTS), np.zeros(PARTS, dtype=np.int64)

    def add(self, rows: int, loss: float) -> None:
        """The mean loss of the next `rows` rows."""
        part = min(self._seen * PARTS // self._rows, PARTS - 1)
        self._sums[part] += rows * loss
        self._counts[part] += rows
        self._seen += rows

    def means(self) -> list[float]:
        """By part; of parts that are shorter than a batch, those without a beginning are left
        out."""
        filled = self._counts > 0
        return (self._sums[filled] / self._counts[filled]).tolist()
