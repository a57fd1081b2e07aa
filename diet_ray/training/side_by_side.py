"""Several models of one architecture trained side by side, as one stacked model.

A candidate is ranked by several seeds, on batches of a few rows, where a step is mostly the fixed
cost of its calls. Stacked (`torch.func`), the seeds take their steps in the same calls: four of
them cost about 1.7 times one (RESULTS.md). Every model still learns from rows of its own and by
its own gradient alone, as it would by itself, up to the rounding of a batched product.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from diet_ray.training.model import Recommender


class SideBySide(nn.Module):
    """ids (S, B, F), labels (S, B, K) in [0, 1] -> every row's training loss (S, B).

    models: S of one architecture. Their parameters and buffers become slices of this module's, one
    memory, so that each of them can be asked for predictions at any time; they are trained here
    alone.
    """

    def __init__(self, models: Sequence[Recommender]) -> None:
        super().__init__()
        parameters = _stacked([dict(model.named_parameters()) for model in models])
        self._names, self.stacked = list(parameters), nn.ParameterList(parameters.values())
        self._buffers_by_name = _stacked([dict(model.named_buffers()) for model in models])
        for model in models:
            model.requires_grad_(False)
        self._losses = vmap(
            lambda parameters, buffers, ids, labels: functional_call(
                models[0], (parameters, buffers), (ids, labels)
            ),
            randomness="different",
        )

    def forward(self, ids: Tensor, labels: Tensor) -> Tensor:
        parameters = dict(zip(self._names, self.stacked, strict=True))
        losses: Tensor = self._losses(parameters, self._buffers_by_name, ids, labels)
        return losses


def _stacked(of_models: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """By name, what the models hold, stacked (S, ..); theirs become slices of it."""
    found = {}
    for name in of_models[0]:
        found[name] = torch.stack([own[name].detach() for own in of_models])
        for own, part in zip(of_models, found[name], strict=True):
            own[name].data = part
    return found
