"""Arrays in files: they come back as they were, or not at all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from diet_ray import tensor_files
from diet_ray.errors import StorageError


def test_tensors_come_back(tmp_path: Path) -> None:
    uri = str(tmp_path / "phi.safetensors")
    arrays = {
        "embedding": np.arange(12, dtype=np.float32).reshape(3, 4),
        "transposed": np.arange(6, dtype=np.float64).reshape(2, 3).T,
        "ids": np.array([2**40], dtype=np.int64),
        "empty": np.zeros((0, 5), dtype=np.float16),
    }
    tensor_files.write(uri, arrays, stage="1")
    again = tensor_files.read(uri)
    assert again.keys() == arrays.keys()
    for name, array in arrays.items():
        assert again[name].dtype == array.dtype
        np.testing.assert_array_equal(again[name], array)


@pytest.mark.parametrize("damage", [lambda c: c[:-3], lambda c: b"\xff" * 9 + c, lambda _: b""])
def test_damaged_tensors_are_named_with_the_remedy(tmp_path: Path, damage: Callable) -> None:
    path = tmp_path / "phi.safetensors"
    tensor_files.write(str(path), {"x": np.ones(100)})
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(StorageError, match=r"phi\.safetensors: damaged tensors .* remove it"):
        tensor_files.read(str(path))
