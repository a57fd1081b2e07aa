"""Algorithm 1: the new rows of a stage, and their fusion with the previous memory."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from diet_ray.config import ConfigError, RunConfig
from diet_ray.distill.context import Stage
from diet_ray.distill.proxy import inner_start
from diet_ray.distill.worker import RealRows, StoredRows
from diet_ray.logs.blocks import Blocks, Rows, read_rows
from diet_ray.memory.rows import SyntheticRows
from diet_ray.scoring.el2n import EL2NScoring
from diet_ray.scoring.scan import scan
from diet_ray.scoring.selection import bands, group_shares, select_ranks
from diet_ray.seeds import numpy_generator
from diet_ray.training.model import predict
from diet_ray.training.reference import Reference, reference_uri

SMALLEST_PROBABILITY = 1e-6  # a soft label is a finite logit


def memory_sizes(config: RunConfig, blocks: Blocks) -> list[tuple[int, int]]:
    """For every stage the number of new and of kept rows.

    After stage t the memory holds `ratio` of the rows of D_1..D_t; of the previous memory the
    share `keep` stays, the rest makes place for new rows, at most as many as D_t has. Raises
    ConfigError if a stage would hold no row.
    """
    sizes, seen, total = [], 0, 0
    for block in blocks.historical:
        seen += block.rows
        wanted = round(config.memory.ratio * seen)
        kept = round(config.memory.keep * total)
        new = min(max(wanted - kept, 0), block.rows)
        if new == 0:
            raise ConfigError(
                f"memory.ratio {config.memory.ratio} selects no new row of {block.name} "
                f"({block.rows} rows); raise memory.ratio or lower memory.keep"
            )
        sizes.append((new, kept))
        total = new + kept
    return sizes


def new_rows(stage: Stage, count: int) -> Rows:
    """`count` rows of D_t that become synthetic, chosen as `memory.new_rows` says."""
    block, memory = stage.block, stage.config.memory
    if memory.new_rows == "random":
        draw = numpy_generator(stage.config.seed, "new rows", stage.number)
        chosen = np.sort(draw.choice(block.rows, count, replace=False))
        return read_rows(stage.blocks, block, block.fragments[0].first_row_id + chosen)
    uri = reference_uri(stage.config, stage.number)
    scoring = EL2NScoring(uri, stage.reference.identity)
    scores = scan(stage.config, stage.blocks, block, scoring, stage.scores("el2n"))
    shares = group_shares(scores.group_rows, count, memory.group_alpha)
    ranks = bands(scores.group_rows, shares, memory.percentile)
    return read_rows(stage.blocks, block, select_ranks(scores, ranks))


@torch.no_grad()
def synthesise(rows: Rows, reference: Reference, truth_blend: float = 0.0) -> SyntheticRows:
    """Real rows as synthetic ones: (E_phi_t(x), logits f_phi_t(x)) (paper, equation 8).

    truth_blend: share of the rows' own labels in the probabilities behind the soft labels.
    """
    logits = torch.from_numpy(predict(reference.recommender, rows.ids))
    if truth_blend:
        truth = torch.from_numpy(rows.labels)
        blended = (1 - truth_blend) * torch.sigmoid(logits) + truth_blend * truth
        logits = torch.logit(blended, eps=SMALLEST_PROBABILITY)
    return SyntheticRows(
        embeddings=reference.table(torch.from_numpy(rows.ids)).numpy(),
        labels=logits.numpy(),
        stages=np.full(len(rows), reference.stage, dtype=np.int32),
        source_rows=rows.row_ids,
        anchors=rows.ids.astype(np.int32),
    )


@torch.no_grad()
def re_embed(rows: SyntheticRows, old: Reference, new: Reference) -> SyntheticRows:
    """Rows of old's embedding space in new's: embedding + E_new(anchor) - E_old(anchor)."""
    if old.identity == new.identity:
        return rows
    ids = torch.from_numpy(rows.anchors.astype(np.int64))
    return replace(rows, embeddings=rows.embeddings + (new.table(ids) - old.table(ids)).numpy())


def follow_reference(rows: SyntheticRows, old: Reference, new: Reference) -> SyntheticRows:
    """Rows of old's stage for new's: what changed of a row's anchor is added to what it learned.

    The embedding as `re_embed`, the label + f_new(anchor) - f_old(anchor).
    """
    anchors = rows.anchors.astype(np.int64)
    taught = predict(new.recommender, anchors) - predict(old.recommender, anchors)
    return replace(re_embed(rows, old, new), labels=rows.labels + taught)


def fuse(stage: Stage, boundary: Rows, previous: SyntheticRows, keep: int) -> SyntheticRows:
    """The `keep` rows of the previous memory with the largest influence on the new boundary rows.

    w(s) = sum over boundary rows b of I(s, b) (paper, equation 10), in their old order.
    """
    if keep >= len(previous):
        return previous
    workers, theta = stage.workers, inner_start(stage.config, stage.number, 0)
    direction = workers.summed_gradient(stage.number, RealRows(boundary), len(boundary), theta)
    stored = StoredRows(previous.embeddings, previous.labels)
    influence = workers.alignments(stage.number, stored, len(previous), theta, direction)
    return previous.take(np.sort(np.argsort(-influence, kind="stable")[:keep]))
