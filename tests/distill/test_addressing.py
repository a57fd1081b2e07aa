"""Bidirectional addressing against dot products of single rows' gradients, in float64."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from diet_ray import storage
from diet_ray.config import ConfigError
from diet_ray.distill import addressing as module
from diet_ray.distill.addressing import Addressed, address, drawn_targets
from diet_ray.distill.context import Stage
from diet_ray.distill.positions import Positions
from diet_ray.distill.proxy import inner_start
from diet_ray.distill.sources import ServedRows
from diet_ray.distill.start import synthesise
from diet_ray.distill.worker import shard_draw
from diet_ray.logs.blocks import read_block
from diet_ray.memory.rows import SyntheticRows
from diet_ray.training.reference import Reference
from tests.distill.prepared import (
    LocalMemory,
    Prepared,
    assert_smallest,
    embedded,
    network_of,
    open_stage,
    phi,
    row_gradients,
)
from tests.networks import small_network

STAGE, ROUND, SYNTHETIC = 2, 1, 30


def moved_rows(stage: Stage) -> SyntheticRows:
    """A memory that learning has moved."""
    real = read_block(stage.blocks, stage.block).take(slice(0, SYNTHETIC))
    rows, draw = synthesise(real, phi(stage.config, STAGE)), np.random.default_rng(0)
    shape = SYNTHETIC, *rows.deltas.shape[1:]
    return rows.with_deltas(0.1 * draw.normal(size=shape).astype(np.float32))


def memory_of(folder: Path, rows: SyntheticRows) -> Any:
    return SimpleNamespace(client=LocalMemory(folder, rows), step=0)


def assert_found(
    stage: Stage, rows: SyntheticRows, found: Addressed, proxy: Reference | None = None
) -> None:
    config, block = stage.config, read_block(stage.blocks, stage.block)
    reference = phi(config, STAGE)
    theta, network = inner_start(config, STAGE, ROUND), network_of(proxy or phi(config, STAGE))
    real = row_gradients(network, theta, *embedded(reference, block))
    embeddings = torch.tensor(rows.embeddings(reference.table))
    synthetic = row_gradients(network, theta, embeddings, torch.tensor(rows.labels).sigmoid())
    influence = synthetic @ real.T  # eta <grad l(s), grad l(b)> of every pair, (n, B)
    hard = np.asarray(found.targets) - block.row_ids[0]
    assert_smallest(hard, influence.sum(axis=0), round(config.distill.hard_fraction * len(block)))
    responsibility = influence[:, hard].sum(axis=1)
    active = np.asarray(found.active)
    count = round(config.distill.active_fraction * len(rows))
    assert_smallest(active, -responsibility, count)
    assert (np.diff(active) > 0).all()


def test_hard_targets_and_active_memory(prepared: Prepared, tmp_path: Path) -> None:
    config = prepared.config(tmp_path)
    stage = open_stage(config, prepared.blocks, STAGE)
    rows = moved_rows(stage)
    found = address(stage, memory_of(tmp_path / "memory", rows), ROUND)

    # a resumed round finds them again, whatever the memory has become
    other = memory_of(tmp_path / "other", moved_rows(stage))
    again = address(replace(stage, workers=None), other, ROUND)  # type: ignore[arg-type]
    for name in ("targets", "active"):
        first, second = getattr(found, name), getattr(again, name)
        assert first.dtype == second.dtype == np.int64
        assert first.tolist() == second.tolist()
    assert_found(stage, rows, found)


def test_where_all_rows_are_taken_nothing_is_scored(
    prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what is found is what scores would have chosen."""
    config = prepared.config(tmp_path, distill={"hard_fraction": 1.0, "active_fraction": 1.0})
    stage = open_stage(config, prepared.blocks, STAGE)
    rows = moved_rows(stage)
    memory = memory_of(tmp_path / "memory", rows)
    served = ServedRows(memory.client, memory.step)
    theta = inner_start(config, STAGE, ROUND)
    scored = module._least_aligned(stage, served, theta, ROUND)
    ranked = module._most_responsible(stage, served, theta, scored)

    monkeypatch.setattr(module, "scan", None)
    found = address(replace(stage, workers=None), memory, ROUND)  # type: ignore[arg-type]
    assert list(found.targets) == scored.tolist()
    assert list(found.active) == ranked.tolist()
    assert not storage.exists(stage.work(f"round={ROUND}.safetensors"))


@pytest.mark.parametrize("some", [False, True])
def test_the_targets_that_a_round_draws_are_read(
    prepared: Prepared, tmp_path: Path, some: bool
) -> None:
    """By every shard of every step; no other row of the block is."""
    config = prepared.config(tmp_path, distill={"target_batch": 7, "outer_steps": 2})
    stage = open_stage(config, prepared.blocks, STAGE)
    block, distill = read_block(stage.blocks, stage.block), config.distill
    of = np.arange(3, len(block), 5) if some else np.arange(len(block))
    row_ids: Positions = block.row_ids[of]
    if not some:
        row_ids = range(int(block.row_ids[0]), int(block.row_ids[-1]) + 1)
    found, seen = drawn_targets(stage, row_ids, ROUND), set()
    for step in range(ROUND * distill.outer_steps, (ROUND + 1) * distill.outer_steps):
        for shard in range(distill.logical_shards):
            chosen = shard_draw(config, len(of), STAGE, ROUND, step, shard)[1]
            rows = found.at(chosen)
            assert rows.ids.tolist() == block.ids[of[chosen]].tolist()
            assert rows.labels.tolist() == block.labels[of[chosen]].tolist()
            seen |= set(chosen.tolist())
    assert found.positions.tolist() == sorted(seen)
    assert len(seen) < len(of)


@pytest.mark.parametrize("kept", ["hard_fraction", "active_fraction"])
def test_one_direction_alone_may_take_all(prepared: Prepared, tmp_path: Path, kept: str) -> None:
    fractions = {"hard_fraction": 0.3, "active_fraction": 0.5, kept: 1.0}
    stage = open_stage(prepared.config(tmp_path, distill=fractions), prepared.blocks, STAGE)
    rows = moved_rows(stage)
    found = address(stage, memory_of(tmp_path / "memory", rows), ROUND)
    assert_found(stage, rows, found)


def test_another_proxy_than_the_references_network(prepared: Prepared, tmp_path: Path) -> None:
    inner = {"networks": [small_network("wukong").model_dump()], "start": "fresh"}
    stage = open_stage(prepared.config(tmp_path, distill={"inner": inner}), prepared.blocks, STAGE)
    rows = moved_rows(stage)
    found = address(stage, memory_of(tmp_path / "memory", rows), ROUND)
    reference = phi(stage.config, STAGE)
    proxy = replace(reference, dense=reference.fresh(small_network("wukong"), 0))
    assert_found(stage, rows, found, proxy)


def test_no_hard_target_is_refused(prepared: Prepared, tmp_path: Path) -> None:
    config = prepared.config(tmp_path, distill={"hard_fraction": 0.001})
    stage = open_stage(config, prepared.blocks, STAGE)
    message = (
        r"candidate_fraction 1\.0 and hard_fraction 0\.001 leave no hard target of historical-2"
    )
    memory = memory_of(tmp_path / "memory", moved_rows(stage))
    with pytest.raises(ConfigError, match=message):
        address(stage, memory, 0)
    assert not storage.exists(stage.work("round=0.safetensors"))
