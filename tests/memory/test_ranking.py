"""A set as candidates are ranked on it: compact ids, from its folder alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from diet_ray.logs.blocks import Rows
from diet_ray.memory import artifact
from diet_ray.memory.artifact import Description, RankingData
from diet_ray.memory.ranking import RankingSet
from diet_ray.memory.rows import SyntheticRows, unmoved
from tests.sets import publish_set

ANCHORS = [[40, 7], [10, 7], [0, 9], [40, 9]]
KNOWN = [{10: 1, 40: 2}, {7: 1, 9: 2}]  # by field: the log's id to the set's
COMPACT = [[2, 1], [1, 1], [0, 2], [2, 2]]


def synthetic_rows() -> SyntheticRows:
    draw = np.random.default_rng(1)
    rows = len(ANCHORS)
    return SyntheticRows(
        anchors=np.array(ANCHORS, dtype=np.int32),
        labels=draw.normal(size=(rows, 2)).astype(np.float32),
        taught=draw.normal(size=(rows, 2)).astype(np.float32),
        stages=np.ones(rows, dtype=np.int32),
        source_rows=np.arange(rows),
        **unmoved((2, 3), rows),
    )


def log_ids(seed: int) -> np.ndarray:
    """Known and unknown to the set."""
    draw = np.random.default_rng(seed)
    return np.stack(
        [draw.choice([0, 5, 10, 40, 41], 12), draw.choice([0, 7, 8, 9, 40], 12)], axis=1
    )


def compact(ids: np.ndarray) -> list[list[int]]:
    return [[KNOWN[field].get(number, 0) for field, number in enumerate(row)] for row in ids]


def test_rows_and_what_is_asked_get_the_sets_own_ids() -> None:
    rows, blocks = synthetic_rows(), (log_ids(1), log_ids(2))
    found = RankingSet.of(rows.anchors, rows.labels, *blocks)
    assert found.sizes == (3, 3)
    assert found.ids.tolist() == COMPACT
    for asked, ids in zip(found.asked, blocks, strict=True):
        assert asked.tolist() == compact(ids)
        assert asked.dtype == np.int64
        assert asked.any()
        assert not asked.all()
    assert RankingSet.of(rows.anchors, rows.labels).asked == ()


def test_the_rows_to_train_on_are_the_sets_own_memory() -> None:
    rows = synthetic_rows()
    found = RankingSet.of(rows.anchors, rows.labels)
    trained = found.soft_rows()
    assert len(trained) == len(rows)
    assert trained.inputs.tolist() == COMPACT
    assert trained.inputs.dtype == torch.int64
    for tensor, array in ((trained.inputs, found.ids), (trained.labels, rows.labels)):
        assert tensor.data_ptr() == array.ctypes.data


def test_a_folder_is_enough(tmp_path: Path) -> None:
    """What is read back equals what is made of the rows and the block's sample in memory, though
    the folder does not hold ids that the set lacks."""
    rows, ids = synthetic_rows(), log_ids(3)
    made_from = {"memory": {"ratio": 0.1}}
    names = ("a", "b"), ("x", "y")
    described = Description(1, len(rows), *names, 3, "reference", "nowhere", made_from)
    uri = str(tmp_path / "stage=1")
    none = np.zeros((len(ids), 2), dtype=np.float32)
    asked = Rows(np.arange(len(ids)) + 100, ids, none)
    publish_set(uri, rows, described, RankingData(asked, none, of=500, full_rows=900))
    held = artifact.read_ranking_data(uri).rows.ids
    assert not np.array_equal(held, ids)

    found, expected = (
        RankingSet.of(*artifact.read_taught(uri), held),
        RankingSet.of(rows.anchors, rows.taught, ids),
    )
    assert found.sizes == expected.sizes
    for name in ("ids", "labels"):
        first, second = getattr(found, name), getattr(expected, name)
        assert first.dtype == second.dtype
        assert np.array_equal(first, second)
    assert np.array_equal(found.asked[0], expected.asked[0])
