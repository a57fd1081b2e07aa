"""The proxy's inner loop: optimiser steps on flat vectors, and their adjoints.

A state is a tuple of vectors (P,): (theta,) for SGD, (theta, first moment, second moment) for
Adam. An update maps (state, gradient) to the next state by element-wise operations only, so its
adjoint is element-wise too. Both work in place and, on a CPU, on blocks that stay in its cache:
for a network of millions of parameters on a batch of a hundred rows, a step that wrote every
intermediate vector to memory would cost more than the gradient itself.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from diet_ray.config import InnerConfig
from diet_ray.models.functional import FlatNetwork

State = tuple[Tensor, ...]

BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-8

BLOCK = 65_536
"""Elements of a vector that a CPU works on at a time: few enough for its cache, and so many that a
call's fixed cost does not count."""


def initial_state(theta: Tensor, inner: InnerConfig) -> State:
    """The optimiser's state before its first step; theta is copied."""
    theta = theta.detach().clone()
    if inner.optimizer == "sgd":
        return (theta,)
    return (theta, torch.zeros_like(theta), torch.zeros_like(theta))


def update(state: State, gradient: Tensor, step: int, inner: InnerConfig) -> None:
    """Turn a state, in place, into the state after step number `step`, counted from 0.

    Adam's is that of `torch.optim.Adam`, a candidate's optimiser, to the last bits: on logs of
    real size a good part of the second moments lies at or below EPSILON^2, where another root
    leads to another theta_N.
    """
    if inner.optimizer == "sgd":
        state[0].sub_(gradient * inner.learning_rate)
        return
    for theta, first, second, by_loss in _blocks(*state, gradient):
        denominator, _ = _moments(first, second, by_loss, step)
        theta.sub_((first * _step_size(step, inner)).div_(denominator))


def update_adjoint(
    adjoint: State, state: State, gradient: Tensor, step: int, inner: InnerConfig
) -> Tensor:
    """Turn `adjoint`, in place, from d loss / d (state after a step) into d loss / d state as far
    as it does not go through the gradient; d loss / d gradient is returned, (P,).

    state, gradient: before and at step number `step`; they stay as they are.
    """
    if inner.optimizer == "sgd":
        return adjoint[0].neg().mul_(inner.learning_rate)
    through = torch.empty_like(gradient)
    for block in _blocks(*adjoint, *state[1:], gradient, through):
        _adam_adjoint(block, step, inner)
    return through


def _adam_adjoint(block: tuple[Tensor, ...], step: int, inner: InnerConfig) -> None:
    """`update_adjoint` of a block of adjoint, moments, gradient and, last, what receives d loss /
    d gradient.

    The derivative of sqrt(v) at v = 0 counts as 0 instead of infinity. Every parameter behind a
    dead unit sits there. Its gradient does not depend on anything, so 0 is right: infinity times
    that would be NaN.
    """
    by_theta, by_first, by_second, first, second, gradient, through = block
    step_size, first, second = _step_size(step, inner), first.clone(), second.clone()
    denominator, root = _moments(first, second, gradient, step)
    by_first.add_((by_theta / denominator).neg_().mul_(step_size))
    by_root = first.mul_(step_size).div_(denominator).div_(denominator).mul_(by_theta)
    by_root.div_(_root_scale(step)).div_(root.mul_(2)).masked_fill_(second == 0, 0)
    by_second.add_(by_root)
    torch.mul(gradient * (1 - BETA_2), by_second, out=through)
    through.add_((by_second * gradient).mul_(1 - BETA_2)).add_(by_first * (1 - BETA_1))
    by_first.mul_(BETA_1)
    by_second.mul_(BETA_2)


def _moments(first: Tensor, second: Tensor, gradient: Tensor, step: int) -> tuple[Tensor, Tensor]:
    """Move both moments, in place; what the step is divided by, and the root in it."""
    first.mul_(BETA_1).add_(gradient * (1 - BETA_1))
    second.mul_(BETA_2).add_((gradient * (1 - BETA_2)).mul_(gradient))
    root = second.sqrt()
    return (root / _root_scale(step)).add_(EPSILON), root


def _step_size(step: int, inner: InnerConfig) -> float:
    return inner.learning_rate / (1 - BETA_1 ** (step + 1))


def _root_scale(step: int) -> float:
    return (1 - BETA_2 ** (step + 1)) ** 0.5


def _blocks(*vectors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """The same stretch of every vector, one after another; a device's memory takes all at once."""
    size = BLOCK if vectors[0].device.type == "cpu" else len(vectors[0])
    return zip(*(vector.split(size) for vector in vectors), strict=True)


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
