"""Rows with soft labels, and the epoch that trains a dense network on them.

Both uses of a distilled set take such rows: embeddings to warm up on (`candidate.py`, by this
epoch), ids to co-train on (`cotrain.py`, by steps of its own).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class SoftRows:
    """n rows of a reduced training set."""

    inputs: Tensor  # embeddings (n, F, d) float32, or ids (n, F) int64
    labels: Tensor  # (n, K) float32 soft labels, as logits

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device) -> SoftRows:
        """The rows where they are to be trained on."""
        return SoftRows(self.inputs.to(device), self.labels.to(device))


def soft_epoch(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    rows: SoftRows,
    batch_size: int,
    generator: torch.Generator,
    after_batch: Callable[[int, float], None] = lambda _rows, _loss: None,
) -> None:
    """One pass over the rows in the generator's order.

    model: (inputs, labels in [0, 1]) to every row's training loss (B,). after_batch gets a batch's
    rows and its mean loss before the step.
    """
    order = torch.randperm(len(rows), generator=generator)
    for batch in order.split(batch_size):
        loss = model(rows.inputs[batch], torch.sigmoid(rows.labels[batch])).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        after_batch(len(batch), float(loss.detach()))
