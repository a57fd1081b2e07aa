"""A dense network as a pure function of one flat parameter vector.

Meta-gradients, influence and alignment speak of theta as one vector: its snapshots, directions
and adjoints are arrays of one length P that are added, compared and sent between processes. The
order of the parameters in theta is the order of `named_parameters()`.

Differentiate once forward (JVP) or twice backward. Reverse over forward mode and nested JVPs are
wrong through torch's layer norm (pytorch issue 196700), without an error.
"""

from __future__ import annotations

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
        parts = theta.split(self.sizes)
        parameters = {
            name: part.view(shape)
            for name, part, shape in zip(self.names, parts, self.shapes, strict=True)
        }
        return functional_call(self._network, parameters, (embeddings,))


def flatten_parameters(network: nn.Module) -> Tensor:
    """theta (P,), a detached copy of the network's parameters."""
    return torch.cat([p.detach().reshape(-1) for p in network.parameters()])


def row_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """l(theta; e, y) of every row: binary cross-entropy, mean over the K tasks.

    logits (B, K); labels (B, K) in [0, 1], soft or hard. Returns (B,).
    """
    return binary_cross_entropy_with_logits(logits, labels, reduction="none").mean(dim=1)
