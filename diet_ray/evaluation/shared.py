"""What many trainings of a run read: one copy per node, in Ray's object store, mapped read-only.

Only NumPy arrays are kept here, since Ray maps those into a worker without copying them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from diet_ray.logs.blocks import Blocks, Rows, read_block
from diet_ray.memory.rows import SyntheticRows
from diet_ray.models.embedding import EmbeddingTable
from diet_ray.training.reference import Reference
from diet_ray.training.soft_rows import SoftRows


def warm_up_rows(rows: SyntheticRows, table: EmbeddingTable) -> SoftRows:
    """Synthetic rows as a warm-up takes them: embedded by phi_T's table."""
    return SoftRows(torch.from_numpy(rows.embeddings(table)), torch.from_numpy(rows.labels))


@dataclass(frozen=True)
class SharedTable:
    """phi_T's embedding vectors."""

    vectors: np.ndarray  # (ids of all fields, d) float32
    vocabulary_sizes: dict[str, int]
    embedding_std: float
    seed: int

    @staticmethod
    def of(reference: Reference, seed: int) -> SharedTable:
        """seed: of the vectors of ids that come later."""
        return SharedTable(
            vectors=reference.table.weight.detach().numpy(),
            vocabulary_sizes=dict(zip(reference.fields, reference.table.sizes, strict=True)),
            embedding_std=reference.models.embedding_std,
            seed=seed,
        )

    def frozen(self) -> EmbeddingTable:
        """A table over the same memory; it can be looked up, not trained."""
        return self._table(nn.Parameter(torch.from_numpy(self.vectors), requires_grad=False))

    def trainable(self) -> EmbeddingTable:
        """A table of one's own."""
        return self._table(nn.Parameter(torch.tensor(self.vectors)))

    def _table(self, weight: nn.Parameter) -> EmbeddingTable:
        empty = dict.fromkeys(self.vocabulary_sizes, 0)
        table = EmbeddingTable(empty, self.vectors.shape[1], self.embedding_std, self.seed)
        sizes = torch.tensor(list(self.vocabulary_sizes.values()), dtype=torch.int64)
        table.weight = weight
        table.offsets, table.limits = sizes.cumsum(0) - sizes, sizes
        table.sizes = sizes.tolist()
        return table


@dataclass(frozen=True)
class Shared:
    """phi_T's table and the rows that judge."""

    reference: SharedTable
    validation: Rows
    test: Rows

    @staticmethod
    def load(reference: Reference, blocks: Blocks, seed: int) -> Shared:
        """Read the rows; phi_T is given."""
        validation, test = (
            read_block(blocks, blocks.block(name)) for name in ("validation", "test")
        )
        return Shared(SharedTable.of(reference, seed), validation, test)
