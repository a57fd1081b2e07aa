"""Rows that many workers share the work on, each described by where it lies.

A source travels to workers as a description and is read where it is needed, a range at a time; a
range's rows come in batches.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor

from diet_ray.distill.positions import Positions, part
from diet_ray.distill.start import StageModels, carried_over
from diet_ray.logs.blocks import Block, Blocks, Rows, read_rows
from diet_ray.memory.coordinator import MemoryClient
from diet_ray.memory.files import RowFiles
from diet_ray.memory.rows import SyntheticRows
from diet_ray.training.reference import Reference

BATCH_ROWS = 4_096


class Source(Protocol):
    """Rows whose gradients are asked for.

    trained_on: their loss is the training loss (`scoring/alignment.py`).
    """

    trained_on: ClassVar[bool]

    def batches(self, first: int, end: int, models: StageModels) -> Iterator[tuple[Tensor, Tensor]]:
        """Rows first..end in order: embeddings (m, F, d) and labels (m, K) in [0, 1]."""
        ...


@dataclass(frozen=True)
class BlockRows:
    """Real rows of a block, embedded by the stage's embedder, with their own labels."""

    trained_on: ClassVar[bool] = False
    blocks: Blocks
    block: Block
    row_ids: Positions

    def batches(self, first: int, end: int, models: StageModels) -> Iterator[tuple[Tensor, Tensor]]:
        rows = read_rows(self.blocks, self.block, part(self.row_ids, first, end))
        for start in range(0, len(rows), BATCH_ROWS):
            yield embedded(rows.take(slice(start, start + BATCH_ROWS)), models.embedder)


def embedded(rows: Rows, embedder: Reference) -> tuple[Tensor, Tensor]:
    """Embeddings (n, F, d) of real rows, and their labels (n, K)."""
    ids, labels = torch.tensor(rows.ids), torch.tensor(rows.labels)
    return embedder.table(ids).detach(), labels


@dataclass(frozen=True)
class CarriedRows:
    """The previous memory, as this stage takes it over."""

    trained_on: ClassVar[bool] = True
    files: RowFiles

    def batches(self, first: int, end: int, models: StageModels) -> Iterator[tuple[Tensor, Tensor]]:
        for number in self.files.numbers(first, end):  # each is read once
            low, high = self.files.bounds(number)
            rows = self.files.slice(max(low, first), min(high, end))
            for start in range(0, len(rows), BATCH_ROWS):
                batch = rows.take(slice(start, start + BATCH_ROWS))
                yield _synthetic(carried_over(batch, models), models)


@dataclass(frozen=True)
class ServedRows:
    """The rows that the memory's servers hold, as they are at a step."""

    trained_on: ClassVar[bool] = True
    memory: MemoryClient
    step: int

    def batches(self, first: int, end: int, models: StageModels) -> Iterator[tuple[Tensor, Tensor]]:
        for start in range(first, end, BATCH_ROWS):
            rows = np.arange(start, min(start + BATCH_ROWS, end))
            yield _synthetic(self.memory.pull(self.step, rows), models)


def _synthetic(rows: SyntheticRows, models: StageModels) -> tuple[Tensor, Tensor]:
    embeddings = torch.from_numpy(rows.embeddings(models.embedder.table))
    return embeddings, torch.sigmoid(torch.tensor(rows.labels))
