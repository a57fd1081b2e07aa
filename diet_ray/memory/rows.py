"""Synthetic rows in memory: the real row that each started from, and what was learned on top."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from diet_ray.models.embedding import EmbeddingTable  # with torch, which a server does without


@dataclass(frozen=True)
class SyntheticRows:
    """n synthetic rows: embedding = E(anchor) + delta. Label and delta are learned, the rest is
    lineage. A row that has no delta needs no room for one."""

    anchors: np.ndarray  # (n, F) int32, ids of the real row it started from
    labels: np.ndarray  # (n, K) float32, logits
    taught: np.ndarray  # (n, K) float32, the reference's own logits of the anchor
    stages: np.ndarray  # (n,) int32, the stage that added the row
    source_rows: np.ndarray  # (n,) int64, row id of the real row
    moved: np.ndarray  # (n,) bool, the row has a delta
    deltas: np.ndarray  # (m, F, d) float32, of the rows that have one, in their order

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, index: Any) -> SyntheticRows:
        """The rows at `index` (a slice, a mask or positions)."""
        moved = self.moved[index]
        plain = {f.name: getattr(self, f.name)[index] for f in fields(self) if f.name != "deltas"}
        return SyntheticRows(**plain, deltas=self.deltas[self._place[index][moved]])

    @cached_property
    def _place(self) -> np.ndarray:
        """Where in `deltas` a row's own lies, if it has one; (n,) int32. Kept, so that taking a
        batch of many rows costs what the batch does."""
        return np.cumsum(self.moved, dtype=np.int32) - 1

    def with_deltas(self, deltas: np.ndarray) -> SyntheticRows:
        """The rows, each with a delta of its own; deltas (n, F, d)."""
        return replace(self, moved=np.ones(len(self), dtype=bool), deltas=deltas)

    def dense_deltas(self) -> np.ndarray:
        """Every row's delta, (n, F, d) float32; zeros for a row that has none."""
        found = np.zeros((len(self), *self.deltas.shape[1:]), dtype=np.float32)
        found[self.moved] = self.deltas
        return found

    def embeddings(self, table: EmbeddingTable) -> np.ndarray:
        """E(anchor) + delta of every row, (n, F, d) float32."""
        found = table.look_up(self.anchors)
        found[self.moved] += self.deltas
        return found

    @staticmethod
    def concatenate(parts: Sequence[SyntheticRows]) -> SyntheticRows:
        """All rows of `parts`, in order; at least one part."""
        return SyntheticRows(
            *(np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(SyntheticRows))
        )


def unmoved(width: tuple[int, int], rows: int) -> dict[str, np.ndarray]:
    """`moved` and `deltas` of rows that have no delta; width: (F, d)."""
    return {"moved": np.zeros(rows, dtype=bool), "deltas": np.zeros((0, *width), np.float32)}
