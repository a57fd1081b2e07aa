"""Measures of training: the reference beside FuxiCTR's trainer and beside itself with more ids, a
candidate's co-training beside its full training."""

from __future__ import annotations

import dataclasses
import importlib.util
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch

from diet_ray import progress, runtime, storage
from diet_ray.bench.made import BYTES_PER_ROW, FIELDS, TASKS, made_blocks, run_config
from diet_ray.bench.measure import BenchError, Figure, Found, Goal, Measure, Needs, size
from diet_ray.bench.peaks import in_child
from diet_ray.bench.scoring import PROCESS_BYTES
from diet_ray.bench.timing import by_turns, one_thread, ratio, seconds_of
from diet_ray.config import RunConfig
from diet_ray.logs.blocks import Block, Blocks, iterate_batches, open_blocks, read_block
from diet_ray.models.embedding import EmbeddingTable
from diet_ray.models.registry import fresh_network
from diet_ray.training.candidate import train_through
from diet_ray.training.cotrain import CompactIds, co_trained
from diet_ray.training.metrics import measure, taught_auc
from diet_ray.training.model import Recommender, predict
from diet_ray.training.reference import reference_uri
from diet_ray.training.soft_rows import SoftRows
from diet_ray.training.stream import train_reference

FIRST_ROWS = 1_024
"""Of the block that phi_1 is trained on; phi_2's block is the one that is timed."""
TABLE_COPIES = 8
"""Of an embedding table, at most, while it is trained (gradient, moments) and published."""
DCN_PARAMETERS = {"num_cross_layers": 3, "dnn_hidden_units": [256, 128]}


def table_bytes(ids: int, embedding_dim: int = 16) -> int:
    """Of one copy of a table."""
    return 4 * embedding_dim * ids


def reference_config(output: str, network: str, batch_rows: int) -> RunConfig:
    """A run whose reference is the network called so, trained in this process."""
    return run_config(
        output,
        reference={
            "network": {"name": network, "parameters": DCN_PARAMETERS},
            "batch_size": batch_rows,
        },
    )


def reference_seconds(config: RunConfig, blocks: Blocks) -> float:
    """Of the epoch on the second block: neither Ray Train's start nor publishing counts."""
    storage.remove(reference_uri(config, 2))
    storage.remove(config.place("reference", "ray_train"))
    first = dataclasses.replace(blocks, blocks=blocks.blocks[:1])
    train_reference(config, first)
    progress.summary()
    train_reference(config, blocks)
    seconds = dict(progress.summary())
    return next(s for title, s in seconds.items() if title.endswith(blocks.blocks[1].name))


