"""DCN: the deep and cross network (Wang et al., ADKDD 2017)."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from diet_ray.config import NetworkSize, Section
from diet_ray.models.layers import MLPBlock
from diet_ray.models.registry import register


class DCNParameters(Section):
    num_cross_layers: NetworkSize = 3
    dnn_hidden_units: Annotated[tuple[NetworkSize, ...], Field(min_length=1)] = (1024, 512, 256)
    """MLP beside the cross layers."""


class CrossInteraction(nn.Module):
    """(w . x_l) x_0 + b, the increment of one cross layer; x_0, x_l (B, D)."""

    def __init__(self, input_dim: int) -> None:
        super().__init__()
        self.weight = nn.Linear(input_dim, 1, bias=False)
        self.bias = nn.Parameter(torch.zeros(input_dim))

    def forward(self, x_0: Tensor, x_l: Tensor) -> Tensor:
        return self.weight(x_l) * x_0 + self.bias


class CrossNet(nn.Module):
    """x_{l+1} = x_l + (w_l . x_l) x_0 + b_l: (B, D) -> (B, D)."""

    def __init__(self, input_dim: int, layers: int) -> None:
        super().__init__()
        self.cross_net = nn.ModuleList(CrossInteraction(input_dim) for _ in range(layers))

    def forward(self, x_0: Tensor) -> Tensor:
        x_l = x_0
        for layer in self.cross_net:
            x_l = x_l + layer(x_0, x_l)
        return x_l


@register("dcn", DCNParameters)
class DCN(nn.Module):
    """Embeddings (B, F, d) -> [cross network, MLP] (B, F d + units[-1])."""

    def __init__(self, fields: int, embedding_dim: int, parameters: DCNParameters) -> None:
        super().__init__()
        input_dim = fields * embedding_dim
        self.crossnet = CrossNet(input_dim, parameters.num_cross_layers)
        self.dnn = MLPBlock(input_dim, parameters.dnn_hidden_units)
        self.output_dim = input_dim + self.dnn.output_dim

    def forward(self, embeddings: Tensor) -> Tensor:
        x_0 = embeddings.flatten(1)
        return torch.cat([self.crossnet(x_0), self.dnn(x_0)], dim=1)
