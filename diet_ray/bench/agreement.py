"""How far independent shards of one outer step agree, and so how many are worth averaging.

A shard's gradient is g + noise. Of shards drawn independently, the mean product of two of them is
|g|^2, and a shard's own square |g|^2 + n, with n the noise's; two means over G shards each have
the cosine |g|^2 / (|g|^2 + n / G). At G = n / |g|^2 it is one half: with fewer shards a step is
mostly noise, more of them hardly change it. (The noise scale of McCandlish et al., 2018.)
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, cast

import numpy as np

from diet_ray.bench.measure import Figure, Found, Measure, Needs, size
from diet_ray.bench.peaks import in_child, own_ray
from diet_ray.bench.scoring import PROCESS_BYTES
from diet_ray.bench.whole import DISK_BYTES_PER_ROW, synthetic_config
from diet_ray.config import RunConfig, fit
from diet_ray.distill.context import stage_uri
from diet_ray.distill.stream import distill_stream
from diet_ray.distill.worker import MetaWorker, RoundTask, Targets, shard_draw
from diet_ray.logs.blocks import open_blocks, read_rows
from diet_ray.logs.prepare import prepare
from diet_ray.memory import artifact
from diet_ray.memory.rows import SyntheticRows
from diet_ray.memory.update import RowGradients
from diet_ray.training.stream import train_reference

TARGET_BATCHES = (512, 2_048, 8_192)
MEANS = (1, 2, 8, 32)  # G of the cosines that are told
ALMOST_NOTHING = 1e-9  # logits: the measured memory is the one that a stage starts from


@dataclass(frozen=True)
class Agreement(Measure):
    """Shards of an outer step whose mean agrees by half with another such mean.

    By the default recipe on a synthetic log, at the first outer step of the last stage; for outer
    losses on few and on many real rows, each with the CPU time of one shard.
    """

    name: ClassVar[str] = "agreement"
    rows: int = size(120_000, "rows of the log")
    users: int = size(2_000, "users")
    items: int = size(1_000, "items")
    shards: int = size(32, "independent shards")

    def needs(self) -> Needs:
        return Needs(4 * PROCESS_BYTES, DISK_BYTES_PER_ROW * self.rows)

    def run(self, folder: str) -> Found:
        distill = {"outer_steps": 1, "outer": {"label_step": ALMOST_NOTHING}}
        config = synthetic_config(folder, self.rows, self.users, self.items, distill=distill)
        config = in_child(distilled, config)
        found = {
            batch: in_child(agreement_of, _with_targets(config, batch), self.shards)
            for batch in TARGET_BATCHES
        }
        return Found(
            [
                Figure(
                    f"shards whose mean has cosine .5 with another's, outer loss on {batch:,} rows",
                    agreed.half,
                    unit="shards",
                    parts={
                        **{f"cosine of {g}": agreed.cosine(g) for g in MEANS},
                        "CPU s of a shard": seconds,
                    },
                )
                for batch, (agreed, seconds) in found.items()
            ]
        )


class Agreed(NamedTuple):
    """Of shards with independent draws."""

    signal: float  # |g|^2
    noise: float  # n, of one shard

    @property
    def half(self) -> float:
        """G at which two means have the cosine one half; infinite where no signal was found."""
        return self.noise / self.signal if self.signal > 0 else float("inf")

    def cosine(self, shards: int) -> float:
        """Expected, between the means of so many shards each."""
        return max(self.signal, 0) / (max(self.signal, 0) + self.noise / shards)


def agree(gradients: np.ndarray) -> Agreed:
    """Of independent gradients (G, ...), at least two."""
    flat = gradients.reshape(len(gradients), -1).astype(np.float64)
    products = flat @ flat.T
    own = float(np.trace(products)) / len(flat)
    others = (float(products.sum()) - float(np.trace(products))) / (len(flat) * (len(flat) - 1))
    return Agreed(others, own - others)


def distilled(config: RunConfig) -> RunConfig:
    """Do the run, without its check; returns what it was fitted to."""
    with own_ray():
        blocks = prepare(config)
        config = fit(config, blocks.historical_rows)
        train_reference(config, blocks)
        distill_stream(config, blocks)
    return config


def _with_targets(config: RunConfig, batch: int) -> RunConfig:
    distill = config.distill.model_copy(update={"target_batch": batch})
    return config.model_copy(update={"distill": distill})


def agreement_of(config: RunConfig, shards: int) -> tuple[Agreed, float]:
    """Of the last stage's shards, on the memory that it published; and a shard's CPU seconds."""
    gradients, seconds = shard_gradients(config, shards)
    return agree(gradients), seconds


class _Held:
    """The whole memory in this process; takes gradients instead of following them."""

    def __init__(self, rows: SyntheticRows, shards: int) -> None:
        self._rows = rows
        self.gradients = np.zeros((shards, *rows.labels.shape))

    def pull(self, _step: int, rows: np.ndarray) -> SyntheticRows:
        return self._rows.take(rows)

    def push(self, _step: int, shard: int, gradients: RowGradients) -> None:
        self.gradients[shard, gradients.rows] = gradients.labels


def shard_gradients(config: RunConfig, shards: int) -> tuple[np.ndarray, float]:
    """By the labels of all rows, (G, n, K) float64, and the mean CPU seconds of a shard."""
    blocks = open_blocks(config.place("blocks"))
    stage, block = len(blocks.historical), blocks.historical[-1]
    files = artifact.open_files(stage_uri(config, stage))
    memory, worker = _Held(files.slice(0, files.rows), shards), MetaWorker(config)
    drawn = [shard_draw(config, block.rows, stage, 0, 0, shard)[1] for shard in range(shards)]
    positions = np.unique(np.concatenate(drawn))
    rows = read_rows(blocks, block, block.fragments[0].first_row_id + positions)
    targets = Targets(block.rows, positions, rows.ids, rows.labels)
    task = RoundTask(stage, 0, targets, range(files.rows), cast(Any, memory))
    worker.meta_gradient(task, 0, 0)  # loads the models
    started = time.process_time()
    for shard in range(shards):
        worker.meta_gradient(task, 0, shard)
    return memory.gradients, (time.process_time() - started) / shards
