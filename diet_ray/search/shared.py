"""What all trials of a sweep read: one copy per node, in Ray's object store, mapped read-only.

Only NumPy arrays are kept here, since Ray maps those into a worker without copying them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from diet_ray.config import ModelsConfig, ProtocolConfig, RunConfig
from diet_ray.logs.blocks import Blocks, Rows, read_block
from diet_ray.memory import artifact
from diet_ray.models.embedding import EmbeddingTable
from diet_ray.training.candidate import WarmUpRows
from diet_ray.training.reference import load_reference, reference_uri


@dataclass(frozen=True)
class SharedData:
    """The distilled set, phi_T's embedding vectors, the validation rows, and the protocol."""

    embeddings: np.ndarray  # (n, F, d) float32, of the distilled set
    labels: np.ndarray  # (n, K) float32, logits
    weights: np.ndarray  # (n,) float32
    vectors: np.ndarray  # (ids of all fields, d) float32
    vocabulary_sizes: dict[str, int]  # of phi_T
    validation: Rows
    tasks: tuple[str, ...]
    models: ModelsConfig
    protocol: ProtocolConfig
    seed: int
    threads: int

    def warm_up_rows(self) -> WarmUpRows:
        """The distilled set as tensors over the same memory."""
        return WarmUpRows(
            torch.from_numpy(self.embeddings),
            torch.from_numpy(self.labels),
            torch.from_numpy(self.weights),
        )

    def table(self) -> EmbeddingTable:
        """phi_T's table over the same memory; it can be looked up, not trained."""
        empty = dict.fromkeys(self.vocabulary_sizes, 0)
        table = EmbeddingTable(empty, self.vectors.shape[1], self.models.embedding_std, self.seed)
        sizes = torch.tensor(list(self.vocabulary_sizes.values()), dtype=torch.int64)
        table.weight = nn.Parameter(torch.from_numpy(self.vectors), requires_grad=False)
        table.offsets, table.limits = sizes.cumsum(0) - sizes, sizes
        table.sizes = sizes.tolist()
        return table


def load_shared(config: RunConfig, blocks: Blocks, distilled: str) -> SharedData:
    """Read what the trials share; `distilled` is the URI of S_T. Raises ArtifactError."""
    artifact.check_fits(distilled, blocks.fields, config.models.embedding_dim)
    reference = load_reference(reference_uri(config, len(blocks.historical)))
    rows = artifact.read(distilled)
    return SharedData(
        embeddings=rows.embeddings,
        labels=rows.labels,
        weights=rows.weights,
        vectors=reference.table.weight.detach().numpy(),
        vocabulary_sizes=dict(zip(reference.fields, reference.table.sizes, strict=True)),
        validation=read_block(blocks, blocks.block("validation")),
        tasks=blocks.tasks,
        models=config.models,
        protocol=config.evaluation.protocol,
        seed=config.seed,
        threads=config.threads,
    )
