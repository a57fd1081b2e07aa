"""What many trainings of a run read: one copy per node, in Ray's object store, mapped read-only.

Only NumPy arrays are kept here, since Ray maps those into a worker without copying them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from diet_ray.logs.blocks import Blocks, Rows, read_block
from diet_ray.memory.rows import SyntheticRows
from diet_ray.models.embedding import EmbeddingTable
from diet_ray.training.reference import Reference
from diet_ray.training.shared_reference import SharedTable
from diet_ray.training.soft_rows import SoftRows


def warm_up_rows(rows: SyntheticRows, table: EmbeddingTable) -> SoftRows:
    """Synthetic rows as a warm-up takes them: embedded by phi_T's table."""
    return SoftRows(torch.from_numpy(rows.embeddings(table)), torch.from_numpy(rows.labels))


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
