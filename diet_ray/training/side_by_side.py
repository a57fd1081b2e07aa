"""Several models of one architecture trained side by side, as one stacked model.

A candidate is ranked by several seeds, on batches of a few rows, where a step is mostly the fixed
cost of its calls. Stacked (`torch.func`), the seeds take their steps in the same calls: eight of
them cost little more than one. Every model still learns from rows of its own and by its own
gradient alone, as it would by itself, up to the rounding of a batched product.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from diet_ray.training.model import Recommender


class SideBySide(nn.Module):
    """ids (S, B, F), labels (S, B, K) in [0, 1] -> every row's training loss (S, B).

    models: S of one architecture. Their parameters become slices of this module's, one memory, so
    that each of them can be asked for predictions at any time; they are trained here alone.
    """

    def __init__(self, models: Sequence[Recommender]) -> None:
        super().__init__()
        named = [dict(model.named_parameters()) for model in models]
        self._names = list(named[0])
        self.stacked = nn.ParameterList(
            torch.stack([own[name].detach() for own in named]) for name in self._names
        )
        for place, own in enumerate(named):
            for name, parameter in zip(self._names, self.stacked, strict=True):
                own[name].requires_grad_(False).data = parameter.data[place]
        self._losses = vmap(
            lambda parameters, ids, labels: functional_call(models[0], parameters, (ids, labels))
        )

    def forward(self, ids: Tensor, labels: Tensor) -> Tensor:
        parameters = dict(zip(self._names, self.stacked, strict=True))
        losses: Tensor = self._losses(parameters, ids, labels)
        return losses
