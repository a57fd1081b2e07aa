"""Gradient alignment of rows with a direction, without any per-sample gradient.

The influence of row a on row b is I(a, b) = eta <grad l(theta; a), grad l(theta; b)> (paper,
equation 15): what a training step on a takes off b's loss. Summed over a set it is linear in the
*summed* gradient v = sum_a grad l(theta; a), so sum_a I(a, b) / eta = <v, grad l(theta; b)>: the
directional derivative of b's loss along v. One backward pass gives v, then one forward-mode pass
(JVP) per batch gives the alignment of all its rows. Both deficiency A (equation 16),
responsibility R (equation 17) and fusion's weight w (equation 10) are this number; eta > 0
changes no order and is left out. A JVP costs three matrix products for each one of a forward
pass; a central difference along v costs two forward passes and is no longer exact.

A network with several branches is trained on more than the loss that judges it. Then l(.; a) is
the training loss of a, a synthetic row, and l(.; b) the plain loss of b, a real one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import ray
import torch
from torch import Tensor
from torch.autograd import forward_ad

from diet_ray import devices
from diet_ray.config import AlignmentMode, NetworkConfig
from diet_ray.logs.blocks import Rows
from diet_ray.models.functional import FlatNetwork, row_losses
from diet_ray.training.reference import Reference

STEP = 0.1
"""Of a central difference, in units of sqrt(rounding) |theta| (`_difference`)."""


def summed_gradient(
    network: FlatNetwork,
    theta: Tensor,
    embeddings: Tensor,
    labels: Tensor,
    *,
    trained_on: bool = False,
) -> Tensor:
    """sum over rows of grad_theta l(theta; e, y), (P,).

    embeddings (B, F, d); labels (B, K) in [0, 1]; trained_on: l is the training loss.
    """
    variable = theta.detach().requires_grad_(True)
    loss = _losses(network, variable, embeddings, labels, trained_on).sum()
    return torch.autograd.grad(loss, variable)[0]


def alignment(
    network: FlatNetwork,
    theta: Tensor,
    direction: Tensor,
    embeddings: Tensor,
    labels: Tensor,
    *,
    trained_on: bool = False,
    mode: AlignmentMode = "jvp",
) -> Tensor:
    """<direction, grad_theta l(theta; e, y)> of every row, (B,), by one JVP or two forward passes.

    trained_on: l is the training loss. It takes a JVP in either mode: its gradient holds a
    teacher constant (`training_losses`), and a difference would see the teacher move.
    """

    def losses(parameters: Tensor, rows: Tensor) -> Tensor:
        return _losses(network, parameters, rows, labels, trained_on)

    compute = _difference if mode == "difference" and not trained_on else _jvp
    return compute(losses, theta, direction, embeddings)


Losses = Callable[[Tensor, Tensor], Tensor]
"""(theta, embeddings) -> losses (B,)."""


def _jvp(losses: Losses, theta: Tensor, direction: Tensor, embeddings: Tensor) -> Tensor:
    with forward_ad.dual_level():
        # Left without a tangent, embeddings get one that is expanded from a single zero, and a
        # batched product with it goes matrix by matrix (WuKong: four times as slow as with these).
        rows = forward_ad.make_dual(embeddings, torch.zeros_like(embeddings))
        dual = losses(forward_ad.make_dual(theta, direction), rows)
        return forward_ad.unpack_dual(dual).tangent


def _difference(losses: Losses, theta: Tensor, direction: Tensor, embeddings: Tensor) -> Tensor:
    """(l(theta + h v) - l(theta - h v)) / 2h with h |v| = STEP sqrt(eps) |theta|.

    eps is theta's rounding. Rounding puts an error ~ eps / h on the quotient. Units whose ReLU
    switches between the two ends put one ~ h on it, which outweighs a smooth function's h^2: so
    the two meet at h ~ sqrt(eps), not at the usual third root.
    """
    length = direction.norm()
    if length == 0:
        return embeddings.new_zeros(len(embeddings))
    h = STEP * torch.finfo(theta.dtype).eps ** 0.5 * theta.norm() / length
    offset = h * direction
    return (losses(theta + offset, embeddings) - losses(theta - offset, embeddings)) / (2 * h)


def _losses(
    network: FlatNetwork, theta: Tensor, embeddings: Tensor, labels: Tensor, trained_on: bool
) -> Tensor:
    if trained_on:
        return network.training_losses(theta, embeddings, labels)
    return row_losses(network(theta, embeddings), labels)


@dataclass(frozen=True)
class AlignmentScoring:
    """Alignment of real rows, embedded by phi_t, with a direction at a network's theta."""

    reference_uri: str
    network: NetworkConfig  # of any architecture: phi_t's table is all that is used of phi_t
    theta: ray.ObjectRef  # (P,) float32, put once, mapped by every actor of a node
    direction: ray.ObjectRef  # (P,) float32
    mode: AlignmentMode
    identity: str

    @staticmethod
    def put(
        reference_uri: str,
        reference_identity: str,
        network: NetworkConfig,
        theta: np.ndarray,
        direction: np.ndarray,
        mode: AlignmentMode = "jvp",
    ) -> AlignmentScoring:
        """Both vectors into the object store; the identity covers all that scores depend on."""
        structure = network.model_dump_json(exclude={"label"}).encode()
        digest = hashlib.sha256(structure + theta.tobytes() + direction.tobytes()).hexdigest()
        return AlignmentScoring(
            reference_uri,
            network,
            ray.put(theta),
            ray.put(direction),
            mode,
            f"alignment-{mode}-{reference_identity}-{digest}",
        )

    def load(self, reference: Reference, device: torch.device) -> Callable[[Rows], Tensor]:
        """The function rows -> float32 (n,) on `device`. reference: phi_t."""
        table = reference.table.to(device)
        network = FlatNetwork(reference.fresh(self.network, 0).to(device).eval())
        theta, direction = (
            torch.from_numpy(array.copy()).to(device)  # what the object store maps is read-only
            for array in ray.get([self.theta, self.direction])
        )

        @torch.no_grad()
        def score(rows: Rows) -> Tensor:
            ids, labels = (devices.to_device(array, device) for array in (rows.ids, rows.labels))
            return alignment(network, theta, direction, table(ids), labels, mode=self.mode)

        return score
