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
from diet_ray.distill.addressing import Addressed, address
from diet_ray.distill.start import synthesise
from diet_ray.distill.context import Stage
from diet_ray.distill.proxy import inner_start
from diet_ray.distill.worker import ServedRows
from diet_ray.logs.blocks import read_block
from diet_ray.memory.rows import SyntheticRows
from tests.distill.prepared import (
    LocalMemory,
    Prepared,
    assert_smallest,
    embedded,
    network_of,
    open_stage,
    row_gradients,
)
from tests.networks import small_network

STAGE, ROUND, SYNTHETIC = 2, 1, 30


def moved_rows(stage: Stage) -> SyntheticRows:
    """A memory that learning has moved."""
    rows = synthesise(
        read_block(stage.blocks, stage.block).take(slice(0, SYNTHETIC)), stage.reference
    )
    draw = np.random.default_rng(0)
    moved = rows.embeddings + 0.1 * draw.normal(size=rows.embeddings.shape)
    return replace(rows, embeddings=moved.astype(np.float32))


def memory_of(folder: Path, rows: SyntheticRows) -> Any:
    return SimpleNamespace(client=LocalMemory(folder, rows), step=0)


def assert_found(stage: Stage, rows: SyntheticRows, found: Addressed) -> None:
    config, block = stage.config, read_block(stage.blocks, stage.block)
    theta, network = inner_start(config, STAGE, ROUND), network_of(stage.reference)
    real = row_gradients(network, theta, *embedded(stage.reference, block))
    synthetic = row_gradients(
        network, theta, torch.tensor(rows.embeddings), torch.tensor(rows.labels).sigmoid()
    )
    influence = synthetic @ real.T  # eta <grad l(s), grad l(b)> of every pair, (n, B)
    hard = found.targets.row_ids - block.row_ids[0]
    assert_smallest(hard, influence.sum(axis=0), round(config.distill.hard_fraction * len(block)))
    assert (found.targets.ids == block.ids[hard]).all()
    responsibility = influence[:, hard].sum(axis=1)
    active = round(config.distill.active_fraction * len(rows))
    assert_smallest(found.active, -responsibility, active)
    assert (np.diff(found.active) > 0).all()


def test_hard_targets_and_active_memory(prepared: Prepared, tmp_path: Path) -> None:
    config = prepared.config(tmp_path)
    stage = open_stage(config, prepared.blocks, STAGE)
    rows = moved_rows(stage)
    found = address(stage, memory_of(tmp_path / "memory", rows), ROUND)

    # a resumed round finds them again, whatever the memory has become
    again = address(replace(stage, workers=None), None, ROUND)  # type: ignore[arg-type]
    assert (again.targets.row_ids == found.targets.row_ids).all()
    assert (again.active == found.active).all()
    assert again.active.dtype == found.active.dtype == np.int64
    assert_found(stage, rows, found)  # last, since it turns the reference into float64


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
    ranked = module._most_responsible(stage, served, theta, scored, len(rows))

    monkeypatch.setattr(module, "scan", None)
    found = address(replace(stage, workers=None), memory, ROUND)  # type: ignore[arg-type]
    for name in ("row_ids", "ids", "labels"):
        skipped, expected = getattr(found.targets, name), getattr(scored, name)
        assert skipped.dtype == expected.dtype
        assert skipped.tobytes() == expected.tobytes()
    assert found.active.dtype == ranked.dtype == np.int64
    assert found.active.tolist() == ranked.tolist()


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
    proxy = stage.reference.fresh(small_network("wukong"), 0)
    assert_found(replace(stage, reference=replace(stage.reference, dense=proxy)), rows, found)


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
