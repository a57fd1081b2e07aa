"""AUC and LogLoss, by labels hard and soft, against counting pairs and adding logarithms."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from diet_ray.logs.blocks import Blocks, BlocksError
from diet_ray.training.metrics import (
    LOSS_OF_ONE_HALF,
    Metrics,
    answers,
    check_measurable,
    mean_metrics,
    measure,
    taught_auc,
)
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


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_diverged_model_counts_as_one_that_knows_nothing(bad: float) -> None:
    draw = np.random.default_rng(1)
    labels = (draw.random((40, 2)) < 0.3).astype(np.float32)
    logits = (labels - 0.5).astype(np.float32)  # would be without error
    good = measure(logits, labels, ["click", "like"])
    logits[7, 1] = bad
    found = measure(logits, labels, ["click", "like"])
    assert (good.auc, good.diverged) == (1, False)
    assert (found.auc, found.diverged) == (0.5, True)
    assert found.logloss == pytest.approx(LOSS_OF_ONE_HALF, rel=1e-15)
    assert taught_auc(logits, labels) == 0.5
    assert (answers(logits) == 0).all()
    assert mean_metrics([good, found]).diverged


def test_the_mean_of_several_models_is_that_of_every_number() -> None:
    draw = np.random.default_rng(3)
    aucs, loglosses = draw.random((3, 2)), draw.random((3, 2))
    parts = [
        Metrics(
            float(auc.mean()),
            float(logloss.mean()),
            {"click": auc[0], "like": auc[1]},
            {"click": logloss[0], "like": logloss[1]},
        )
        for auc, logloss in zip(aucs, loglosses, strict=True)
    ]
    found = mean_metrics(parts)
    assert found.auc == pytest.approx(aucs.mean())
    assert found.logloss == pytest.approx(loglosses.mean())
    by_task = zip(("click", "like"), aucs.mean(axis=0), loglosses.mean(axis=0), strict=True)
    for task, auc, logloss in by_task:
        assert found.auc_by_task[task] == pytest.approx(auc)
        assert found.logloss_by_task[task] == pytest.approx(logloss)
    assert mean_metrics(parts[:1]) == parts[0]


def slow_taught_auc(scores: np.ndarray, taught: np.ndarray) -> float:
    """Over all pairs of rows, a row and itself too: the first is a one and the second a zero."""
    ones = [1 / (1 + math.exp(-z)) for z in taught.tolist()]
    wins = total = 0.0
    for first, p in zip(scores.tolist(), ones, strict=True):
        for second, q in zip(scores.tolist(), ones, strict=True):
            weight = p * (1 - q)
            wins += weight * (float(first > second) + 0.5 * float(first == second))
            total += weight
    return wins / total


soft = st.lists(st.tuples(st.integers(-4, 4), st.floats(-6, 6)), min_size=1, max_size=20)


@given(soft)
def test_against_soft_labels_every_pair_counts_by_its_probability(
    table: list[tuple[int, float]],
) -> None:
    logits = np.array([[z / 2] for z, _ in table], dtype=np.float32)
    taught = np.array([[y] for _, y in table], dtype=np.float32)
    expected = slow_taught_auc(logits[:, 0], taught[:, 0])
    assert taught_auc(logits, taught) == pytest.approx(expected, abs=1e-12)


def test_against_soft_labels_the_mean_is_over_tasks() -> None:
    draw = np.random.default_rng(4)
    logits, taught = draw.normal(size=(2, 40, 3)).astype(np.float32)
    by_task = [slow_taught_auc(logits[:, k], taught[:, k]) for k in range(3)]
    assert len(set(by_task)) == 3
    assert taught_auc(logits, taught) == pytest.approx(sum(by_task) / 3, abs=1e-12)


@given(rows)
def test_labels_of_which_nobody_doubts_are_hard_ones(table: list[tuple[int, bool]]) -> None:
    logits = np.array([[z / 2] for z, _ in table], dtype=np.float32)
    labels = np.array([[y] for _, y in table], dtype=np.float32)
    assume(0 < labels.sum() < len(labels))
    expected = measure(logits, labels, ["click"]).auc
    assert taught_auc(logits, labels * 80 - 40) == pytest.approx(expected, abs=1e-12)


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
