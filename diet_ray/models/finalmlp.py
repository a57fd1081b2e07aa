"""FinalMLP: two gated MLP streams, fused by a bilinear form (Mao et al., AAAI 2023)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from diet_ray.config import NetworkSize, Section
from diet_ray.models.layers import MLPBlock
from diet_ray.models.registry import register

HiddenUnits = Annotated[tuple[NetworkSize, ...], Field(min_length=1)]


class FinalMLPParameters(Section):
    mlp1_hidden_units: HiddenUnits = (1024, 512)
    mlp2_hidden_units: HiddenUnits = (1024, 512, 256)
    use_fs: bool = True
    """Feature selection: a learned gate per stream on its input."""
    fs_hidden_units: tuple[NetworkSize, ...] = (64,)
    """MLP that makes a gate of its learned context."""
    num_heads: NetworkSize = 2
    """Equal parts into which each stream's output is cut before the bilinear form."""
    fusion_dim: NetworkSize = 64
    """R: width of the representation that the fusion puts out. The paper's fusion ends in the
    logit (R = 1); MMoE's experts and gates need a vector, so each of its R numbers is a fusion of
    its own. The bilinear weights are R * mlp1_hidden_units[-1] * mlp2_hidden_units[-1] / heads."""

    @model_validator(mode="after")
    def _heads_divide(self) -> FinalMLPParameters:
        for name in ("mlp1_hidden_units", "mlp2_hidden_units"):
            width = getattr(self, name)[-1]
            if width % self.num_heads:
                raise ValueError(
                    f"num_heads {self.num_heads} does not divide {width}, the last of {name}; "
                    "change one of them"
                )
        return self


class FeatureSelection(nn.Module):
    """x * 2 sigma(MLP(c)), c (1, d) learned, once per stream: (B, D) -> (B, D), (B, D)."""

    def __init__(self, input_dim: int, embedding_dim: int, units: Sequence[int]) -> None:
        super().__init__()
        self.fs1_ctx_bias = nn.Parameter(torch.zeros(1, embedding_dim))
        self.fs2_ctx_bias = nn.Parameter(torch.zeros(1, embedding_dim))
        self.fs1_gate = MLPBlock(embedding_dim, units, input_dim)
        self.fs2_gate = MLPBlock(embedding_dim, units, input_dim)

    def forward(self, x_0: Tensor) -> tuple[Tensor, Tensor]:
        gate_1 = 2 * torch.sigmoid(self.fs1_gate(self.fs1_ctx_bias))
        gate_2 = 2 * torch.sigmoid(self.fs2_gate(self.fs2_ctx_bias))
        return x_0 * gate_1, x_0 * gate_2


class InteractionAggregation(nn.Module):
    """w_x . x + w_y . y + sum over heads h of x_h^T W_h y_h, R times: (B, X), (B, Y) -> (B, R).

    w_xy holds W[h, i, r, j], flattened to (H X/H Y/H, R).
    """

    def __init__(self, x_dim: int, y_dim: int, output_dim: int, heads: int) -> None:
        super().__init__()
        self.heads, self.output_dim = heads, output_dim
        self.w_x = nn.Linear(x_dim, output_dim)
        self.w_y = nn.Linear(y_dim, output_dim)
        self.w_xy = nn.Parameter(torch.empty(x_dim * y_dim // heads, output_dim))
        nn.init.xavier_normal_(self.w_xy)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        x_heads = x.unflatten(1, (self.heads, -1)).transpose(0, 1)  # (H, B, X/H)
        y_heads = y.unflatten(1, (self.heads, -1)).transpose(0, 1)  # (H, B, Y/H)
        weights = self.w_xy.view(self.heads, x_heads.shape[2], -1)  # (H, X/H, R Y/H)
        forms = (x_heads @ weights).unflatten(2, (self.output_dim, -1))  # (H, B, R, Y/H)
        bilinear = (forms @ y_heads[..., None])[..., 0].sum(dim=0)
        return self.w_x(x) + self.w_y(y) + bilinear


@register("finalmlp", FinalMLPParameters)
class FinalMLP(nn.Module):
    """Embeddings (B, F, d) -> fused streams (B, fusion_dim)."""

    def __init__(self, fields: int, embedding_dim: int, parameters: FinalMLPParameters) -> None:
        super().__init__()
        input_dim = fields * embedding_dim
        self.mlp1 = MLPBlock(input_dim, parameters.mlp1_hidden_units)
        self.mlp2 = MLPBlock(input_dim, parameters.mlp2_hidden_units)
        self.fs_module = (
            FeatureSelection(input_dim, embedding_dim, parameters.fs_hidden_units)
            if parameters.use_fs
            else None
        )
        self.output_dim = parameters.fusion_dim
        self.fusion_module = InteractionAggregation(
            self.mlp1.output_dim, self.mlp2.output_dim, self.output_dim, parameters.num_heads
        )

    def forward(self, embeddings: Tensor) -> Tensor:
        x_0 = embeddings.flatten(1)
        stream_1, stream_2 = (x_0, x_0) if self.fs_module is None else self.fs_module(x_0)
        return self.fusion_module(self.mlp1(stream_1), self.mlp2(stream_2))
