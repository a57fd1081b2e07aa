"""Networks of a user's own that cannot be used, or not everywhere."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tests.models.own_network import Plain


class NoForward(nn.Module):
    """Forgot it."""


class Raises(Plain):
    def forward(self, embeddings: Tensor) -> Tensor:
        raise ArithmeticError("planted\nfailure")


class BadConstructor(Plain):
    def __init__(self, tasks: int, fields: int, embedding_dim: int, heads: int = 3) -> None:
        if embedding_dim % heads:
            raise ValueError(f"{heads} heads do not divide {embedding_dim}")
        super().__init__(tasks, fields, embedding_dim)


class OneLogit(Plain):
    def __init__(self, fields: int, embedding_dim: int) -> None:
        super().__init__(1, fields, embedding_dim)


class ReturnsDict(Plain):
    def forward(self, embeddings: Tensor) -> Any:
        return {"y_pred": super().forward(embeddings)}


class Lookup(Plain):
    """Takes ids (B, F), as a whole recommender does."""

    def __init__(self, tasks: int, fields: int, embedding_dim: int) -> None:
        super().__init__(tasks, fields, embedding_dim)
        self.table = nn.Embedding(100, embedding_dim)

    def forward(self, embeddings: Tensor) -> Tensor:
        return super().forward(self.table(embeddings))


class RoundedLookup(Lookup):
    """Makes ids of whatever it gets."""

    def forward(self, embeddings: Tensor) -> Tensor:
        ids = embeddings.long().abs().clamp(max=99)[:, :, 0]
        return super().forward(ids)


class Detached(Plain):
    def forward(self, embeddings: Tensor) -> Tensor:
        return super().forward(embeddings.detach())


class Lazy(nn.Module):
    def __init__(self, tasks: int) -> None:
        super().__init__()
        self.linear = nn.LazyLinear(tasks)

    def forward(self, embeddings: Tensor) -> Tensor:
        return self.linear(embeddings.flatten(1))


class Frozen(Plain):
    def __init__(self, tasks: int, fields: int, embedding_dim: int) -> None:
        super().__init__(tasks, fields, embedding_dim)
        self.hidden.bias.requires_grad_(False)


class Dropping(Plain):
    """A fine candidate, no proxy."""

    def forward(self, embeddings: Tensor) -> Tensor:
        return super().forward(nn.functional.dropout(embeddings, 0.5, self.training))


class Normalising(Plain):
    """A fine candidate, no proxy."""

    def __init__(self, tasks: int, fields: int, embedding_dim: int) -> None:
        super().__init__(tasks, fields, embedding_dim)
        self.norm = nn.BatchNorm1d(fields)

    def forward(self, embeddings: Tensor) -> Tensor:
        return super().forward(self.norm(embeddings))


class _Once(torch.autograd.Function):
    """The identity, without forward mode."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor) -> Tensor:
        return inputs.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient


class OnceDifferentiable(Plain):
    """A fine candidate, no proxy; nor can `vmap` take it."""

    def forward(self, embeddings: Tensor) -> Tensor:
        return super().forward(_Once.apply(embeddings))
