"""The meta-gradient: a loss after an unrolled inner loop, differentiated back to the data.

RaT-BPTT (Feng et al., 2023; paper, section 4.2.2): of N inner steps only the last W are
differentiated. They are walked back with the adjoint lambda = d loss / d state. At one step, with
g = grad_theta inner_loss(theta; S):

    (a, c)    = adjoint of the element-wise optimiser update w.r.t. (state, g), applied to lambda
    dS       += d<g, c> / dS            one double backward
    lambda   <- a + d<g, c> / d theta   on one batch

For SGD this is lambda <- lambda - eta H lambda and dS -= eta d<g, lambda>/dS.

No graph of the unroll is kept, nor the W states. The way forward keeps a state at the start of
each of W / L segments of L steps; the way back takes them in reverse, walks a segment's steps once
more and keeps their states and the graphs of their gradients. So memory is W / L + L states and
L batches' activations. The last segment is walked only once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from diet_ray.config import InnerConfig
from diet_ray.distill.inner_loop import (
    State,
    initial_state,
    inner_loss,
    update,
    update_adjoint,
)
from diet_ray.models.functional import FlatNetwork, row_losses

RECORDED = 2
"""What a recorded step holds, its gradient's graph included, in states of Adam. At batches of 128:
1.6 (DCN) and 1.8 (WuKong) at their default sizes, 2.4 and 4.8 at configs/kuairand_pure.yaml's. It
decides how long segments are, nothing else."""


@dataclass(frozen=True)
class MetaGradient:
    """Derivatives of the outer loss by the synthetic rows."""

    embeddings: Tensor | None  # (m, F, d); None: not asked for
    labels: Tensor  # (m, K)
    touched: Tensor  # (m,) bool: the row was in a differentiated batch
    outer_loss: float  # of the proxy after the unroll, on the targets


@dataclass(frozen=True)
class InnerLoop:
    """What the steps of an unroll have in common."""

    network: FlatNetwork
    embeddings: Tensor  # (m, F, d)
    labels: Tensor  # (m, K), logits
    batches: list[Tensor]  # positions of each step's rows
    inner: InnerConfig
    learn_embeddings: bool


@dataclass(frozen=True)
class Step:
    """A differentiated step: the state before it, and the graph of its gradient."""

    number: int
    state: State
    variables: list[Tensor]  # theta, the batch's labels and, if they are learned, its embeddings
    gradient: Tensor  # (P,), with the graph back to the variables


def meta_gradient(
    network: FlatNetwork,
    theta: Tensor,
    embeddings: Tensor,
    labels: Tensor,
    batches: list[Tensor],
    target_embeddings: Tensor,
    target_labels: Tensor,
    inner: InnerConfig,
    *,
    learn_embeddings: bool = True,
) -> MetaGradient:
    """d outer loss / d (embeddings, labels) through the last `inner.window` of the inner steps.

    theta (P,), the proxy's start; embeddings (m, F, d) and labels (m, K), logits, of the active
    rows; batches: positions of the rows of each inner step, none twice in a batch; targets: real
    rows, their labels 0/1; learn_embeddings: whether to differentiate by the embeddings, too.
    """
    loop = InnerLoop(network, embeddings, labels, batches, inner, learn_embeddings)
    segments = _segments(len(batches), inner.window)
    *starts, end = _walk(loop, initial_state(theta, inner), segments)
    adjoint, outer_loss = _outer_adjoint(network, end, target_embeddings, target_labels)
    del end
    result = MetaGradient(
        torch.zeros_like(embeddings) if learn_embeddings else None,
        torch.zeros_like(labels),
        torch.zeros(len(labels), dtype=torch.bool, device=labels.device),
        outer_loss,
    )
    while segments:
        _walk_back(loop, _record(loop, starts.pop(), segments.pop()), adjoint, result)
    return result


def _segments(steps: int, window: int) -> list[range]:
    """The last `window` of the steps in segments; only the first may be shorter.

    With W / L states at their starts and L recorded steps, memory is least at
    L = sqrt(W / RECORDED).
    """
    first = max(steps - window, 0)
    length = max(round(math.sqrt((steps - first) / RECORDED)), 1)
    return [range(max(end - length, first), end) for end in range(steps, first, -length)][::-1]


def _walk(loop: InnerLoop, state: State, segments: list[range]) -> list[State]:
    """The states at the segments' starts and the one at the end; `state`, the first, moves."""
    starts, kept = {segment.start for segment in segments}, []
    for number, batch in enumerate(loop.batches):
        if number in starts:
            kept.append(_copy(state))
        theta = state[0].detach().requires_grad_(True)
        rows = loop.embeddings[batch], loop.labels[batch]
        update(state, _gradient(loop.network, theta, *rows), number, loop.inner)
    return [*kept, state]


def _record(loop: InnerLoop, state: State, segment: range) -> list[Step]:
    """The steps of a segment that starts at `state`."""
    steps: list[Step] = []
    for number in segment:
        if steps:
            state = _copy(state)
            update(state, steps[-1].gradient.detach(), number - 1, loop.inner)
        batch = loop.batches[number]
        rows = loop.embeddings[batch].requires_grad_(loop.learn_embeddings)
        theta, soft = (x.detach().requires_grad_(True) for x in (state[0], loop.labels[batch]))
        gradient = _gradient(loop.network, theta, rows, soft, graph=True)
        variables = [theta, soft, rows] if loop.learn_embeddings else [theta, soft]
        steps.append(Step(number, state, variables, gradient))
    return steps


def _gradient(
    network: FlatNetwork, theta: Tensor, rows: Tensor, soft: Tensor, *, graph: bool = False
) -> Tensor:
    """grad_theta inner_loss (P,), with a graph or without."""
    loss = inner_loss(network, theta, rows, soft)
    return torch.autograd.grad(loss, theta, create_graph=graph)[0]


def _copy(state: State) -> State:
    return tuple(vector.clone() for vector in state)


def _outer_adjoint(
    network: FlatNetwork, state: State, embeddings: Tensor, labels: Tensor
) -> tuple[State, float]:
    """d outer loss / d state (zero for the moments), and the loss."""
    theta = state[0].detach().requires_grad_(True)
    loss = row_losses(network(theta, embeddings), labels).mean()
    by_theta = torch.autograd.grad(loss, theta)[0]
    return (by_theta, *(torch.zeros_like(moment) for moment in state[1:])), float(loss.detach())


def _walk_back(loop: InnerLoop, steps: list[Step], adjoint: State, result: MetaGradient) -> None:
    """Turn the adjoint, in place, into the one before the steps; add their share to the result.

    The steps are used up, and with each its graph.
    """
    while steps:
        step = steps.pop()
        through = update_adjoint(
            adjoint, step.state, step.gradient.detach(), step.number, loop.inner
        )
        by_theta, by_labels, *by_rows = torch.autograd.grad(step.gradient, step.variables, through)
        adjoint[0].add_(by_theta)
        batch = loop.batches[step.number]
        result.labels[batch] += by_labels
        result.touched[batch] = True
        if result.embeddings is not None:
            result.embeddings[batch] += by_rows[0]
