"""A trained run to score, and scorings that misbehave once."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from diet_ray.config import RunConfig
from diet_ray.logs.blocks import Block, Blocks, Rows
from diet_ray.training.reference import Reference


@dataclass(frozen=True)
class Prepared:
    config: RunConfig
    blocks: Blocks
    reference_uri: str
    reference: Reference

    @property
    def block(self) -> Block:
        """D_2, which is scored."""
        return self.blocks.historical[1]


@dataclass(frozen=True)
class RowIds:
    """Scores every row by its id."""

    identity: str = "row ids"

    def load(self, device: torch.device) -> Callable[[Rows], np.ndarray]:
        return lambda rows: rows.row_ids.astype(np.float32)


@dataclass(frozen=True)
class Deadly:
    """Row ids; but the first process that meets the row kills itself."""

    row_id: int
    marker: Path
    identity: str = "deadly"

    def load(self, device: torch.device) -> Callable[[Rows], np.ndarray]:
        def score(rows: Rows) -> np.ndarray:
            if self.row_id in rows.row_ids and not self.marker.exists():
                self.marker.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return rows.row_ids.astype(np.float32)

        return score


@dataclass(frozen=True)
class Undefined:
    """NaN for one row."""

    row_id: int
    identity: str = "undefined"

    def load(self, device: torch.device) -> Callable[[Rows], np.ndarray]:
        return lambda rows: np.where(rows.row_ids == self.row_id, np.nan, 1.0).astype(np.float32)
