"""A published set as candidates are ranked on it (`training/cotrain.py`): its folder is enough.

What is read: the rows' anchors (the ids of the real rows that they started from), the reference's
soft labels of them, and the sample of the validation block with both kinds of labels. Neither the
log nor the reference is. The labels that the set learned are not taken: they were learned for a
warm-up on a finished table and order candidates no better (RESULTS.md), while a score compares with
the reference's own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from diet_ray.training.cotrain import CompactIds
from diet_ray.training.soft_rows import SoftRows


@dataclass(frozen=True)
class RankingSet:
    """Rows to train on and rows to ask about, both by compact ids."""

    sizes: tuple[int, ...]  # ids per field, with id 0
    ids: np.ndarray  # (n, F) int64
    labels: np.ndarray  # (n, K) float32, the reference's logits
    asked: tuple[np.ndarray, ...]  # ids (m, F) int64 of every block of rows to ask about

    @staticmethod
    def of(anchors: np.ndarray, labels: np.ndarray, *asked: np.ndarray) -> RankingSet:
        """anchors: the rows' ids (n, F); asked: ids (m, F), id 0 for those that no anchor has."""
        compact = CompactIds(anchors)
        return RankingSet(
            sizes=tuple(compact.sizes),
            ids=compact(anchors),
            labels=labels,
            asked=tuple(compact(ids) for ids in asked),
        )

    def soft_rows(self) -> SoftRows:
        """The rows to train on, over the same memory."""
        return SoftRows(torch.from_numpy(self.ids), torch.from_numpy(self.labels))
