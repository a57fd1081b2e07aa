"""Bidirectional memory addressing (paper, section 4.2.1): hard targets and active memory.

Both directions are one summed gradient and one JVP per batch (see `scoring/alignment.py`). What a
round found is saved, so that a resumed round goes on with the same targets although the memory
has moved since. Found are row ids and positions; of the targets only those that the round's
shards draw are read (`drawn_targets`), so a block may be of any size.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from diet_ray import storage, tensor_files
from diet_ray.config import ConfigError
from diet_ray.distill.context import Stage
from diet_ray.distill.positions import Positions, pick
from diet_ray.distill.proxy import proxy_networks
from diet_ray.distill.sources import BlockRows, ServedRows
from diet_ray.distill.worker import Targets, shard_draw
from diet_ray.memory.coordinator import MemoryCoordinator
from diet_ray.scoring.alignment import AlignmentScoring
from diet_ray.scoring.scan import Sample, scan
from diet_ray.scoring.selection import smallest
from diet_ray.training.reference import reference_uri


@dataclass(frozen=True)
class Addressed:
    """What a round works on."""

    targets: Positions  # row ids of the hard targets H
    active: Positions  # rows of the memory


def address(stage: Stage, memory: MemoryCoordinator, round_number: int) -> Addressed:
    """Hard targets of the block and active rows of the memory as it is now.

    Where all of the block are candidates and all candidates are hard, or all rows are active,
    alignment decides nothing and is not computed.
    """
    distill, block = stage.config.distill, stage.block
    first = block.fragments[0].first_row_id
    every_target = range(first, first + block.rows)
    every_row = range(len(memory.client))
    all_hard = distill.candidate_fraction == distill.hard_fraction == 1
    if all_hard and distill.active_fraction == 1:
        return Addressed(every_target, every_row)
    saved = stage.work(f"round={round_number}.safetensors")
    if not storage.exists(saved):
        theta = stage.workers.inner_start(stage.number, round_number)
        rows = ServedRows(memory.client, memory.step)
        found: dict[str, np.ndarray] = {}
        targets: Positions = every_target
        if not all_hard:
            targets = found["targets"] = _least_aligned(stage, rows, theta, round_number)
        if distill.active_fraction < 1:
            found["active"] = _most_responsible(stage, rows, theta, targets)
        tensor_files.write_sealed(saved, found)
    arrays = tensor_files.read(saved)
    return Addressed(arrays.get("targets", every_target), arrays.get("active", every_row))


def drawn_targets(stage: Stage, targets: Positions, round_number: int) -> Targets:
    """Those of the hard targets that some shard of the round draws, read by the workers."""
    distill = stage.config.distill
    steps = range(round_number * distill.outer_steps, (round_number + 1) * distill.outer_steps)
    drawn = [
        shard_draw(stage.config, len(targets), stage.number, round_number, step, shard)[1]
        for step in steps
        for shard in range(distill.logical_shards)
    ]
    positions = np.unique(np.concatenate(drawn))
    rows = stage.workers.real_rows(stage.blocks, stage.block, pick(targets, positions))
    return Targets(len(targets), positions, *rows)


def _least_aligned(
    stage: Stage, rows: ServedRows, theta: np.ndarray, round_number: int
) -> np.ndarray:
    """Row ids of the candidates with the smallest alignment deficiency A (paper, equation 16)."""
    config, block, distill = stage.config, stage.block, stage.config.distill
    direction = stage.workers.summed_gradient(stage.number, rows, len(rows.memory), theta)
    scoring = AlignmentScoring.put(
        reference_uri(config, stage.embedder.stage),
        stage.embedder.identity,
        proxy_networks(config)[0],
        theta,
        direction,
        config.scoring.alignment,
    )
    path = ("hard target candidates", stage.number, round_number)
    sample = Sample(distill.candidate_fraction, config.seed, path)
    folder = stage.scores(f"alignment-round={round_number}")
    stage.workers.make_room()
    scores = scan(config, stage.blocks, block, scoring, folder, sample)
    count = round(distill.hard_fraction * sum(scores.group_rows.values()))
    if count == 0:
        raise ConfigError(
            f"distill.candidate_fraction {distill.candidate_fraction} and hard_fraction "
            f"{distill.hard_fraction} leave no hard target of {block.name} ({block.rows} rows); "
            "raise one of them"
        )
    return smallest(scores, count)


def _most_responsible(
    stage: Stage, rows: ServedRows, theta: np.ndarray, targets: Positions
) -> np.ndarray:
    """The rows of the memory with the largest responsibility R (paper, equation 17), ascending."""
    workers, number = stage.workers, stage.number
    count = max(round(stage.config.distill.active_fraction * len(rows.memory)), 1)
    hard = BlockRows(stage.blocks, stage.block, targets)
    towards = workers.summed_gradient(number, hard, len(targets), theta)
    responsibility = workers.alignments(number, rows, len(rows.memory), theta, towards)
    return np.sort(np.argsort(-responsibility, kind="stable")[:count]).astype(np.int64)
