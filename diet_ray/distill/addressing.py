"""Bidirectional memory addressing (paper, section 4.2.1): hard targets and active memory.

Both directions are one summed gradient and one JVP per batch (see `scoring/alignment.py`). What a
round found is saved, so that a resumed round goes on with the same targets although the memory
has moved since.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from diet_ray import storage
from diet_ray.config import ConfigError
from diet_ray.distill.context import Stage
from diet_ray.distill.worker import RealRows, ServedRows, inner_start
from diet_ray.logs.blocks import Rows, read_rows
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
    config, workers, number = stage.config, stage.workers, stage.number
    theta = inner_start(config, number, round_number)
    rows, count = ServedRows(memory.client, memory.step), len(memory.client)
    direction = workers.summed_gradient(number, rows, count, theta)
    targets = _hard_targets(stage, theta, direction, round_number)
    towards = workers.summed_gradient(number, RealRows(targets), len(targets), theta)
    responsibility = workers.alignments(number, rows, count, theta, towards)
    active_rows = max(round(config.distill.active_fraction * count), 1)
    active = np.sort(np.argsort(-responsibility, kind="stable")[:active_rows]).astype(np.int64)
    storage.write_tensors(saved, {"targets": targets.row_ids, "active": active})
    return Addressed(targets, active)


def _hard_targets(
    stage: Stage, theta: np.ndarray, direction: np.ndarray, round_number: int
) -> Rows:
    """The candidates with the smallest alignment deficiency A (paper, equation 16)."""
    config, block, distill = stage.config, stage.block, stage.config.distill
    uri = reference_uri(config, stage.embedder.stage)
    scoring = AlignmentScoring.put(uri, stage.embedder.identity, theta, direction)
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
