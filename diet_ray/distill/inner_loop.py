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

    Adam's root is sqrt(v + EPSILON^2) instead of sqrt(v) + EPSILON: equal up to EPSILON, and it
    has a derivative at v = 0, where every parameter behind a dead unit sits.
    """
    if inner.optimizer == "sgd":
        return (state[0] - inner.learning_rate * gradient,)
    theta, first, second = state
    first = BETA_1 * first + (1 - BETA_1) * gradient
    second = BETA_2 * second + (1 - BETA_2) * gradient * gradient
    corrected_first = first / (1 - BETA_1 ** (step + 1))
    corrected_second = second / (1 - BETA_2 ** (step + 1))
    root = torch.sqrt(corrected_second + EPSILON**2)
    return theta - inner.learning_rate * corrected_first / root, first, second


def inner_loss(
    network: FlatNetwork, theta: Tensor, embeddings: Tensor, labels: Tensor, weights: Tensor
) -> Tensor:
    """Mean weighted training loss of a batch of synthetic rows, as a candidate's warm-up has it.

    labels (B, K), logits; weights (B,).
    """
    losses = network.training_losses(theta, embeddings, torch.sigmoid(labels))
    return (losses * weights).mean()


def inner_batches(
    rows: int, batch_size: int, steps: int, generator: torch.Generator
) -> list[Tensor]:
    """Positions of the rows in each of `steps` batches, epoch after shuffled epoch, as a candidate
    trains."""
    batches: list[Tensor] = []
    while len(batches) < steps:
        batches += torch.randperm(rows, generator=generator).split(batch_size)
    return batches[:steps]
