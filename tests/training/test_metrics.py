"""AUC and LogLoss against counting pairs and adding logarithms."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from diet_ray.logs.blocks import Blocks, BlocksError
from diet_ray.training.metrics import check_measurable, measure
from tests.made import made_blocks


def pairwise_auc(scores: np.ndarray, labels: np.ndarray) -> float:
    """Share of (one, zero) pairs in the right order, ties counted half."""
    ones, zeros = scores[labels == 1], scores[labels == 0]
    wins = sum(float(a > b) + 0.5 * float(a == b) for a in ones for b in zeros)
    return wins / (len(ones) * len(zeros))


def slow_logloss(logits: np.ndarray, labels: np.ndarray) -> float:
    losses = [
        math.log1p(math.exp(-z)) if y else math.log1p(math.exp(z))
        for z, y in zip(logits.tolist(), labels.tolist(), strict=True)
    ]
    return sum(losses) / len(losses)


# Few distinct values, so that ties are frequent.
rows = st.lists(st.tuples(st.integers(-4, 4), st.booleans()), min_size=2, max_size=30)


@given(rows)
def test_equals_counting_pairs(table: list[tuple[int, bool]]) -> None:
    logits = np.array([[z / 2] for z, _ in table], dtype=np.float32)
    labels = np.array([[y] for _, y in table], dtype=np.float32)
    assume(0 < labels.sum() < len(labels))
    found = measure(logits, labels, ["click"])
    assert found.auc == pytest.approx(pairwise_auc(logits[:, 0], labels[:, 0]), abs=1e-12)
    assert found.logloss == pytest.approx(slow_logloss(logits[:, 0], labels[:, 0]), rel=1e-9)


def test_the_mean_is_over_tasks() -> None:
    draw = np.random.default_rng(0)
    logits = draw.normal(size=(50, 2)).astype(np.float32)
    labels = (draw.random((50, 2)) < [0.2, 0.7]).astype(np.float32)
    found = measure(logits, labels, ["click", "like"])
    aucs = {t: pairwise_auc(logits[:, k], labels[:, k]) for k, t in enumerate(("click", "like"))}
    assert found.auc_by_task == pytest.approx(aucs)
    assert found.auc == pytest.approx(sum(aucs.values()) / 2)
    assert found.logloss == pytest.approx(sum(found.logloss_by_task.values()) / 2)


def test_a_confident_error_stays_finite() -> None:
    logits = np.array([[90.0], [-90.0]], dtype=np.float32)
    found = measure(logits, np.array([[0.0], [1.0]], dtype=np.float32), ["click"])
    assert found.auc == 0
    assert math.isfinite(found.logloss)
    assert found.logloss > 30


def with_rate(blocks: Blocks, name: str, rate: float) -> Blocks:
    changed = [
        replace(b, label_rates={**b.label_rates, "task_1": rate}) if b.name == name else b
        for b in blocks.blocks
    ]
    return replace(blocks, blocks=tuple(changed))


def test_blocks_that_judge_need_both_labels_of_every_task(tmp_path: Path) -> None:
    blocks = made_blocks(str(tmp_path))
    check_measurable(blocks)
    check_measurable(with_rate(blocks, "historical-1", 0.0))
    for name, rate in (("validation", 0.0), ("test", 1.0)):
        with pytest.raises(BlocksError, match=rf"block {name}: all labels of task task_1 are"):
            check_measurable(with_rate(blocks, name, rate))
