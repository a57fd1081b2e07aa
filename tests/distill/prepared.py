"""Runs over made blocks whose reference is trained already, and workers in this process."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diet_ray.config import RunConfig
from diet_ray.distill.context import Stage
from diet_ray.distill.positions import Positions
from diet_ray.distill.sources import Source
from diet_ray.distill.worker import MetaWorker
from diet_ray.logs.blocks import Blocks, Rows
from diet_ray.memory.coordinator import start_steps
from diet_ray.memory.files import RowFiles
from diet_ray.memory.rows import SyntheticRows
from diet_ray.memory.server import MemoryServer
from diet_ray.memory.update import RowGradients
from diet_ray.models.functional import FlatNetwork, row_losses
from diet_ray.training.reference import Reference, load_reference, reference_uri
from tests.made import small_config
from tests.sets import files_of

STAGES = 2
FIELDS = ("field_0", "field_1", "field_2")
ROWS_PER_FILE = 8  # several servers have files of their own


@dataclass(frozen=True)
class Prepared:
    """Blocks and the reference models trained on them."""

    blocks: Blocks
    folder: Path

    def config(self, output: Path, *parts: str, **overrides: Any) -> RunConfig:
        """A run in `output` that finds the reference there, and other `parts` of this one."""
        for part in ("reference", *parts):
            shutil.copytree(self.folder / part, output / part, dirs_exist_ok=True)
        return run_config(output, **overrides)


def run_config(output: Path, **overrides: Any) -> RunConfig:
    """The smallest sensible run of two stages that leaves room for others on two cores."""
    resources = {"scoring_cpus": 0.2, "meta_worker_cpus": 0.2, "memory_server_cpus": 0.05}
    resources |= overrides.pop("resources", {})
    distill = {"logical_shards": 3, "hard_fraction": 0.3, **overrides.pop("distill", {})}
    memory = {"rows_per_file": ROWS_PER_FILE, **overrides.pop("memory", {})}
    sections = {"resources": resources, "distill": distill, "memory": memory}
    return small_config(str(output), **sections, **overrides)


def phi(config: RunConfig, stage: int) -> Reference:
    """phi_t of a run."""
    return load_reference(reference_uri(config, stage))


class LocalWorkers:
    """What `MetaWorkers` offers, computed here and in one piece."""

    def __init__(self, config: RunConfig) -> None:
        self._worker = MetaWorker(config)
        self.inner_start, self.taught = self._worker.inner_start, self._worker.taught
        self.real_rows = self._worker.real_rows

    def make_room(self) -> None:
        """They take none."""

    def write_start(
        self,
        stage: int,
        blocks: Blocks,
        previous: RowFiles | None,
        target: RowFiles,
        parts: list[tuple[Positions, np.ndarray]],
    ) -> list[str]:
        write = self._worker.write_start
        return [
            write(stage, blocks, previous, target, number, *part)
            for number, part in enumerate(parts)
        ]

    def summed_gradient(
        self, stage: int, source: Source, rows: int, theta: np.ndarray
    ) -> np.ndarray:
        found = self._worker.summed_gradient(stage, source, theta, 0, rows)
        return found.astype(np.float32)

    def alignments(
        self, stage: int, source: Source, rows: int, theta: np.ndarray, direction: np.ndarray
    ) -> np.ndarray:
        return self._worker.alignments(stage, source, theta, direction, 0, rows)


def open_stage(config: RunConfig, blocks: Blocks, number: int) -> Stage:
    """A stage whose workers are local."""
    workers: Any = LocalWorkers(config)
    return Stage.open(config, blocks, number, workers)


class LocalMemory:
    """What a `MemoryClient` offers, from one server in this process."""

    def __init__(self, folder: Path, rows: SyntheticRows) -> None:
        start_steps(str(folder))
        start = files_of(str(folder / "start"), rows, FIELDS)
        self.server, self._rows = MemoryServer(str(folder), start, range(1), True), len(rows)
        self.server.restore(0)

    def __len__(self) -> int:
        return self._rows

    def pull(self, step: int, rows: np.ndarray) -> SyntheticRows:
        return self.server.pull(step, rows)

    def push(self, step: int, shard: int, gradients: RowGradients) -> None:
        self.server.push(step, shard, gradients)


def row_gradients(
    network: FlatNetwork, theta: np.ndarray, embeddings: Tensor, labels: Tensor
) -> np.ndarray:
    """grad l of every row, (B, P) float64, one backward pass each."""
    found = []
    for row, label in zip(embeddings.double(), labels.double(), strict=True):
        variable = torch.tensor(theta, dtype=torch.float64, requires_grad=True)
        loss = row_losses(network(variable, row[None]), label[None]).sum()
        found.append(torch.autograd.grad(loss, variable)[0].numpy())
    return np.stack(found)


def network_of(reference: Reference) -> FlatNetwork:
    """phi_t's dense network as a function, in float64."""
    return FlatNetwork(reference.dense.double())


def embedded(reference: Reference, rows: Rows) -> tuple[Tensor, Tensor]:
    """Embeddings (B, F, d) and labels (B, K) of real rows."""
    return reference.table(torch.tensor(rows.ids)).detach(), torch.tensor(rows.labels)


def assert_smallest(chosen: np.ndarray, scores: np.ndarray, count: int) -> None:
    """`chosen` are positions of the `count` smallest scores; float32 may swap near-ties."""
    assert len(set(chosen.tolist())) == len(chosen) == count
    rest = np.setdiff1d(np.arange(len(scores)), chosen)
    tie = 1e-5 * np.abs(scores).max()
    assert scores[chosen].max() <= scores[rest].min(initial=np.inf) + tie
    exact = np.argsort(scores, kind="stable")[:count]
    assert len(np.intersect1d(exact, chosen)) >= count - 2, "more than a near-tie differs"
