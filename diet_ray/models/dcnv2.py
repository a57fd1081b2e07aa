"""DCNv2: the improved deep and cross network (Wang et al., WWW 2021), its parallel structure."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from diet_ray.config import NetworkSize, Section
from diet_ray.models.layers import MLPBlock
from diet_ray.models.registry import register


class DCNv2Parameters(Section):
    num_cross_layers: NetworkSize = 3
    parallel_dnn_hidden_units: Annotated[tuple[NetworkSize, ...], Field(min_length=1)] = (
        500,
        500,
        500,
    )
    """MLP beside the cross layers."""


class CrossNetV2(nn.Module):
    """x_{l+1} = x_l + x_0 * (W_l x_l + b_l), * element-wise: (B, D) -> (B, D)."""

    def __init__(self, input_dim: int, layers: int) -> None:
        super().__init__()
        self.cross_layers = nn.ModuleList(nn.Linear(input_dim, input_dim) for _ in range(layers))

    def forward(self, x_0: Tensor) -> Tensor:
        x_l = x_0
        for layer in self.cross_layers:
            x_l = x_l + x_0 * layer(x_l)
        return x_l


@register("dcnv2", DCNv2Parameters)
class DCNv2(nn.Module):
    """Embeddings (B, F, d) -> [cross network, MLP] (B, F d + units[-1])."""

    def __init__(self, fields: int, embedding_dim: int, parameters: DCNv2Parameters) -> None:
        super().__init__()
        input_dim = fields * embedding_dim
        self.crossnet = CrossNetV2(input_dim, parameters.num_cross_layers)
        self.parallel_dnn = MLPBlock(input_dim, parameters.parallel_dnn_hidden_units)
        self.output_dim = input_dim + self.parallel_dnn.output_dim

    def forward(self, embeddings: Tensor) -> Tensor:
        x_0 = embeddings.flatten(1)
        return torch.cat([self.crossnet(x_0), self.parallel_dnn(x_0)], dim=1)
