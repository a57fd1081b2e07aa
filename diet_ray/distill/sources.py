"""Rows that many workers share the work on, each described by where it lies.

A source travels to workers as a description and is read where it is needed, a range at a time; a
range's rows come in batches. What the driver names are positions: all of a block or memory as a
`range`, a part of it as an ascending array.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor

from diet_ray.config import RunConfig
from diet_ray.distill.proxy import embedding_stage
from diet_ray.logs.blocks import Block, Blocks, Rows, read_rows
from diet_ray.memory.coordinator import MemoryClient
from diet_ray.memory.files import RowFiles
from diet_ray.memory.rows import SyntheticRows
from diet_ray.training.model import predict
from diet_ray.training.reference import Reference

BATCH_ROWS = 4_096

Positions = range | np.ndarray
"""Ascending whole numbers; as an array int64 (n,)."""


def pick(positions: Positions, index: np.ndarray) -> np.ndarray:
    """positions[index], int64 (m,)."""
    if isinstance(positions, range):
        return positions.start + index.astype(np.int64)
    return positions[index]


def part(positions: Positions, first: int, end: int) -> np.ndarray:
    """positions[first:end], int64."""
    return np.asarray(positions[first:end], dtype=np.int64)


@dataclass(frozen=True)
class StageModels:
    """The reference models that a stage needs, loaded when asked for."""

    config: RunConfig
    number: int
    load: Callable[[int], Reference]

    @property
    def reference(self) -> Reference:
        """phi_t."""
        return self.load(self.number)

    @property
    def embedder(self) -> Reference:
        """Embeds rows while they are optimised: phi_t, or phi_{t-1} (`distill.unseen`)."""
        return self.load(embedding_stage(self.config, self.number))

    @property
    def previous(self) -> Reference:
        """phi_{t-1}, from stage 2 on."""
        return self.load(self.number - 1)


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
        for start in range(first, end, BATCH_ROWS):
            rows = self.files.slice(start, min(start + BATCH_ROWS, end))
            yield _synthetic(carried_over(rows, models), models)


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


def carried_over(rows: SyntheticRows, models: StageModels) -> SyntheticRows:
    """Rows of S_{t-1} as stage t starts with them.

    Anchored rows follow the reference: the delta stays, so that the embedding moves by what phi_t
    changed of E(anchor), and the label moves by f_t(anchor) - f_{t-1}(anchor). Others stay where
    they are, in label and in embedding: the delta takes up what E(anchor) changed.
    """
    anchors = rows.anchors.astype(np.int64)
    taught = predict(models.reference.recommender, anchors)
    if models.config.memory.anchored:
        change = taught - predict(models.previous.recommender, anchors)
        return replace(rows, labels=rows.labels + change, taught=taught)
    stay = rows.embeddings(models.previous.table)
    bare = replace(rows, moved=np.zeros_like(rows.moved), deltas=rows.deltas[:0])
    deltas = stay - bare.embeddings(models.embedder.table)
    return replace(rows.with_deltas(deltas), taught=taught)
