"""A network as a user of the package would write it, in a module of their own."""

from __future__ import annotations

import itertools

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


class Whole(nn.Module):
    """No decorator: embeddings (B, F, d) -> logits (B, K), with BatchNorm and dropout."""

    def __init__(
        self,
        fields: int,
        embedding_dim: int,
        tasks: int,
        units: list[int],
        dropout: float = 0.1,
        activation: type[nn.Module] = nn.ReLU,
    ) -> None:
        super().__init__()
        units.insert(0, fields * embedding_dim)  # an argument is the network's own to change
        layers: list[nn.Module] = [nn.Flatten(), nn.BatchNorm1d(units[0])]
        for width_in, width_out in itertools.pairwise(units):
            layers += [nn.Linear(width_in, width_out), activation(), nn.Dropout(dropout)]
        self.layers = nn.Sequential(*layers, nn.Linear(units[-1], tasks))

    def forward(self, embeddings: Tensor) -> Tensor:
        return self.layers(embeddings)


class Plain(nn.Module):
    """Embeddings (B, F, d) -> logits (B, K), a pure function of its parameters."""

    def __init__(self, tasks: int, fields: int, embedding_dim: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(fields * embedding_dim, 6)
        self.logits = nn.Linear(6, tasks)

    def forward(self, embeddings: Tensor) -> Tensor:
        return self.logits(self.hidden(embeddings.flatten(1)).tanh())


class TakesAny(Plain):
    """Hands on whatever it is given."""

    def __init__(self, **arguments: int) -> None:
        super().__init__(arguments.pop("k"), arguments.pop("f"), arguments.pop("d"))
        self.arguments = arguments


def no_class() -> nn.Module:
    return nn.Identity()
