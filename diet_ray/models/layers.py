"""Layers that several networks share."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn


class MLPBlock(nn.Module):
    """Linear layers with ReLU after each, then a linear layer to `output_dim` if that is given:
    (B, input_dim) -> (B, output_dim or units[-1])."""

    def __init__(self, input_dim: int, units: Sequence[int], output_dim: int | None = None) -> None:
        super().__init__()
        widths = [input_dim, *units]
        layers: list[nn.Module] = []
        for width_in, width_out in itertools.pairwise(widths):
            layers += [nn.Linear(width_in, width_out), nn.ReLU()]
        if output_dim is not None:
            layers.append(nn.Linear(widths[-1], output_dim))
        self.mlp = nn.Sequential(*layers)
        self.output_dim = widths[-1] if output_dim is None else output_dim

    def forward(self, inputs: Tensor) -> Tensor:
        return self.mlp(inputs)


class GroupedMLP(nn.Module):
    """G multi-layer perceptrons of one shape, side by side: (G or 1, B, input_dim) -> (G, B, out).

    ReLU after each layer of `units`; then a linear layer to `output_dim` if that is given. One
    batched product per layer instead of G small ones: MMoE's experts, gates and towers are many
    and small, and a call's fixed cost would dominate.
    """

    def __init__(
        self, groups: int, input_dim: int, units: Sequence[int], output_dim: int | None = None
    ) -> None:
        super().__init__()
        widths = [input_dim, *units, *([] if output_dim is None else [output_dim])]
        self.weights = nn.ParameterList()
        self.biases = nn.ParameterList()
        for width_in, width_out in itertools.pairwise(widths):
            bound = 1 / math.sqrt(width_in)  # nn.Linear's initialisation
            self.weights.append(torch.empty(groups, width_in, width_out).uniform_(-bound, bound))
            self.biases.append(torch.empty(groups, 1, width_out).uniform_(-bound, bound))
        self.groups = groups
        self.output_dim = widths[-1]
        self._rectified = len(units)

    def forward(self, inputs: Tensor) -> Tensor:
        outputs = inputs.expand(self.groups, -1, -1)
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            outputs = torch.baddbmm(bias, outputs, weight)
            if layer < self._rectified:
                outputs = outputs.relu()
        return outputs
