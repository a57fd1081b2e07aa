"""Slow, obvious twins of what a distillation computes."""

from __future__ import annotations

import torch
from torch import Tensor

from diet_ray.config import InnerConfig

State = dict[str, Tensor]
"""What torch.optim.Adam keeps of one parameter."""


def adam_start(theta: Tensor) -> State:
    """The state before the first step; its count of steps is as precise as theta."""
    moments = {name: torch.zeros_like(theta) for name in ("exp_avg", "exp_avg_sq")}
    return {"step": torch.zeros((), dtype=theta.dtype), **moments}


def adam_step(
    theta: Tensor, gradient: Tensor, state: State, inner: InnerConfig
) -> tuple[Tensor, State]:
    """One step of torch.optim.Adam that leaves a graph behind, back to all its arguments.

    Where a parameter has had no gradient yet, torch's derivative is 0 * infinity. Behind a dead
    unit nothing moves the gradient, so there it counts as 0.
    """
    theta, state = theta.clone(), {name: tensor.clone() for name, tensor in state.items()}
    optimizer = torch.optim.Adam([theta], lr=inner.learning_rate, differentiable=True)
    optimizer.state[theta] = state
    theta.grad = gradient.clone()
    if gradient.requires_grad:
        theta.grad.register_hook(lambda found: found.nan_to_num(0.0))
    optimizer.step()
    return theta, state
