"""A candidate's training: warm-up on a reduced set, one epoch on real blocks, judged on test.

The warm-up (paper, section 4.2.2) trains the dense network alone, on embeddings and soft labels,
for up to `epochs` epochs; the epoch that is best on validation counts. Then the whole model,
with phi_T's tables underneath, is trained for one epoch on the subsequent block.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence

from torch import Tensor

from diet_ray.config import ProtocolConfig
from diet_ray.logs.blocks import Block, Blocks, Rows, iterate_batches
from diet_ray.models.embedding import EmbeddingTable
from diet_ray.models.registry import DenseNetwork
from diet_ray.seeds import torch_generator, torch_seeded
from diet_ray.training.curve import LossCurve
from diet_ray.training.metrics import Metrics, measure
from diet_ray.training.model import Recommender, adam, predict, train_epoch
from diet_ray.training.soft_rows import SoftRows, soft_epoch


def warm_up(
    dense: DenseNetwork,
    table: EmbeddingTable,
    rows: SoftRows,
    validation: Rows,
    tasks: Sequence[str],
    protocol: ProtocolConfig,
    seed: int,
    after_epoch: Callable[[list[Metrics]], None] = lambda _history: None,
) -> list[Metrics]:
    """Train `dense` in place to its best epoch on validation; returns the metrics of every epoch.

    `table` is only looked up, never changed. after_epoch gets the metrics of all epochs so far.
    """
    optimizer = adam(dense, protocol.warm_up_learning_rate)
    history: list[Metrics] = []
    best: dict[str, Tensor] = {}
    for epoch in range(protocol.epochs):
        generator = torch_generator(seed, "warm-up order", epoch)
        with torch_seeded(seed, "warm-up noise", epoch):  # of dropout
            soft_epoch(dense, optimizer, rows, protocol.warm_up_batch_size, generator)
        logits = predict(Recommender(table, dense), validation.ids)
        history.append(measure(logits, validation.labels, tasks))
        if history[-1].auc == max(metrics.auc for metrics in history):
            best = copy.deepcopy(dense.state_dict())
        after_epoch(history)
    dense.load_state_dict(best)
    return history


def best_epoch(aucs: Sequence[float]) -> int:
    """The epoch that a warm-up keeps, from 1: of equal ones the last; 0 without a warm-up."""
    return max(enumerate(aucs, start=1), key=lambda epoch: epoch[::-1], default=(0, 0.0))[0]


def train_through(
    model: Recommender,
    blocks: Blocks,
    through: Sequence[Block],
    protocol: ProtocolConfig,
    share: float = 1.0,
) -> list[float]:
    """One epoch of the whole model over blocks in time order, its table grown to hold them.

    share: of the blocks' rows, the first ones. Returns the progressive loss (`curve.py`).
    """
    rows = max(round(share * sum(block.rows for block in through)), 1)
    curve = LossCurve(rows)
    model.table.grow(through[-1].vocabulary_sizes)
    model.requires_grad_(True)
    batches = (
        batch for block in through for batch in iterate_batches(blocks, block, protocol.batch_size)
    )
    train_epoch(model, _first(batches, rows), protocol.learning_rate, after_batch=curve.add)
    return curve.means()


def _first(batches: Iterable[Rows], rows: int) -> Iterator[Rows]:
    """The first `rows` rows; the last batch is cut."""
    for batch in batches:
        yield batch.take(slice(0, rows))
        rows -= len(batch)
        if rows <= 0:
            return
