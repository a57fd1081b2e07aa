"""EL2N: how far a row's prediction is from its labels (Paul et al., 2021; paper, equation 6)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from diet_ray.logs.blocks import Rows
from diet_ray.training.reference import load_reference


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

    @property
    def identity(self) -> str:
        """Equal identities mean equal scores of equal rows."""
        return f"el2n-{self.reference_identity}"

    def load(self, device: torch.device) -> Callable[[Rows], np.ndarray]:
        """The function rows -> float32 (n,), its model on `device`."""
        model = load_reference(self.reference_uri).recommender.to(device)

        @torch.no_grad()
        def score(rows: Rows) -> np.ndarray:
            ids = torch.from_numpy(rows.ids).to(device)
            labels = torch.from_numpy(rows.labels).to(device)
            return el2n(model(ids), labels).cpu().numpy()

        return score
