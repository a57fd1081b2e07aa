"""Multi-gate mixture of experts (Ma et al., KDD 2018), the multi-task head of every network."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from diet_ray.config import MMoEConfig
from diet_ray.models.layers import GroupedMLP


class MMoE(nn.Module):
    """Representation (B, R) -> logits (B, K).

    y_k = tower_k( sum over experts e of softmax(gate_k(x))_e expert_e(x) )
    """

    def __init__(self, input_dim: int, tasks: int, config: MMoEConfig) -> None:
        super().__init__()
        self.experts = GroupedMLP(config.experts, input_dim, config.expert_units)
        self.gates = GroupedMLP(tasks, input_dim, config.gate_units, config.experts)
        self.towers = GroupedMLP(tasks, self.experts.output_dim, config.tower_units, 1)

    def forward(self, inputs: Tensor) -> Tensor:
        experts = self.experts(inputs[None])  # (E, B, width)
        gates = torch.softmax(self.gates(inputs[None]), dim=2)  # (K, B, E)
        mixed = torch.einsum("kbe,ebw->kbw", gates, experts)
        return self.towers(mixed)[:, :, 0].T
