"""Synthetic rows in memory, with their lineage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np


@dataclass(frozen=True)
class SyntheticRows:
    """n synthetic rows: embedding and soft label are learned, the rest is lineage."""

    embeddings: np.ndarray  # (n, F, d) float32
    labels: np.ndarray  # (n, K) float32, logits
    stages: np.ndarray  # (n,) int32, the stage that added the row
    source_rows: np.ndarray  # (n,) int64, row id of the real row it started from
    anchors: np.ndarray  # (n, F) int32, ids of that real row

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, index: Any) -> SyntheticRows:
        """The rows at `index` (a slice, a mask or positions)."""
        return SyntheticRows(*(getattr(self, f.name)[index] for f in fields(self)))

    @staticmethod
    def concatenate(parts: Sequence[SyntheticRows]) -> SyntheticRows:
        """All rows of `parts`, in order; at least one part."""
        return SyntheticRows(
            *(np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(SyntheticRows))
        )
