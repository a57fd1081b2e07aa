"""Networks of one's own, to be named in a space as `tests.search.networks:Raising`; most of them go
wrong."""

from __future__ import annotations

import os
from pathlib import Path

from torch import Tensor, nn

from diet_ray.config import Section
from diet_ray.models import register


class NoParameters(Section):
    pass


@register("raising", NoParameters)
class Raising(nn.Module):
    """Fails in its forward pass."""

    def __init__(self, fields: int, embedding_dim: int, _: NoParameters) -> None:
        super().__init__()
        self.output_dim = fields * embedding_dim

    def forward(self, embeddings: Tensor) -> Tensor:
        raise ArithmeticError(f"planted failure\nfor {len(embeddings)} rows")


class FragileParameters(Section):
    marker: str
    """File that the first attempt leaves behind before it takes its worker along."""


@register("fragile", FragileParameters)
class Fragile(nn.Module):
    """Its first attempt ends the worker's process."""

    def __init__(self, fields: int, embedding_dim: int, parameters: FragileParameters) -> None:
        super().__init__()
        self.output_dim = fields * embedding_dim
        marker = Path(parameters.marker)
        if not marker.exists():
            marker.touch()
            os._exit(1)

    def forward(self, embeddings: Tensor) -> Tensor:
        return embeddings.flatten(1)


@register("doomed", NoParameters)
class Doomed(nn.Module):
    """Ends the worker's process at every attempt."""

    def __init__(self, *_: object) -> None:
        super().__init__()
        os._exit(1)


@register("normed", NoParameters)
class Normed(nn.Module):
    """Goes right, and remembers more than its parameters: the mean of what it saw."""

    def __init__(self, fields: int, embedding_dim: int, _: NoParameters) -> None:
        super().__init__()
        self.output_dim = fields * embedding_dim
        self.norm = nn.BatchNorm1d(self.output_dim)

    def forward(self, embeddings: Tensor) -> Tensor:
        return self.norm(embeddings.flatten(1))
