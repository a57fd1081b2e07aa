"""The processes that train one model together, and how they share what each has computed.

A batch is cut into a fixed number of parts. Every worker computes an equal run of them, in order,
and everyone gets all of them back in order; so what is made of them does not depend on the number
of workers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain

import torch
import torch.distributed as dist
from torch import Tensor, nn


@dataclass(frozen=True)
class Workers:
    """This process among `count`; with more than one, torch's process group connects them."""

    rank: int = 0
    count: int = 1

    def own(self, parts: int) -> range:
        """This worker's among so many parts, a multiple of the number of workers."""
        each = parts // self.count
        return range(self.rank * each, (self.rank + 1) * each)

    def gather(self, own: Sequence[Tensor]) -> list[Tensor]:
        """Vectors of all parts, in order; own: those of this worker's parts, of any lengths."""
        if self.count == 1:
            return list(own)
        lengths = torch.tensor([len(vector) for vector in own], device=own[0].device)
        everyones = torch.cat(self._from_all(lengths)).tolist()
        longest = max(everyones)
        padded = torch.stack([nn.functional.pad(v, (0, longest - len(v))) for v in own])
        parts: Iterable[Tensor] = chain.from_iterable(self._from_all(padded))
        return [part[:length] for part, length in zip(parts, everyones, strict=True)]

    def _from_all(self, tensor: Tensor) -> list[Tensor]:
        found = [torch.empty_like(tensor) for _ in range(self.count)]
        dist.all_gather(found, tensor)
        return found
