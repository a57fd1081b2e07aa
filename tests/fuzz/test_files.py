"""Damaged files of rows, tensors and scores of ours: never other numbers, but an error of ours.

Files of blocks have no checksum of their own; theirs may be read with other numbers.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diet_ray import storage, tensor_files
from diet_ray.logs.blocks import open_blocks, read_block
from diet_ray.memory import artifact
from diet_ray.scoring.selection import _read_side_car
from diet_ray.training.reference import load_reference
from tests.fuzz.damage import damages, fuzzed, only_our_errors
from tests.fuzz.published import Published, publish
from tests.sets import assert_same


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Published:
    return publish(tmp_path_factory.mktemp("published"))


@pytest.fixture(scope="module")
def side_car(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("scan") / "fragment.parquet"
    columns = {
        "row_id": np.arange(50),
        "group": np.arange(50, dtype=np.int32) % 3,
        "score": np.arange(50, dtype=np.float32),
    }
    storage.write_parquet(str(path), pa.table(columns))
    return path


def damaged(path: Path, damage: Any, whole: bytes) -> bool:
    """Whether the file is another now."""
    path.write_bytes(damage(whole))
    return path.read_bytes() != whole


@fuzzed
@given(damage=damages, number=st.integers(0, 1))
def test_a_fragment(published: Published, damage: Any, number: int) -> None:
    blocks = open_blocks(published.blocks)
    block = blocks.blocks[number]
    path = Path(published.blocks, block.fragments[0].path)
    whole = path.read_bytes()
    try:
        damaged(path, damage, whole)
        with only_our_errors():
            assert len(read_block(blocks, block)) == block.rows
    finally:
        path.write_bytes(whole)


@fuzzed
@given(damage=damages, name=st.sampled_from(["rows-00000.parquet", "_ranking.safetensors"]))
def test_a_file_of_a_stage(published: Published, damage: Any, name: str) -> None:
    path = Path(published.stage, name)
    whole, expected = path.read_bytes(), artifact.read(published.stage)
    try:
        other = damaged(path, damage, whole)
        with only_our_errors():
            assert_same(artifact.read(published.stage), expected)
            artifact.read_ranking_data(published.stage)
            assert not other, "damage was not seen"
    finally:
        path.write_bytes(whole)


@fuzzed
@given(damage=damages)
def test_the_tensors_of_a_reference(published: Published, damage: Any) -> None:
    path = Path(published.phi, "model.safetensors")
    whole = path.read_bytes()
    try:
        other = damaged(path, damage, whole)
        with only_our_errors():
            load_reference(published.phi)
            assert not other, "damage was not seen"
    finally:
        path.write_bytes(whole)


@fuzzed
@given(damage=damages)
def test_tensors_without_a_checksum(
    published: Published, damage: Any, tmp_path_factory: Any
) -> None:
    path = tmp_path_factory.mktemp("tensors") / "model.safetensors"
    damaged(path, damage, Path(published.phi, "model.safetensors").read_bytes())
    with only_our_errors():
        tensor_files.read(str(path))


@fuzzed
@given(damage=damages)
def test_sealed_tensors(damage: Any, tmp_path_factory: Any) -> None:
    """Bytes that hold no number may differ."""
    path = tmp_path_factory.mktemp("sealed") / "state.safetensors"
    arrays = {"rows": np.arange(20), "values": np.linspace(0, 1, 60, dtype=np.float32)}
    tensor_files.write_sealed(str(path), arrays)
    damaged(path, damage, path.read_bytes())
    with only_our_errors():
        found = tensor_files.read(str(path))
        assert found.keys() == arrays.keys()
        for name, array in arrays.items():
            assert np.array_equal(found[name], array), "damage was not seen"


@fuzzed
@given(damage=damages)
def test_a_side_car(side_car: Path, damage: Any) -> None:
    whole = side_car.read_bytes()
    try:
        other = damaged(side_car, damage, whole)
        with only_our_errors():
            _read_side_car(str(side_car), hashlib.sha256(whole).hexdigest(), {0: 17, 1: 17, 2: 16})
            assert not other, "damage was not seen"
    finally:
        side_car.write_bytes(whole)
