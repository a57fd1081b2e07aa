"""Training written out: one row after the other, as slow and obvious as it can be."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from diet_ray.models.registry import DenseNetwork
from diet_ray.training.model import Recommender


def row_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Binary cross-entropy of one row's logits (K,) against targets (K,), mean over tasks."""
    p = torch.sigmoid(logits)
    return -(targets * p.log() + (1 - targets) * (1 - p).log()).mean()


def logits_of_embedding(dense: DenseNetwork) -> Callable[[Tensor], Tensor]:
    """Embeddings (F, d) of one row to its logits (K,)."""
    return lambda embedding: dense(embedding[None])[0]


def logits_of_ids(model: Recommender) -> Callable[[Tensor], Tensor]:
    """Ids (F,) of one row to its logits (K,): every field's vector, then the dense network."""

    def forward(ids: Tensor) -> Tensor:
        tables = model.table.weight.split(model.table.sizes)
        vectors = [table[number] for table, number in zip(tables, ids.tolist(), strict=True)]
        return model.dense(torch.stack(vectors)[None])[0]

    return forward


def train(
    forward: Callable[[Tensor], Tensor],
    optimizer: torch.optim.Optimizer,
    inputs: Tensor,
    targets: Tensor,
    batches: Iterable[Sequence[int]],
) -> list[tuple[int, float]]:
    """A step for every batch of row numbers; returns every batch's rows and loss before its step.

    inputs (n, ..), targets (n, K) in [0, 1].
    """
    told = []
    for batch in batches:
        loss = torch.zeros((), dtype=targets.dtype)
        for row in batch:
            loss = loss + row_loss(forward(inputs[row]), targets[row]) / len(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        told.append((len(batch), loss.item()))
    return told


def shuffled(rows: int, batch_size: int, generator: torch.Generator) -> list[list[int]]:
    """Row numbers by batch, in the generator's order."""
    order = torch.randperm(rows, generator=generator).tolist()
    return [order[start : start + batch_size] for start in range(0, rows, batch_size)]
