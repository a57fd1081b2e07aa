"""A small run whose distilled set is simply real rows, put there without distillation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from diet_ray.config import RunConfig
from diet_ray.logs.blocks import Blocks, read_block
from diet_ray.memory import artifact
from diet_ray.memory.rows import SyntheticRows
from diet_ray.training.reference import Reference

DISTILLED_ROWS = 40


@dataclass(frozen=True)
class Prepared:
    config: RunConfig
    blocks: Blocks
    reference: Reference
    distilled: str


def publish_distilled(
    uri: str, blocks: Blocks, reference: Reference, rows: int = DISTILLED_ROWS, first: int = 0
) -> None:
    """Rows of D_1 from `first` on, embedded by the reference, with confident labels."""
    real = read_block(blocks, blocks.historical[0]).take(slice(first, first + rows))
    with torch.no_grad():
        embeddings = reference.table(torch.from_numpy(real.ids)).numpy()
    synthetic = SyntheticRows(
        embeddings=embeddings,
        labels=real.labels * 4 - 2,
        stages=np.ones(rows, dtype=np.int32),
        source_rows=real.row_ids,
        weights=np.linspace(0.5, 1.5, rows, dtype=np.float32),
        anchors=real.ids.astype(np.int32),
    )
    description = artifact.Description(
        stage=2,
        rows=rows,
        fields=blocks.fields,
        tasks=blocks.tasks,
        embedding_dim=embeddings.shape[2],
        reference=reference.identity,
        made_from={},
    )
    artifact.publish(uri, synthetic, description)
