"""Several networks side by side on one embedding table, as a stronger reference.

What a dense-only warm-up cannot give a candidate lies in the embeddings that it inherits. A table
that several architectures trained together serves each of them better than one that a single
architecture bent to its own needs, and the mean of their predictions is a better teacher.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator
from torch import Tensor, nn

from diet_ray.config import NetworkConfig, Section
from diet_ray.models.registry import build_interaction, is_whole, parameters_of, register


class EnsembleParameters(Section):
    networks: Annotated[list[NetworkConfig], Field(min_length=2)]
    """The members; the same network may stand there twice."""

    @model_validator(mode="after")
    def _members_are_known(self) -> EnsembleParameters:
        for network in self.networks:
            parameters_of(network)
            if is_whole(network):
                raise ValueError(
                    f"{network.name!r} puts out logits itself, a member needs a head of ours; "
                    "decorate the class with diet_ray.models.register"
                )
        return self


@register("ensemble", EnsembleParameters)
class Ensemble(nn.Module):
    """Embeddings (B, F, d) -> every member's representations, each a branch with its own head.

    The logits are the mean over branches; in training every branch learns the labels by itself.
    """

    independent_branches = True

    def __init__(self, fields: int, embedding_dim: int, parameters: EnsembleParameters) -> None:
        super().__init__()
        members = [build_interaction(n, fields, embedding_dim) for n in parameters.networks]
        widths: list[int] = []
        for member in members:
            width = member.output_dim
            widths += [width] if isinstance(width, int) else width
        self.members = nn.ModuleList(members)
        self.output_dim = tuple(widths)

    def forward(self, embeddings: Tensor) -> tuple[Tensor, ...]:
        branches: list[Tensor] = []
        for member in self.members:
            found = member(embeddings)
            branches += [found] if isinstance(found, Tensor) else found
        return tuple(branches)
