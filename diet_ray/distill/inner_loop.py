"""The proxy's inner loop: optimiser steps as pure, differentiable functions of flat vectors.

A state is a tuple of vectors (P,): (theta,) for SGD, (theta, first moment, second moment) for
Adam. An update maps (state, gradient) to the next state by element-wise operations only, so its
adjoint is element-wise too.
"""

from __future__ import annotations

import torch
from torch import Tensor

from diet_ray.config import InnerConfig
from diet_ray.models.functional import FlatNetwork

State = tuple[Tensor, ...]

BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-8


def initial_state(theta: Tensor, inner: InnerConfig) -> State:
    """The optimiser's state before its first step."""
    if inner.optimizer == "sgd":
        return (theta,)
    return (theta, torch.zeros_like(theta), torch.zeros_like(theta))


def update(state: State, gradient: Tensor, step: int, inner: InnerConfig) -> State:
    """The state after step number `step`, counted from 0.

    Adam's is that of `torch.optim.Adam`, a candidate's optimiser, to the last bits: on logs of
    real size a good part of the second moments lies at or below EPSILON^2, where another root
    leads to another theta_N.
    """
    if inner.optimizer == "sgd":
        return (state[0] - inner.learning_rate * gradient,)
    theta, first, second = state
    first = BETA_1 * first + (1 - BETA_1) * gradient
    second = BETA_2 * second + (1 - BETA_2) * gradient * gradient
    step_size = inner.learning_rate / (1 - BETA_1 ** (step + 1))
    root = _root(second) / (1 - BETA_2 ** (step + 1)) ** 0.5
    return theta - step_size * first / (root + EPSILON), first, second


def _root(second: Tensor) -> Tensor:
    """sqrt(v), with derivative 0 instead of infinity at v = 0.

    Every parameter behind a dead unit sits there. Its gradient does not depend on anything, so 0
    is right: infinity times that would be NaN.
    """
    positive = second > 0
    return torch.where(positive, torch.sqrt(torch.where(positive, second, 1)), 0)


def inner_loss(network: FlatNetwork, theta: Tensor, embeddings: Tensor, labels: Tensor) -> Tensor:
    """Mean training loss of a batch of synthetic rows, as a candidate's warm-up has it.

    embeddings (B, F, d); labels (B, K), logits.
    """
    return network.training_losses(theta, embeddings, torch.sigmoid(labels)).mean()


def inner_batches(
    rows: int, batch_size: int, steps: int, generator: torch.Generator
) -> list[Tensor]:
    """Positions of the rows in each of `steps` batches, epoch after shuffled epoch, as a candidate
    trains."""
    batches: list[Tensor] = []
    while len(batches) < steps:
        batches += torch.randperm(rows, generator=generator).split(batch_size)
    return batches[:steps]
