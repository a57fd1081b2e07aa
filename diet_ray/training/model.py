"""A whole recommender: embedding table and dense network; and the epoch that trains it."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch import Tensor, nn

from diet_ray.logs.blocks import Rows
from diet_ray.models.embedding import EmbeddingTable
from diet_ray.models.modes import evaluating
from diet_ray.models.registry import DenseNetwork

PREDICTION_BATCH = 2_048
"""Rows; of more the activations no longer fit a core's cache, and a row takes a third longer."""


class Recommender(nn.Module):
    """ids (B, F) int64 -> logits (B, K); given labels (B, K), every row's training loss (B,)."""

    def __init__(self, table: EmbeddingTable, dense: DenseNetwork) -> None:
        super().__init__()
        self.table, self.dense = table, dense

    def forward(self, ids: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.dense(self.table(ids), labels)


def adam(model: nn.Module, learning_rate: float) -> torch.optim.Optimizer:
    """Adam over what of `model` is trained."""
    trained = [p for p in model.parameters() if p.requires_grad]
    return torch.optim.Adam(trained, lr=learning_rate, fused=True)


def train_epoch(
    model: nn.Module,
    batches: Iterable[Rows],
    learning_rate: float,
    *,
    rank: int = 0,
    world_size: int = 1,
    after_batch: Callable[[int, float], None] = lambda _rows, _loss: None,
) -> float:
    """One epoch of Adam over `batches`; returns the mean loss, each row scored before its step.

    With several data-parallel workers each takes a stripe of every batch, weighted so that the
    average of the workers' gradients is the gradient of the whole batch: N workers take the same
    steps as one, up to the order of summation. after_batch gets the batch's rows and the mean loss
    of this worker's stripe of it.
    """
    device = next(model.parameters()).device
    optimizer = adam(model, learning_rate)
    loss_sum, row_count = 0.0, 0
    for batch in batches:
        stripe = batch.take(slice(rank, None, world_size))
        ids, labels = (torch.from_numpy(array).to(device) for array in (stripe.ids, stripe.labels))
        losses = model(ids, labels)
        optimizer.zero_grad(set_to_none=True)
        (losses.sum() * (world_size / len(batch))).backward()
        optimizer.step()
        loss = float(losses.detach().sum())
        loss_sum += loss
        row_count += len(stripe)
        after_batch(len(batch), loss / max(len(stripe), 1))
    return loss_sum / max(row_count, 1)


@torch.no_grad()
def predict(model: nn.Module, ids: np.ndarray) -> np.ndarray:
    """Logits (n, K) float32 of ids (n, F), in eval mode; the model keeps the mode it is in."""
    device = next(model.parameters()).device
    with evaluating(model):
        parts = [
            model(torch.from_numpy(ids[start : start + PREDICTION_BATCH]).to(device)).cpu()
            for start in range(0, len(ids), PREDICTION_BATCH)
        ]
    return torch.cat(parts).numpy()
