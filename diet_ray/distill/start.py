"""The rows that a stage starts with, made where they are written: real rows become synthetic ones,
and those of the previous memory are carried over."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch

from diet_ray.config import RunConfig
from diet_ray.distill.positions import Positions
from diet_ray.distill.proxy import embedding_stage
from diet_ray.logs.blocks import Block, Blocks, Rows, read_rows
from diet_ray.memory.files import RowFiles
from diet_ray.memory.rows import SyntheticRows, unmoved
from diet_ray.training.model import predict
from diet_ray.training.reference import Reference

SMALLEST_PROBABILITY = 1e-6  # a soft label is a finite logit


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


def start_rows(
    models: StageModels,
    blocks: Blocks,
    block: Block,
    previous: RowFiles | None,
    kept: Positions,
    new: np.ndarray,
) -> SyntheticRows:
    """Some rows of a stage's start: the `kept` ones of the previous memory as this stage takes
    them over, then the `new` ones of the block by their row ids."""
    parts = []
    if previous is not None and len(kept):
        parts.append(carried_over(previous.take(kept), models))
    if len(new):
        blend = models.config.memory.truth_blend
        parts.append(synthesise(read_rows(blocks, block, new), models.reference, blend))
    return SyntheticRows.concatenate(parts)


@torch.no_grad()
def synthesise(rows: Rows, reference: Reference, truth_blend: float = 0.0) -> SyntheticRows:
    """Real rows as synthetic ones: (E_phi_t(x), logits f_phi_t(x)) (paper, equation 8).

    truth_blend: share of the rows' own labels in the probabilities behind the soft labels.
    """
    taught = predict(reference.recommender, rows.ids)
    labels = taught
    if truth_blend:
        truth = torch.from_numpy(rows.labels)
        blended = (1 - truth_blend) * torch.sigmoid(torch.from_numpy(taught)) + truth_blend * truth
        labels = torch.logit(blended, eps=SMALLEST_PROBABILITY).numpy()
    return SyntheticRows(
        anchors=rows.ids.astype(np.int32),
        labels=labels,
        taught=taught,
        stages=np.full(len(rows), reference.stage, dtype=np.int32),
        source_rows=rows.row_ids,
        **unmoved((rows.ids.shape[1], reference.models.embedding_dim), len(rows)),
    )


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
