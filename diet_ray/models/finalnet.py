"""FinalNet: stacked factorized interaction layers (Zhu et al., SIGIR 2023).

With two blocks each is a branch with a head of its own: the logits are the mean over both, and
in training each also learns that mean (`registry.DenseNetwork`). The zoo's batch norm is left
out, as everywhere in this package.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from diet_ray.config import NetworkSize, Section
from diet_ray.models.registry import register

HiddenUnits = Annotated[tuple[NetworkSize, ...], Field(min_length=1)]
ResidualType = Literal["concat", "sum"]


class FinalNetParameters(Section):
    block_type: Literal["1B", "2B"] = "2B"
    """One block or two."""
    use_feature_gating: bool = False
    """A gate per field and dimension before the first block."""
    block1_hidden_units: HiddenUnits = (64, 64, 64)
    block2_hidden_units: HiddenUnits = (64, 64, 64)
    """Not used with `1B`."""
    residual_type: ResidualType = "concat"
    """How a layer joins its linear half with the product: [h2, h1 * h2], or h2 + h1 * h2."""

    @model_validator(mode="after")
    def _halves_exist(self) -> FinalNetParameters:
        units = (*self.block1_hidden_units, *self.block2_hidden_units)
        if self.residual_type == "concat" and any(width % 2 for width in units):
            raise ValueError(
                "residual_type concat puts two halves side by side, so block1_hidden_units "
                f"{self.block1_hidden_units} and block2_hidden_units {self.block2_hidden_units} "
                "must be even; change them, or set residual_type: sum"
            )
        return self


class FeatureGating(nn.Module):
    """[X, X * G], G = W X + b over fields: (B, F, d) -> (B, 2 F, d); every gate starts at 1."""

    def __init__(self, fields: int) -> None:
        super().__init__()
        self.linear = nn.Linear(fields, fields)
        nn.init.zeros_(self.linear.weight)
        nn.init.ones_(self.linear.bias)

    def forward(self, embeddings: Tensor) -> Tensor:
        gates = self.linear(embeddings.transpose(1, 2)).transpose(1, 2)
        return torch.cat([embeddings, embeddings * gates], dim=1)


class FactorizedInteraction(nn.Module):
    """[h2, h1 * h2] or h2 + h1 * h2, where (h2, h1) = W x + b: (B, inputs) -> (B, outputs)."""

    def __init__(self, input_dim: int, output_dim: int, residual_type: ResidualType) -> None:
        super().__init__()
        self.residual_type = residual_type
        width = output_dim if residual_type == "concat" else 2 * output_dim
        self.linear = nn.Linear(input_dim, width)

    def forward(self, inputs: Tensor) -> Tensor:
        h2, h1 = self.linear(inputs).chunk(2, dim=1)
        if self.residual_type == "concat":
            return torch.cat([h2, h1 * h2], dim=1)
        return h2 + h1 * h2


class FinalBlock(nn.Module):
    """Factorized interactions, one after the other: (B, input_dim) -> (B, units[-1])."""

    def __init__(self, input_dim: int, units: Sequence[int], residual_type: ResidualType) -> None:
        super().__init__()
        self.layer = nn.Sequential(
            *(
                FactorizedInteraction(width_in, width_out, residual_type)
                for width_in, width_out in itertools.pairwise([input_dim, *units])
            )
        )
        self.output_dim = units[-1]

    def forward(self, inputs: Tensor) -> Tensor:
        return self.layer(inputs)


@register("finalnet", FinalNetParameters)
class FinalNet(nn.Module):
    """Embeddings (B, F, d) -> (B, block1_hidden_units[-1]), or one such branch per block."""

    output_dim: int | tuple[int, ...]

    def __init__(self, fields: int, embedding_dim: int, parameters: FinalNetParameters) -> None:
        super().__init__()
        input_dim, residual_type = fields * embedding_dim, parameters.residual_type
        gated = parameters.use_feature_gating
        self.feature_gating = FeatureGating(fields) if gated else nn.Identity()
        self.block1 = FinalBlock(
            2 * input_dim if gated else input_dim, parameters.block1_hidden_units, residual_type
        )
        self.output_dim = self.block1.output_dim
        self.block2: FinalBlock | None = None
        if parameters.block_type == "2B":
            self.block2 = FinalBlock(input_dim, parameters.block2_hidden_units, residual_type)
            self.output_dim = (self.block1.output_dim, self.block2.output_dim)

    def forward(self, embeddings: Tensor) -> Tensor | tuple[Tensor, ...]:
        first = self.block1(self.feature_gating(embeddings).flatten(1))
        if self.block2 is None:
            return first
        return first, self.block2(embeddings.flatten(1))