@dataclass(frozen=True)
class ReferenceTrainer(Measure):
    """The reference's rows/s over those of FuxiCTR's own trainer, on the same Parquet and batches.

    The network is the same: a DCN of FuxiCTR's layers for one task. Theirs is trained by FuxiCTR's
    `fit` on batches of its own `ParquetDataLoader` (Ray Data), not shuffled, without evaluation
    and checkpoint; ours by `train_reference` in one process. One torch thread each. Start-up is
    apart: ours counts from the epoch's start, theirs from the arrival of its first batch.
    """

    name: ClassVar[str] = "reference"
    few_ids: int = size(40_000, "ids over all fields, of the first comparison")
    few_rows: int = size(1_000_000, "rows of its epoch")
    many_ids: int = size(4_000_000, "ids over all fields, of the second comparison")
    many_rows: int = size(100_000, "rows of its epoch")
    batch_rows: int = size(512, "rows of a step")
    repeats: int = size(3, "epochs of each, by turns")

    def needs(self) -> Needs:
        rows = max(self.few_rows, self.many_rows)
        tables = TABLE_COPIES * table_bytes(self.many_ids)
        disk = BYTES_PER_ROW * rows + 3 * table_bytes(self.many_ids)
        return Needs(3 * PROCESS_BYTES + tables, disk)

    def run(self, folder: str) -> Found:
        if importlib.util.find_spec("fuxictr") is None:
            raise BenchError("reference: FuxiCTR is not installed; pip install 'diet_ray[fuxictr]'")
        with runtime.connect(), one_thread():
            return Found(
                [
                    self._figure(f"{folder}/few", self.few_ids, self.few_rows, Goal(low=1.5)),
                    self._figure(f"{folder}/many", self.many_ids, self.many_rows, Goal(low=5)),
                ]
            )

    def _figure(self, folder: str, ids: int, rows: int, goal: Goal) -> Figure:
        blocks = made_blocks(f"{folder}/blocks", [FIRST_ROWS, rows], ids, tasks=1)
        network = "fuxictr:diet_ray.bench.fuxictr_dcn:DCN"
        config = reference_config(f"{folder}/run", network, self.batch_rows)
        actions = {
            "ours": lambda: rows / reference_seconds(config, blocks),
            "theirs": lambda: their_pace(config, blocks, blocks.blocks[1]),
        }
        taken = by_turns(actions, self.repeats)
        found = ratio(taken["ours"], taken["theirs"])
        return Figure(
            f"reference / FuxiCTR's trainer, rows/s, {ids:,} ids, batch {self.batch_rows}",
            found.median,
            goal,
            parts={
                "ours rows/s": found.over,
                "FuxiCTR rows/s": found.under,
                **found.ends,
            },
        )


class Arrivals:
    """A loader that notes when its first batch came, and how many rows came after it."""

    def __init__(self, loader: Any, label: str) -> None:
        self._loader, self._label = loader, label
        self.first, self.rows_after = 0.0, 0

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[Any]:
        for number, batch in enumerate(self._loader):
            if number:
                self.rows_after += len(batch[self._label])
            else:
                self.first = time.perf_counter()
            yield batch


def their_pace(config: RunConfig, blocks: Blocks, block: Block) -> float:
    """Rows/s of an epoch by FuxiCTR's trainer, from its first batch on."""
    from fuxictr.pytorch.dataloaders import RankDataLoader  # noqa: PLC0415 - an extra

    from diet_ray.bench.fuxictr_dcn import theirs  # noqa: PLC0415

    model, features = theirs(
        block.vocabulary_sizes, blocks.tasks[0], config.models.embedding_dim, DCN_PARAMETERS
    )
    loader, _ = RankDataLoader(
        features,
        stage="train",
        train_data=storage.join(blocks.uri, block.name),
        batch_size=config.reference.batch_size,
        shuffle=False,
        data_format="parquet",
    )
    arrivals = Arrivals(loader, blocks.tasks[0])
    model.fit(arrivals)
    return arrivals.rows_after / (time.perf_counter() - arrivals.first)


@dataclass(frozen=True)
class ReferenceIds(Measure):
    """The reference's step time with many ids over that with few, on batches of equal size."""

    name: ClassVar[str] = "reference-ids"
    few_ids: int = size(100_000, "ids over all fields, below")
    many_ids: int = size(10_000_000, "ids over all fields, above")
    steps: int = size(100, "steps of an epoch")
    batch_rows: int = size(512, "rows of a step")
    repeats: int = size(3, "epochs of each, by turns")

    def needs(self) -> Needs:
        tables = table_bytes(self.many_ids)
        return Needs(2 * PROCESS_BYTES + TABLE_COPIES * tables, 3 * tables)

    def run(self, folder: str) -> Found:
        rows = self.steps * self.batch_rows
        actions = {}
        for ids in (self.many_ids, self.few_ids):
            place = f"{folder}/{ids}"
            blocks = made_blocks(f"{place}/blocks", [FIRST_ROWS, rows], ids)
            config = reference_config(f"{place}/run", "dcn", self.batch_rows)
            actions[f"{ids}"] = partial(reference_seconds, config, blocks)
        with runtime.connect(), one_thread():
            taken = by_turns(actions, self.repeats)
        found = ratio(taken[f"{self.many_ids}"], taken[f"{self.few_ids}"])
        of = f"reference, step with {self.many_ids:,} / {self.few_ids:,} ids"
        parts = {
            "many ms": 1e3 * found.over / self.steps,
            "few ms": 1e3 * found.under / self.steps,
            **found.ends,
        }
        return Found([Figure(of, found.median, Goal(high=1.2), parts=parts)])


