"""A dense network as a pure function of one flat parameter vector.

Meta-gradients, influence and alignment speak of theta as one vector: its snapshots, directions
and adjoints are arrays of one length P that are added, compared and sent between processes. The
order of the parameters in theta is the order of `named_parameters()`.

Differentiate once forward (JVP) or twice backward. Reverse over forward mode and nested JVPs are
wrong through torch's layer norm (pytorch issue 196700), without an error.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import binary_cross_entropy_with_logits


class FlatNetwork:
    """logits = network(theta, embeddings), theta (P,), differentiable in both."""

    def __init__(self, network: nn.Module) -> None:
        parameters = dict(network.named_parameters())
        self.names = list(parameters)
        self.shapes = [p.shape for p in parameters.values()]
        self.sizes = [p.numel() for p in parameters.values()]
        self._network = network.requires_grad_(False)

    @property
    def parameter_count(self) -> int:
        """P."""
        return sum(self.sizes)

    def __call__(self, theta: Tensor, embeddings: Tensor) -> Tensor:
        return self._call(theta, embeddings)

    def training_losses(self, theta: Tensor, embeddings: Tensor, labels: Tensor) -> Tensor:
        """What a training step on each row would lower, (B,); labels (B, K) in [0, 1]."""
        return self._call(theta, embeddings, labels)

    def _call(self, theta: Tensor, *inputs: Tensor) -> Tensor:
        parts = theta.split(self.sizes)
        parameters = {
            name: part.view(shape)
            for name, part, shape in zip(self.names, parts, self.shapes, strict=True)
        }
        return functional_call(self._network, parameters, inputs)


def flatten_parameters(network: nn.Module) -> Tensor:
    """theta (P,), a detached copy of the network's parameters."""
    return torch.cat([p.detach().reshape(-1) for p in network.parameters()])


def row_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """l(theta; e, y) of every row: binary cross-entropy, mean over the K tasks.

    logits (B, K); labels (B, K) in [0, 1], soft or hard. Returns (B,).
    """
    return binary_cross_entropy_with_logits(logits, labels, reduction="none").mean(dim=1)


def mean_logits(branches: Sequence[Tensor]) -> Tensor:
    """The prediction of a network whose branches each put out logits (B, K)."""
    return branches[0] if len(branches) == 1 else torch.stack(list(branches)).mean(dim=0)


def training_losses(
    branches: Sequence[Tensor], labels: Tensor, *, independent: bool = False
) -> Tensor:
    """The loss that a network with these branches is trained on, of every row, (B,).

    That of the mean logits; with several branches, each of which also learns the mean
    prediction, plus `taught_losses` of each (FinalNet, section 2.3). For independent branches the
    mean over their own losses.
    """
    if independent:
        return torch.stack([row_losses(branch, labels) for branch in branches]).mean(dim=0)
    logits = mean_logits(branches)
    losses = row_losses(logits, labels)
    if len(branches) == 1:
        return losses
    return losses + sum(taught_losses(branch, logits) for branch in branches)


def taught_losses(logits: Tensor, teacher: Tensor) -> Tensor:
    """`row_losses` of logits against sigmoid(teacher), a constant to the gradient.

    logits, teacher (B, K); returns (B,). The second derivative sees the teacher: a step's
    gradient depends on theta through it too, and the meta-gradient differentiates the step.
    ``teacher.detach()`` would hide that.
    """
    return _TaughtLosses.apply(logits, teacher)


class _TaughtLosses(torch.autograd.Function):
    """Its first derivatives leave the teacher out; its backward pass can be differentiated."""

    generate_vmap_rule = True

    @staticmethod
    def forward(logits: Tensor, teacher: Tensor) -> Tensor:
        return row_losses(logits, torch.sigmoid(teacher))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], _: Tensor) -> None:
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        logits, teacher = ctx.saved_tensors
        errors = torch.sigmoid(logits) - torch.sigmoid(teacher)
        return gradient[:, None] * errors / logits.shape[1], None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, _: Tensor | None) -> Tensor:
        logits, teacher = ctx.saved_tensors
        return ((torch.sigmoid(logits) - torch.sigmoid(teacher)) * tangent).mean(dim=1)
