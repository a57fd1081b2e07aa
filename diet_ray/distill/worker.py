"""What a meta-worker computes; every method is a pure function of its arguments.

A worker holds nothing that matters: models are loaded from storage and kept for reuse, all else
comes with the call. `workers.py` runs it as an actor.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from diet_ray import devices, seeds, whereabouts
from diet_ray.config import RunConfig
from diet_ray.distill.inner_loop import inner_batches
from diet_ray.distill.meta_gradient import MetaGradient, meta_gradient
from diet_ray.distill.positions import Positions, pick
from diet_ray.distill.proxy import inner_start, proxy_networks, turn
from diet_ray.distill.sources import Source, embedded
from diet_ray.distill.start import StageModels, start_rows
from diet_ray.logs.blocks import Block, Blocks, Rows, read_rows
from diet_ray.memory.coordinator import MemoryClient
from diet_ray.memory.files import RowFiles
from diet_ray.memory.update import RowGradients
from diet_ray.models.functional import FlatNetwork
from diet_ray.scoring.alignment import alignment, summed_gradient
from diet_ray.training.model import predict
from diet_ray.training.reference import Reference, load_reference, reference_uri


@dataclass(frozen=True)
class Targets:
    """The hard targets that a round's shards draw, read once; `of` them are hard in all."""

    of: int
    positions: np.ndarray  # (m,) int64, which ones of them, ascending
    ids: np.ndarray  # (m, F) int32
    labels: np.ndarray  # (m, K) uint8

    def at(self, positions: np.ndarray) -> Rows:
        """Some of those that were read, by their positions among all hard targets."""
        index = np.searchsorted(self.positions, positions)
        ids, labels = self.ids[index], self.labels[index]
        return Rows(positions, ids.astype(np.int64), labels.astype(np.float32))


@dataclass(frozen=True)
class RoundTask:
    """What the meta-gradients of one round have in common; put into the object store once."""

    stage: int
    round: int
    targets: Targets
    active: Positions  # active rows of the memory
    memory: MemoryClient


def shard_draw(
    config: RunConfig, targets: int, stage: int, round_number: int, step: int, shard: int
) -> tuple[int, np.ndarray]:
    """Length of a shard's unroll, and the positions of its targets among `targets`, ascending."""
    inner, path = config.distill.inner, ("meta", stage, round_number, step, shard)
    draw = seeds.numpy_generator(config.seed, *path)
    length = int(draw.integers(inner.window, inner.steps + 1))
    count = min(config.distill.target_batch, targets)
    return length, np.sort(draw.choice(targets, count, replace=False))


def unique_rows(batches: list[Tensor]) -> tuple[np.ndarray, list[Tensor]]:
    """The rows that batches use, ascending, int64 (m,); and the batches as positions in them."""
    rows, places = torch.unique(torch.cat(batches), return_inverse=True)
    return rows.numpy(), list(places.split([len(batch) for batch in batches]))


def _of_rows(used: np.ndarray, result: MetaGradient) -> RowGradients:
    """The gradients of those rows of the memory, of `used` (m,), that were differentiated."""
    touched = result.touched.cpu().numpy()
    labels = result.labels.cpu().numpy()[touched]
    if result.embeddings is None:
        return RowGradients(used[touched], None, labels)
    return RowGradients(used[touched], result.embeddings.cpu().numpy()[touched], labels)


