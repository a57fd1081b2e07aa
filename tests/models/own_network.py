"""A network as a user of the package would write it, in a module of their own."""

from __future__ import annotations

from torch import Tensor, nn

from diet_ray.config import PositiveInt, Section
from diet_ray.models import register


class OwnParameters(Section):
    width: PositiveInt = 6


@register("own", OwnParameters)
class OwnNetwork(nn.Module):
    """Embeddings (B, F, d) -> (B, width)."""

    def __init__(self, fields: int, embedding_dim: int, parameters: OwnParameters) -> None:
        super().__init__()
        self.layer = nn.Linear(fields * embedding_dim, parameters.width)
        self.output_dim = parameters.width

    def forward(self, embeddings: Tensor) -> Tensor:
        return self.layer(embeddings.flatten(1)).tanh()


class NotRegistered(nn.Module):
    """A class that lacks the decorator."""
