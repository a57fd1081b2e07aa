"""Bidirectional memory addressing (paper, section 4.2.1): hard targets and active memory.

Both directions are one summed gradient and one JVP per batch (see `scoring/alignment.py`). What a
round found is saved, so that a resumed round goes on with the same targets although the memory
has moved since.

A round's targets stay in memory, whole, while it lasts: in the driver, and once per node in the
object store, which every worker maps (8 bytes per field and row, and some more). With
`hard_fraction` and `candidate_fraction` 1 that is the whole block, so a block must fit there; one
that does not needs a smaller `candidate_fraction`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from diet_ray import storage
from diet_ray.config import ConfigError
from diet_ray.distill.context import Stage
from diet_ray.distill.proxy import inner_start, proxy_networks
from diet_ray.distill.worker import RealRows, ServedRows
from diet_ray.logs.blocks import Rows, read_block, read_rows
from diet_ray.memory.coordinator import MemoryCoordinator
from diet_ray.scoring.alignment import AlignmentScoring
from diet_ray.scoring.scan import Sample, scan
from diet_ray.scoring.selection import smallest
from diet_ray.training.reference import reference_uri


@dataclass(frozen=True)
class Addressed:
    """What a round works on."""

    targets: Rows  # hard targets H
    active: np.ndarray  # (m,) int64, rows of the memory, ascending


def address(stage: Stage, memory: MemoryCoordinator, round_number: int) -> Addressed:
    """Hard targets of the block and active rows of the memory as it is now."""
    saved = stage.work(f"round={round_number}.safetensors")
    if storage.exists(saved):
        arrays = storage.read_tensors(saved)
        targets = read_rows(stage.blocks, stage.block, arrays["targets"])
        return Addressed(targets, arrays["active"])
    theta = inner_start(stage.config, stage.number, round_number)
    rows = ServedRows(memory.client, memory.step)
    targets = _hard_targets(stage, rows, theta, round_number)
    active = _active_rows(stage, rows, theta, targets)
    storage.write_tensors(saved, {"targets": targets.row_ids, "active": active})
    return Addressed(targets, active)


def _hard_targets(stage: Stage, rows: ServedRows, theta: np.ndarray, round_number: int) -> Rows:
    """The candidates with the smallest alignment deficiency A (paper, equation 16).

    Where all of the block are candidates and all candidates are hard, A decides nothing and no
    row is scored.
    """
    distill = stage.config.distill
    if distill.candidate_fraction == distill.hard_fraction == 1:
        return read_block(stage.blocks, stage.block)
    return _least_aligned(stage, rows, theta, round_number)


def _least_aligned(stage: Stage, rows: ServedRows, theta: np.ndarray, round_number: int) -> Rows:
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
    scores = scan(config, stage.blocks, block, scoring, folder, sample)
    count = round(distill.hard_fraction * sum(scores.group_rows.values()))
    if count == 0:
        raise ConfigError(
            f"distill.candidate_fraction {distill.candidate_fraction} and hard_fraction "
            f"{distill.hard_fraction} leave no hard target of {block.name} ({block.rows} rows); "
            "raise one of them"
        )
    return read_rows(stage.blocks, block, smallest(scores, count))


def _active_rows(stage: Stage, rows: ServedRows, theta: np.ndarray, targets: Rows) -> np.ndarray:
    """The rows of the memory with the largest responsibility R (paper, equation 17), (m,) int64.

    Where all of them are active, R decides nothing and is not computed.
    """
    count, fraction = len(rows.memory), stage.config.distill.active_fraction
    if fraction == 1:
        return np.arange(count)
    return _most_responsible(stage, rows, theta, targets, max(round(fraction * count), 1))


def _most_responsible(
    stage: Stage, rows: ServedRows, theta: np.ndarray, targets: Rows, count: int
) -> np.ndarray:
    workers, number = stage.workers, stage.number
    towards = workers.summed_gradient(number, RealRows(targets), len(targets), theta)
    responsibility = workers.alignments(number, rows, len(rows.memory), theta, towards)
    return np.sort(np.argsort(-responsibility, kind="stable")[:count]).astype(np.int64)
