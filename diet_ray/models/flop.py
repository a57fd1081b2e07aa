"""What one row costs a dense network, in floating-point operations."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from diet_ray.models.modes import evaluating


def forward_flop(network: nn.Module, fields: int, embedding_dim: int) -> float:
    """Floating-point operations of one forward pass, per row, in eval mode.

    network: embeddings (B, fields, embedding_dim) -> logits. What torch counts is counted: matrix
    products, convolutions and attention, a multiply-add as two; nothing element by element. What
    is computed once per batch, whatever its rows, is not part of it. NaN where the network cannot
    be counted.
    """
    try:
        with evaluating(network):
            fewer, more = (_batch_flop(network, rows, fields, embedding_dim) for rows in (2, 4))
    except Exception:  # a network of anyone's own: whatever it does not like about being counted
        return math.nan
    return (more - fewer) / 2


@torch.no_grad()
def _batch_flop(network: nn.Module, rows: int, fields: int, embedding_dim: int) -> int:
    like = next(network.parameters())
    embeddings = torch.zeros(rows, fields, embedding_dim, dtype=like.dtype, device=like.device)
    with FlopCounterMode(display=False) as counter:
        network(embeddings)
    return counter.get_total_flops()
