"""What a meta-worker computes; every method is a pure function of its arguments.

A worker holds nothing that matters: models are loaded from storage and kept for reuse, all else
comes with the call. `workers.py` runs it as an actor.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor

from diet_ray import runtime, seeds
from diet_ray.config import RunConfig
from diet_ray.distill.inner_loop import inner_batches
from diet_ray.distill.meta_gradient import meta_gradient
from diet_ray.distill.proxy import embedding_stage, inner_start, proxy_networks, turn
from diet_ray.logs.blocks import Rows
from diet_ray.memory.coordinator import MemoryClient
from diet_ray.memory.update import RowGradients
from diet_ray.models.functional import FlatNetwork
from diet_ray.scoring.alignment import alignment, summed_gradient
from diet_ray.training.reference import Reference, load_reference, reference_uri


@dataclass(frozen=True)
class RoundTask:
    """What the meta-gradients of one round have in common; put into the object store once."""

    stage: int
    round: int
    targets: Rows  # hard targets
    active: np.ndarray  # (m,) int64, active rows of the memory, ascending
    memory: MemoryClient


class Source(Protocol):
    """Rows whose gradients are asked for, a slice at a time.

    trained_on: their loss is the training loss (`scoring/alignment.py`).
    """

    trained_on: ClassVar[bool]

    def slice(self, first: int, end: int, reference: Reference) -> tuple[Tensor, Tensor]:
        """Embeddings (m, F, d) and labels (m, K) in [0, 1]."""
        ...


@dataclass(frozen=True)
class RealRows:
    """Real rows, embedded by the stage's embedding reference, with their own labels."""

    trained_on: ClassVar[bool] = False
    rows: Rows

    def slice(self, first: int, end: int, reference: Reference) -> tuple[Tensor, Tensor]:
        rows = self.rows.take(slice(first, end))
        ids, labels = torch.tensor(rows.ids), torch.tensor(rows.labels)
        return reference.table(ids).detach(), labels


@dataclass(frozen=True)
class StoredRows:
    """Synthetic rows that are at rest."""

    trained_on: ClassVar[bool] = True
    embeddings: np.ndarray
    labels: np.ndarray  # logits

    def slice(self, first: int, end: int, reference: Reference) -> tuple[Tensor, Tensor]:
        del reference  # they are embeddings already
        labels = torch.sigmoid(torch.tensor(self.labels[first:end]))
        return torch.tensor(self.embeddings[first:end]), labels


@dataclass(frozen=True)
class ServedRows:
    """Synthetic rows that the memory's servers hold, as they are at a step."""

    trained_on: ClassVar[bool] = True
    memory: MemoryClient
    step: int

    def slice(self, first: int, end: int, reference: Reference) -> tuple[Tensor, Tensor]:
        return StoredRows(*self.memory.pull(self.step, np.arange(first, end))).slice(
            0, end - first, reference
        )


class MetaWorker:
    """One meta-worker of a run."""

    def __init__(self, config: RunConfig) -> None:
        self._config = config
        self._device = runtime.use_device(config.resources.meta_worker_gpus, config.threads)
        self._reference = lru_cache(maxsize=2)(self._load)  # a stage's own, and the one before it
        self._proxy = lru_cache(maxsize=len(proxy_networks(config)))(self._build)

    def _load(self, number: int) -> Reference:
        return load_reference(reference_uri(self._config, number))

    def _embedder(self, stage: int) -> Reference:
        return self._reference(embedding_stage(self._config, stage))

    def _build(self, stage: int, number: int) -> FlatNetwork:
        """The proxy whose turn is `number`; its parameters come with each call."""
        network = proxy_networks(self._config)[number]
        return FlatNetwork(self._embedder(stage).fresh(network, 0).to(self._device))

    def ready(self) -> bool:
        """Answers when the actor has started."""
        return True

    def summed_gradient(
        self, stage: int, source: Source, theta: np.ndarray, first: int, end: int
    ) -> np.ndarray:
        """sum of the first proxy's grad l over rows first..end of the source, float64 (P,)."""
        embeddings, labels = self._move(*source.slice(first, end, self._embedder(stage)))
        network, at = self._proxy(stage, 0), self._tensor(theta)
        gradient = summed_gradient(network, at, embeddings, labels, trained_on=source.trained_on)
        return gradient.cpu().numpy().astype(np.float64)

    def alignments(
        self,
        stage: int,
        source: Source,
        theta: np.ndarray,
        direction: np.ndarray,
        first: int,
        end: int,
    ) -> np.ndarray:
        """<direction, the first proxy's grad l> of rows first..end of the source, float32 (m,)."""
        embeddings, labels = self._move(*source.slice(first, end, self._embedder(stage)))
        network, at, along = self._proxy(stage, 0), self._tensor(theta), self._tensor(direction)
        mode = self._config.scoring.alignment
        found = alignment(
            network, at, along, embeddings, labels, trained_on=source.trained_on, mode=mode
        )
        return found.cpu().numpy()

    def meta_gradient(self, task: RoundTask, step: int, shard: int) -> float:
        """Compute one logical shard of outer step `step` and push it; returns its outer loss."""
        config, inner = self._config.distill, self._config.distill.inner
        path = ("meta", task.stage, task.round, step, shard)
        draw = seeds.numpy_generator(self._config.seed, *path)
        embeddings, labels = self._move(
            *(torch.from_numpy(array) for array in task.memory.pull(step, task.active))
        )
        length = int(draw.integers(inner.window, inner.steps + 1))
        batches = inner_batches(
            len(task.active),
            inner.batch_size,
            length,
            seeds.torch_generator(self._config.seed, *path, "batches"),
        )
        count = min(config.target_batch, len(task.targets))
        chosen = np.sort(draw.choice(len(task.targets), count, replace=False))
        targets = RealRows(task.targets.take(chosen)).slice(0, count, self._embedder(task.stage))
        start = (self._config, task.stage, task.round, step, shard)
        result = meta_gradient(
            self._proxy(task.stage, turn(self._config, step, shard)),
            self._tensor(inner_start(*start, load=self._reference)),
            embeddings,
            labels,
            batches,
            *self._move(*targets),
            inner,
        )
        assert result.embeddings is not None  # they were asked for
        touched = result.touched.cpu().numpy()
        gradients = RowGradients(
            task.active[touched],
            result.embeddings.cpu().numpy()[touched],
            result.labels.cpu().numpy()[touched],
        )
        task.memory.push(step, shard, gradients)
        return result.outer_loss

    def _tensor(self, array: np.ndarray) -> Tensor:
        return torch.tensor(array, dtype=torch.float32, device=self._device)

    def _move(self, embeddings: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        return embeddings.to(self._device), labels.to(self._device)
