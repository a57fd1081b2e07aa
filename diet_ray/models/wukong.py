"""WuKong: stacked factorization machines (Zhang et al., ICML 2024)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from diet_ray.config import NetworkSize, Section
from diet_ray.models.layers import MLPBlock
from diet_ray.models.registry import register


class WuKongParameters(Section):
    num_layers: NetworkSize = 3
    fmb_features: NetworkSize = 40
    """Embeddings that a layer's factorization-machine block puts out."""
    lcb_features: NetworkSize = 40
    """Embeddings that a layer's linear-compress block puts out."""
    rank: NetworkSize = 8
    """k: columns of the projection Y in X (X^T Y)."""
    fmb_units: Annotated[tuple[NetworkSize, ...], Field(min_length=1)] = (512, 256)
    mlp_hidden_units: Annotated[tuple[NetworkSize, ...], Field(min_length=1)] = (512, 256)
    """The MLP on top of the last layer."""


class FactorizationMachineBlock(nn.Module):
    """MLP(LN(flatten(X (X^T Y)))): (B, n, d) -> (B, features, d), Y (n, k) learned.

    The MLP's last layer is linear, as the paper's formula has it; the zoo puts a ReLU behind it.
    """

    def __init__(
        self, inputs: int, features: int, dim: int, rank: int, units: Sequence[int]
    ) -> None:
        super().__init__()
        self.features, self.dim = features, dim
        self.proj_Y = nn.Parameter(torch.empty(inputs, rank))
        nn.init.xavier_uniform_(self.proj_Y)
        self.layer_norm = nn.LayerNorm(inputs * rank)
        self.mlp = MLPBlock(inputs * rank, units, features * dim)

    def forward(self, x: Tensor) -> Tensor:
        interactions = x @ (x.transpose(1, 2) @ self.proj_Y)  # (B, n, k)
        outputs = self.mlp(self.layer_norm(interactions.flatten(1)))
        return outputs.unflatten(1, (self.features, self.dim))


class FieldLinear(nn.Module):
    """Linear over fields, no bias: (B, n, d) -> (B, features, d)."""

    def __init__(self, inputs: int, features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(features, inputs))
        nn.init.xavier_uniform_(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.weight @ x


class LinearCompressionBlock(nn.Module):
    """Linear over fields, no bias: (B, n, d) -> (B, features, d)."""

    def __init__(self, inputs: int, features: int) -> None:
        super().__init__()
        self.linear = FieldLinear(inputs, features)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x)


class WuKongLayer(nn.Module):
    """LN([FMB, LCB] + residual); the residual is projected where the number of fields differs.

    The zoo's projection has a bias, the same for all d numbers of an embedding: the norm over the
    embedding takes it away again, so there is none here.
    """

    def __init__(self, inputs: int, dim: int, parameters: WuKongParameters) -> None:
        super().__init__()
        self.outputs = parameters.fmb_features + parameters.lcb_features
        self.fmb = FactorizationMachineBlock(
            inputs, parameters.fmb_features, dim, parameters.rank, parameters.fmb_units
        )
        self.lcb = LinearCompressionBlock(inputs, parameters.lcb_features)
        differs = inputs != self.outputs
        self.residual_proj = FieldLinear(inputs, self.outputs) if differs else nn.Identity()
        self.layer_norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        blocks = torch.cat([self.fmb(x), self.lcb(x)], dim=1)
        return self.layer_norm(blocks + self.residual_proj(x))


@register("wukong", WuKongParameters)
class WuKong(nn.Module):
    """Embeddings (B, F, d) -> MLP of the last layer (B, mlp_hidden_units[-1])."""

    def __init__(self, fields: int, embedding_dim: int, parameters: WuKongParameters) -> None:
        super().__init__()
        outputs = parameters.fmb_features + parameters.lcb_features
        widths = [fields] + [outputs] * (parameters.num_layers - 1)
        self.wukong_stack = nn.Sequential(
            *(WuKongLayer(inputs, embedding_dim, parameters) for inputs in widths)
        )
        self.fc = MLPBlock(outputs * embedding_dim, parameters.mlp_hidden_units)
        self.output_dim = self.fc.output_dim

    def forward(self, embeddings: Tensor) -> Tensor:
        return self.fc(self.wukong_stack(embeddings).flatten(1))