class MetaWorker:
    """One meta-worker of a run."""

    def __init__(self, config: RunConfig) -> None:
        whereabouts.enter(run=config.name)
        self._config = config
        self._device = devices.use_device(config.resources.meta_worker_gpus, config.threads)
        self._reference = lru_cache(maxsize=2)(self._load)  # a stage's own, and the one before it
        self._proxy = lru_cache(maxsize=len(proxy_networks(config)))(self._build)

    def _load(self, number: int) -> Reference:
        return load_reference(reference_uri(self._config, number))

    def _models(self, stage: int) -> StageModels:
        return StageModels(self._config, stage, self._reference)

    def _build(self, stage: int, number: int) -> FlatNetwork:
        """The proxy whose turn is `number`; its parameters come with each call."""
        network = proxy_networks(self._config)[number]
        return FlatNetwork(self._models(stage).embedder.fresh(network, 0).to(self._device))

    def ready(self) -> bool:
        """Answers when the actor has started."""
        return True

    def inner_start(self, stage: int, round_number: int) -> np.ndarray:
        """theta_0 of the first proxy for fusion and addressing, (P,) float32."""
        return inner_start(self._config, stage, round_number, load=self._reference)

    def write_start(
        self,
        stage: int,
        blocks: Blocks,
        previous: RowFiles | None,
        target: RowFiles,
        number: int,
        kept: Positions,
        new: np.ndarray,
    ) -> str:
        """Write a file of a stage's start: `kept` rows of the previous memory, then the `new` real
        rows, by their row ids; returns its SHA-256."""
        block = blocks.historical[stage - 1]
        rows = start_rows(self._models(stage), blocks, block, previous, kept, new)
        return target.write(number, rows)

    def real_rows(
        self, blocks: Blocks, block: Block, row_ids: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """ids (m, F) int32 and labels (m, K) uint8 of the rows with these ids, ascending."""
        rows = read_rows(blocks, block, row_ids)
        return rows.ids.astype(np.int32), rows.labels.astype(np.uint8)

    def taught(self, stage: int, ids: np.ndarray) -> np.ndarray:
        """phi_t's logits of ids (m, F), float32 (m, K)."""
        return predict(self._models(stage).reference.recommender, ids.astype(np.int64))

    def summed_gradient(
        self, stage: int, source: Source, theta: np.ndarray, first: int, end: int
    ) -> np.ndarray:
        """sum of the first proxy's grad l over rows first..end of the source, float64 (P,)."""
        network, at, trained = self._proxy(stage, 0), self._tensor(theta), source.trained_on
        total = np.zeros(len(theta))
        for embeddings, labels in source.batches(first, end, self._models(stage)):
            rows = self._move(embeddings, labels)
            total += summed_gradient(network, at, *rows, trained_on=trained).cpu().numpy()
        return total

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
        network, at, along = self._proxy(stage, 0), self._tensor(theta), self._tensor(direction)
        mode, parts = self._config.scoring.alignment, []
        for embeddings, labels in source.batches(first, end, self._models(stage)):
            rows = self._move(embeddings, labels)
            found = alignment(network, at, along, *rows, trained_on=source.trained_on, mode=mode)
            parts.append(found.cpu().numpy())
        return np.concatenate(parts)

    def meta_gradient(self, task: RoundTask, step: int, shard: int) -> float:
        """Compute one logical shard of outer step `step` and push it; returns its outer loss, NaN
        if it or a gradient was not finite: such a shard is pushed as None."""
        config, inner = self._config.distill, self._config.distill.inner
        path = (task.stage, task.round, step, shard)
        length, chosen = shard_draw(self._config, task.targets.of, *path)
        generator = seeds.torch_generator(self._config.seed, "meta", *path, "batches")
        drawn = inner_batches(len(task.active), inner.batch_size, length, generator)
        positions, batches = unique_rows(drawn)
        used = pick(task.active, positions)
        rows, embedder = task.memory.pull(step, used), self._models(task.stage).embedder
        result = meta_gradient(
            self._proxy(task.stage, turn(self._config, step, shard)),
            self._tensor(inner_start(self._config, *path, load=self._reference)),
            torch.from_numpy(rows.embeddings(embedder.table)).to(self._device),
            torch.from_numpy(rows.labels).to(self._device),
            batches,
            *self._move(*embedded(task.targets.at(chosen), embedder)),
            inner,
            learn_embeddings=config.outer.embedding_step > 0,
        )
        gradients = _of_rows(used, result)
        finite = math.isfinite(result.outer_loss) and gradients.finite
        task.memory.push(step, shard, gradients if finite else None)
        return result.outer_loss if finite else math.nan

    def _tensor(self, array: np.ndarray) -> Tensor:
        return torch.tensor(array, dtype=torch.float32, device=self._device)

    def _move(self, embeddings: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        return embeddings.to(self._device), labels.to(self._device)
