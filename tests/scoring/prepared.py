"""A trained run to score, and scorings that misbehave once."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

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


def row_ids(rows: Rows) -> Tensor:
    """As scores."""
    return torch.from_numpy(rows.row_ids).float()


@dataclass(frozen=True)
class RowIds:
    """Scores every row by its id."""

    reference_uri: str
    identity: str = "row ids"

    def load(self, reference: Reference, device: torch.device) -> Callable[[Rows], Tensor]:
        return row_ids


@dataclass(frozen=True)
class Deadly:
    """Row ids; but the first process that meets the row kills itself."""

    reference_uri: str
    row_id: int
    marker: Path
    identity: str = "deadly"

    def load(self, reference: Reference, device: torch.device) -> Callable[[Rows], Tensor]:
        def score(rows: Rows) -> Tensor:
            if self.row_id in rows.row_ids and not self.marker.exists():
                self.marker.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return row_ids(rows)

        return score


@dataclass(frozen=True)
class Undefined:
    """NaN for one row."""

    reference_uri: str
    row_id: int
    identity: str = "undefined"

    def load(self, reference: Reference, device: torch.device) -> Callable[[Rows], Tensor]:
        return lambda rows: torch.where(row_ids(rows) == self.row_id, torch.nan, 1.0)
