"""The processes that train one model together, and how they share what each has computed.

A batch is cut into a fixed number of parts. Every worker computes a run of them, in order, as long
as the others' or one longer, and everyone gets all of them back in order; so what is made of them
does not depend on the number of workers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import ray
import torch
import torch.distributed as dist
from torch import Tensor, nn


@dataclass(frozen=True)
class Workers:
    """This process among `count`; with more than one, torch's process group connects them."""

    rank: int = 0
    count: int = 1

    def own(self, parts: int) -> range:
        """This worker's among so many parts, at least as many as there are workers."""
        first, end = (rank * parts // self.count for rank in (self.rank, self.rank + 1))
        return range(first, end)

    def gather(self, own: Sequence[Tensor], parts: int) -> list[Tensor]:
        """Vectors of all so many parts, in order; own: those of this worker's, of any lengths."""
        if self.count == 1:
            return list(own)
        most = -(-parts // self.count)  # torch gathers equal shapes only
        filled = [*own, *(own[0][:0] for _ in range(most - len(own)))]
        lengths = torch.tensor([len(vector) for vector in filled], device=own[0].device)
        everyones = torch.cat(self._from_all(lengths)).tolist()
        longest = max(everyones)
        padded = torch.stack([nn.functional.pad(v, (0, longest - len(v))) for v in filled])
        found = torch.cat(self._from_all(padded))
        filled_parts = [
            rank * most + place
            for rank in range(self.count)
            for place in range(len(Workers(rank, self.count).own(parts)))
        ]
        return [found[place][: everyones[place]] for place in filled_parts]

    def nodes(self, device: torch.device) -> frozenset[str]:
        """Ids (hex) of the nodes that they run on; asked by all of them at once, of `device`."""
        own = bytes.fromhex(ray.get_runtime_context().get_node_id())
        vector = torch.tensor(list(own), dtype=torch.uint8, device=device)
        return frozenset(bytes(v.tolist()).hex() for v in self.gather([vector], self.count))

    def _from_all(self, tensor: Tensor) -> list[Tensor]:
        found = [torch.empty_like(tensor) for _ in range(self.count)]
        dist.all_gather(found, tensor)
        return found
