"""The table vectors that a training of known rows will touch, and no others.

Adam moves a vector from its first gradient on, in every step, and before that not at all. So with
the vectors in the order of the steps that first touch them, a step's dense update of all tables is
one of the first so many of them, bit for bit, and a vector that no row of the training holds costs
nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from diet_ray.models.embedding import EmbeddingTable


class TouchedVectors:
    """The vectors (n, d) of S tables of one shape, by the step that first touches each."""

    def __init__(self, tables: Sequence[EmbeddingTable], ids: Tensor) -> None:
        """ids: int64 (steps, S, B, F), what every model's rows hold, below the tables' sizes."""
        self._tables, first = list(tables), tables[0]
        count = len(first.weight)
        starts = count * torch.arange(len(tables), device=ids.device)[:, None, None]
        keys = (ids + first.offsets + starts).cpu().numpy()
        known, first_seen, inverse = np.unique(keys, return_index=True, return_inverse=True)
        order = np.argsort(first_seen)
        place = np.empty_like(order)
        place[order] = np.arange(len(order))
        device = first.weight.device
        self._keys = torch.from_numpy(known[order]).to(device)
        self._places = torch.from_numpy(place[inverse.reshape(keys.shape)]).to(device)
        last = self._places.flatten(1).amax(dim=1).cummax(dim=0).values
        self.counts: list[int] = (last + 1).tolist()
        """By step, vectors that have been touched after it."""
        self.vectors = torch.cat([table.weight.detach() for table in tables])[self._keys]

    def look_up(self, step: int) -> Tensor:
        """Embeddings (S, B, F, d) of a step's rows."""
        return torch.nn.functional.embedding(self._places[step], self.vectors)

    def gradient(self, step: int, of_embeddings: Tensor) -> Tensor:
        """That of the first `counts[step]` vectors, from that of the step's embeddings."""
        return torch.ops.aten.embedding_dense_backward(
            of_embeddings, self._places[step], self.counts[step], -1, False
        )

    @torch.no_grad()
    def write_back(self) -> None:
        """Into the tables."""
        count = len(self._tables[0].weight)
        for number, table in enumerate(self._tables):
            own = self._keys // count == number
            table.weight[self._keys[own] - number * count] = self.vectors[own]
