"""The embedding table: one vector per id of every field.

The vectors of all fields lie one after the other in a single parameter, so that a lookup, its
gradient and an optimiser step are one operation each. A table grows between blocks, as the
vocabularies do: old ids keep their vectors, new ones get fresh ones.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from diet_ray.seeds import torch_generator

ROWS_AT_ONCE = 65_536
"""Of a pass over the table in float64, so that no second table is held."""


class EmbeddingTable(nn.Module):
    """ids (B, F) int64 -> embeddings (B, F, d) float32.

    vocabulary_sizes: ids per field, in field order; id 0 ("not in the vocabulary") is the zero
    vector and stays it, since no training row holds it. A fresh vector is a pure function of
    (seed, field, id range), normal with standard deviation `std`. An id that a later vocabulary
    added, and this table has not grown to hold, counts as id 0.
    """

    offsets: Tensor
    limits: Tensor

    def __init__(
        self, vocabulary_sizes: Mapping[str, int], embedding_dim: int, std: float, seed: int
    ) -> None:
        super().__init__()
        self.fields = tuple(vocabulary_sizes)
        self.embedding_dim, self._std, self._seed = embedding_dim, std, seed
        self.register_buffer("offsets", torch.zeros(len(self.fields), dtype=torch.int64))
        self.register_buffer("limits", torch.zeros(len(self.fields), dtype=torch.int64))
        self.weight = nn.Parameter(torch.empty(0, embedding_dim))
        self.sizes = [0] * len(self.fields)
        self.grow(vocabulary_sizes)

    def forward(self, ids: Tensor) -> Tensor:
        return nn.functional.embedding(self.places(ids), self.weight)

    def places(self, ids: Tensor) -> Tensor:
        """Where in `weight` the ids (B, F) lie, int64 (B, F)."""
        return torch.where(ids < self.limits, ids, 0) + self.offsets

    @torch.no_grad()
    def look_up(self, ids: np.ndarray) -> np.ndarray:
        """Vectors of ids (n, F) of any integer type, (n, F, d) float32, outside of any graph."""
        found: np.ndarray = self(torch.from_numpy(ids.astype(np.int64))).cpu().numpy()
        return found

    @torch.no_grad()
    def grow(self, vocabulary_sizes: Mapping[str, int]) -> None:
        """Append fresh vectors up to the new sizes. Raises ValueError for a shrinking field."""
        sizes = [vocabulary_sizes[name] for name in self.fields]
        parts = []
        for name, old, new, vectors in zip(
            self.fields, self.sizes, sizes, self.by_field().values(), strict=True
        ):
            if new < old:
                raise ValueError(f"field {name}: {new} ids, but its table holds {old} already")
            parts += [vectors, self._fresh(name, old, new).to(vectors)]
        self._replace(parts, sizes)

    def _fresh(self, name: str, first: int, end: int) -> Tensor:
        generator = torch_generator(self._seed, "embedding", name, first)
        vectors = torch.randn(end - first, self.embedding_dim, generator=generator) * self._std
        if first == 0 and end:
            vectors[0] = 0
        return vectors

    def _replace(self, parts: Sequence[Tensor], sizes: list[int]) -> None:
        starts = torch.tensor([0, *sizes[:-1]], dtype=torch.int64).cumsum(0)
        self.weight = nn.Parameter(torch.cat(list(parts)))
        self.offsets = starts.to(self.weight.device)
        self.limits = torch.tensor(sizes, dtype=torch.int64, device=self.weight.device)
        self.sizes = sizes

    def by_field(self) -> dict[str, Tensor]:
        """Each field's vectors, (vocabulary, d); views into the table."""
        return dict(zip(self.fields, self.weight.detach().split(self.sizes), strict=True))

    @torch.no_grad()
    def load(self, vectors: Mapping[str, Tensor]) -> None:
        """Replace the whole table by each field's vectors."""
        parts = [vectors[name] for name in self.fields]
        self._replace(parts, [len(part) for part in parts])

    def standard_deviation(self) -> float:
        """Of all entries: the unit in which steps on embeddings are stated."""
        parts = self.weight.detach().split(ROWS_AT_ONCE)
        count = self.weight.numel()
        mean = sum(float(part.double().sum()) for part in parts) / count
        squares = sum(float((part.double() - mean).square().sum()) for part in parts)
        return math.sqrt(squares / (count - 1))