@dataclass(frozen=True)
class Candidate(Measure):
    """What a sweep pays for a candidate over one epoch of its full training, in wall time.

    The candidate, a DCN, is co-trained as a trial does: all seeds side by side, then judged by
    each. The set is as large a share of the log as the defaults make it. A process each, one
    thread; a process's start is apart, as a sweep's workers start once.
    """

    name: ClassVar[str] = "candidate"
    rows: int = size(10_000_000, "rows of the log")
    ids: int = size(200_000, "ids over all fields")
    judged_rows: int = size(65_536, "validation rows that judge")
    repeats: int = size(2, "trainings of each kind, by turns")

    def needs(self) -> Needs:
        return Needs(
            2 * PROCESS_BYTES + TABLE_COPIES * table_bytes(self.ids), BYTES_PER_ROW * self.rows
        )

    def run(self, folder: str) -> Found:
        blocks = made_blocks(
            f"{folder}/blocks", [FIRST_ROWS, self.rows, self.judged_rows], self.ids
        )
        taken = by_turns(
            {
                "co-training": lambda: in_child(co_training_seconds, blocks.uri),
                "full": lambda: in_child(full_seconds, blocks.uri),
            },
            self.repeats,
        )
        found = ratio(taken["co-training"], taken["full"])
        of = f"co-training / full training of a candidate, wall time, {self.rows:,} rows"
        parts = {"co-training s": found.over, "full s": found.under}
        return Found([Figure(of, found.median, Goal(high=1 / 40), parts=parts)])


def co_training_seconds(uri: str) -> float:
    """Of a candidate on a set of rows of the second block, judged on the third."""
    torch.set_num_threads(1)
    config, blocks = run_config("anywhere"), open_blocks(uri)
    _, log, judged = blocks.blocks
    wanted = max(round(config.memory.ratio * log.rows), 1)
    rows = next(iterate_batches(blocks, log, wanted)).ids
    asked = read_block(blocks, judged)
    compact = CompactIds(rows)
    soft = SoftRows(torch.from_numpy(compact(rows)), torch.randn(len(rows), TASKS))
    sizes = dict(zip(blocks.fields, compact.sizes, strict=True))
    ids, teacher = compact(asked.ids), np.random.default_rng(0).normal(size=asked.labels.shape)
    protocol = config.evaluation.cotrain

    def trial(steps: int) -> None:
        few = protocol.model_copy(update={"steps": steps})
        network = config.evaluation.candidates[0]
        models, _ = co_trained(network, config.models, soft, sizes, TASKS, few, seed=0)
        for model in models:
            logits = predict(model, ids)
            measure(logits, asked.labels, blocks.tasks)
            taught_auc(logits, teacher)

    trial(2)  # what only a process's first trial pays
    return seconds_of(partial(trial, protocol.steps))


def full_seconds(uri: str) -> float:
    """Of the same candidate's epoch on the second block."""
    torch.set_num_threads(1)
    config, blocks = run_config("anywhere"), open_blocks(uri)
    models, sizes = config.models, dict.fromkeys(blocks.fields, 0)

    def train(block: Block) -> None:
        table = EmbeddingTable(sizes, models.embedding_dim, models.embedding_std, 0)
        network = config.evaluation.candidates[0]
        dense = fresh_network(network, models, FIELDS, TASKS, 0, "bench")
        train_through(Recommender(table, dense), blocks, [block], config.evaluation.protocol)

    train(blocks.blocks[0])  # what only a process's first training pays
    return seconds_of(partial(train, blocks.blocks[1]))
