"""The meta-gradient: a loss after an unrolled inner loop, differentiated back to the data.

RaT-BPTT (Feng et al., 2023; paper, section 4.2.2): of N inner steps only the last W are
differentiated. No graph of the unroll is kept. The forward pass stores the W states before each
differentiated step; the backward pass walks them in reverse with the adjoint lambda =
d loss / d state. At one step, with g = grad_theta inner_loss(theta; S):

    (a, c)    = adjoint of the element-wise optimiser update w.r.t. (state, g), applied to lambda
    dS       += d<g, c> / dS            one double backward
    lambda   <- a + d<g, c> / d theta   on one batch

So memory is W states and one batch's activations, whatever W is. For SGD this is
lambda <- lambda - eta H lambda and dS -= eta d<g, lambda>/dS.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from diet_ray.config import InnerConfig
from diet_ray.distill.inner_loop import State, initial_state, inner_loss, update
from diet_ray.models.functional import FlatNetwork, row_losses

Batch = tuple[Tensor, Tensor]
"""Embeddings and labels of the rows of an inner step."""


@dataclass(frozen=True)
class MetaGradient:
    """Derivatives of the outer loss by the synthetic rows."""

    embeddings: Tensor  # (m, F, d)
    labels: Tensor  # (m, K)
    touched: Tensor  # (m,) bool: the row was in a differentiated batch
    outer_loss: float  # of the proxy after the unroll, on the targets


def meta_gradient(
    network: FlatNetwork,
    theta: Tensor,
    embeddings: Tensor,
    labels: Tensor,
    batches: list[Tensor],
    target_embeddings: Tensor,
    target_labels: Tensor,
    inner: InnerConfig,
) -> MetaGradient:
    """d outer loss / d (embeddings, labels) through the last `inner.window` of the inner steps.

    theta (P,), the proxy's start; embeddings (m, F, d) and labels (m, K), logits, of the active
    rows; batches: positions of the rows of each inner step; targets: real rows, their labels 0/1.
    """
    first_differentiated = max(len(batches) - inner.window, 0)
    state = initial_state(theta.detach(), inner)
    states: list[State] = []
    for step, batch in enumerate(batches):
        if step >= first_differentiated:
            states.append(state)
        rows = embeddings[batch], labels[batch]
        state = _inner_step(network, state, rows, step, inner)
    adjoint, outer_loss = _outer_adjoint(network, state, target_embeddings, target_labels)
    result = MetaGradient(
        torch.zeros_like(embeddings),
        torch.zeros_like(labels),
        torch.zeros(len(labels), dtype=torch.bool, device=labels.device),
        outer_loss,
    )
    for step in range(len(batches) - 1, first_differentiated - 1, -1):
        batch = batches[step]
        adjoint, by_embeddings, by_labels = _step_back(
            network, states.pop(), adjoint, (embeddings[batch], labels[batch]), step, inner
        )
        result.embeddings[batch] += by_embeddings
        result.labels[batch] += by_labels
        result.touched[batch] = True
    return result


def _inner_step(
    network: FlatNetwork, state: State, rows: Batch, step: int, inner: InnerConfig
) -> State:
    theta = state[0].detach().requires_grad_(True)
    loss = inner_loss(network, theta, *rows)
    gradient = torch.autograd.grad(loss, theta)[0]
    return update(state, gradient, step, inner)


def _outer_adjoint(
    network: FlatNetwork, state: State, embeddings: Tensor, labels: Tensor
) -> tuple[State, float]:
    """d outer loss / d state (zero for the moments), and the loss."""
    theta = state[0].detach().requires_grad_(True)
    loss = row_losses(network(theta, embeddings), labels).mean()
    by_theta = torch.autograd.grad(loss, theta)[0]
    return (by_theta, *(torch.zeros_like(moment) for moment in state[1:])), float(loss.detach())


def _step_back(
    network: FlatNetwork,
    state: State,
    adjoint: State,
    batch: Batch,
    step: int,
    inner: InnerConfig,
) -> tuple[State, Tensor, Tensor]:
    """The adjoint before a step, and the step's share of the gradients of its batch."""
    theta, rows, soft = (x.detach().requires_grad_(True) for x in (state[0], *batch))
    loss = inner_loss(network, theta, rows, soft)
    gradient = torch.autograd.grad(loss, theta, create_graph=True)[0]
    variables = [x.detach().requires_grad_(True) for x in (*state, gradient)]
    updated = update(tuple(variables[:-1]), variables[-1], step, inner)
    *by_state, by_gradient = torch.autograd.grad(updated, variables, adjoint)
    through_gradient, by_rows, by_soft = torch.autograd.grad(
        gradient, [theta, rows, soft], by_gradient
    )
    return (by_state[0] + through_gradient, *by_state[1:]), by_rows, by_soft
