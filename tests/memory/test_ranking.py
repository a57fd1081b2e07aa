"""A set as candidates are ranked on it: compact ids, from its folder alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from diet_ray.logs.blocks import Rows
from diet_ray.memory import artifact
from diet_ray.memory.artifact import ArtifactError, Description, ValidationSample
from diet_ray.memory.ranking import RankingSet, read_ranking_set
from diet_ray.memory.rows import SyntheticRows

ANCHORS = [[40, 7], [10, 7], [0, 9], [40, 9]]
KNOWN = [{10: 1, 40: 2}, {7: 1, 9: 2}]  # by field: the log's id to the set's
COMPACT = [[2, 1], [1, 1], [0, 2], [2, 2]]


def synthetic_rows() -> SyntheticRows:
    draw = np.random.default_rng(1)
    rows = len(ANCHORS)
    return SyntheticRows(
        embeddings=draw.normal(size=(rows, 2, 3)).astype(np.float32),
        labels=draw.normal(size=(rows, 2)).astype(np.float32),
        stages=np.ones(rows, dtype=np.int32),
        source_rows=np.arange(rows),
        weights=np.linspace(0.5, 1.5, rows, dtype=np.float32),
        anchors=np.array(ANCHORS, dtype=np.int32),
    )


def judged_rows(seed: int) -> Rows:
    """Of ids known and unknown to the set."""
    draw = np.random.default_rng(seed)
    ids = np.stack([draw.choice([0, 5, 10, 40, 41], 12), draw.choice([0, 7, 8, 9, 40], 12)], axis=1)
    return Rows(np.arange(12) + 100, ids, draw.integers(0, 2, (12, 2)).astype(np.float32))


def compact(rows: Rows) -> list[list[int]]:
    return [[KNOWN[field].get(number, 0) for field, number in enumerate(row)] for row in rows.ids]


def test_rows_and_judges_get_the_sets_own_ids() -> None:
    rows, judges = synthetic_rows(), (judged_rows(1), judged_rows(2))
    found = RankingSet.of(rows, *judges)
    assert found.sizes == (3, 3)
    assert found.ids.tolist() == COMPACT
    for judged, rows_of_log in zip(found.judged, judges, strict=True):
        assert judged.ids.tolist() == compact(rows_of_log)
        assert judged.ids.any()
        assert not judged.ids.all()
        assert np.array_equal(judged.labels, rows_of_log.labels)
        assert np.array_equal(judged.row_ids, rows_of_log.row_ids)
    assert RankingSet.of(rows).judged == ()


def test_the_rows_to_train_on_are_the_sets_own_memory() -> None:
    rows = synthetic_rows()
    found = RankingSet.of(rows)
    trained = found.soft_rows()
    assert len(trained) == len(rows)
    assert trained.inputs.tolist() == COMPACT
    assert trained.inputs.dtype == torch.int64
    for tensor, array in (
        (trained.inputs, found.ids),
        (trained.labels, rows.labels),
        (trained.weights, rows.weights),
    ):
        assert tensor.data_ptr() == array.ctypes.data


def test_a_folder_is_enough(tmp_path: Path) -> None:
    """What is read back equals what is made of the rows and the block's sample in memory."""
    rows, judged = synthetic_rows(), judged_rows(3)
    described = Description(1, len(rows), ("a", "b"), ("x", "y"), 3, "reference", {})
    uri = str(tmp_path / "stage=1")
    artifact.publish(uri, rows, described, ValidationSample(judged, of=500))
    found, expected = read_ranking_set(uri), RankingSet.of(rows, judged)
    assert found.sizes == expected.sizes
    for name in ("ids", "labels", "weights"):
        first, second = getattr(found, name), getattr(expected, name)
        assert first.dtype == second.dtype
        assert np.array_equal(first, second)
    (sample,) = found.judged
    assert np.array_equal(sample.ids, expected.judged[0].ids)
    assert np.array_equal(sample.labels, judged.labels)

    artifact.publish(uri, rows, described)
    with pytest.raises(ArtifactError, match="no validation sample"):
        read_ranking_set(uri)
