"""EL2N: how far a row's prediction is from its labels (Paul et al., 2021; paper, equation 6)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from diet_ray import devices
from diet_ray.config import Precision
from diet_ray.logs.blocks import Rows
from diet_ray.training.reference import Reference


def el2n(logits: Tensor, labels: Tensor) -> Tensor:
    """|| sigma(logits) - labels ||_2 of every row, in [0, sqrt K].

    logits, labels (B, K); returns (B,).
    """
    return torch.linalg.vector_norm(torch.sigmoid(logits) - labels, dim=1)


@dataclass(frozen=True)
class EL2NScoring:
    """EL2N of real rows under phi_t."""

    reference_uri: str
    reference_identity: str
    precision: Precision = "float32"

    @property
    def identity(self) -> str:
        """Equal identities mean equal scores of equal rows."""
        kind = "el2n" if self.precision == "float32" else f"el2n-{self.precision}"
        return f"{kind}-{self.reference_identity}"

    def load(self, reference: Reference, device: torch.device) -> Callable[[Rows], Tensor]:
        """The function rows -> float32 (n,) on `device`. reference: phi_t."""
        model = reference.recommender.to(device).eval()

        @torch.no_grad()
        def score(rows: Rows) -> Tensor:
            ids, labels = (devices.to_device(array, device) for array in (rows.ids, rows.labels))
            with torch.autocast(device.type, torch.bfloat16, self.precision == "bfloat16"):
                logits = model(ids)
            return el2n(logits.float(), labels)

        return score
