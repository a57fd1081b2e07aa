"""What a candidate is trained on, by method: all under one protocol (paper, section 5.1.3).

full      all historical blocks and the subsequent one, from scratch, one epoch
warm      phi_T's embedding tables, then the subsequent block
random    warm, after a warm-up on rows drawn at random from the history, with phi_T's soft labels
distilled warm, after a warm-up on the distilled set
"""

from __future__ import annotations

import numpy as np
import torch

from diet_ray.config import RunConfig
from diet_ray.logs.blocks import Blocks, Rows, read_rows
from diet_ray.memory import artifact
from diet_ray.seeds import numpy_generator
from diet_ray.training.candidate import WarmUpRows
from diet_ray.training.model import predict
from diet_ray.training.reference import Reference

METHODS = ("full", "warm", "random", "distilled")
REDUCED = ("random", "distilled")


def warm_up_rows(
    method: str, config: RunConfig, blocks: Blocks, reference: Reference, distilled: str, seed: int
) -> WarmUpRows:
    """The reduced set of a method in REDUCED, as many rows for each; distilled: the set's URI."""
    if method == "distilled":
        dataset = artifact.load_distilled(distilled)
        return WarmUpRows(dataset.embeddings, dataset.labels, dataset.weights)
    count = artifact.describe(distilled).rows
    return teacher_labelled(random_rows(config, blocks, count, seed), reference)


def random_rows(config: RunConfig, blocks: Blocks, count: int, seed: int) -> Rows:
    """`count` rows drawn from all historical blocks without replacement, in time order."""
    first = blocks.historical[0].fragments[0].first_row_id
    draw = numpy_generator(config.seed, "random selection", seed)
    row_ids = np.sort(first + draw.choice(blocks.historical_rows, count, replace=False))
    parts = []
    for block in blocks.historical:
        start = block.fragments[0].first_row_id
        inside = row_ids[(row_ids >= start) & (row_ids < start + block.rows)]
        if len(inside):
            parts.append(read_rows(blocks, block, inside))
    return Rows.concatenate(parts)


@torch.no_grad()
def teacher_labelled(rows: Rows, reference: Reference) -> WarmUpRows:
    """Real rows with phi_T's embeddings and its logits as soft labels."""
    return WarmUpRows(
        reference.table(torch.from_numpy(rows.ids)),
        torch.from_numpy(predict(reference.recommender, rows.ids)),
        torch.ones(len(rows)),
    )
