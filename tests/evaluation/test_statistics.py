"""Intervals, against scipy, scikit-learn and counting by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import roc_auc_score

from diet_ray.evaluation import statistics as module
from diet_ray.evaluation.statistics import (
    half_width,
    over_rows,
    over_seeds,
    over_seeds_and_rows,
    paired_difference,
    resampled_aucs,
    row_counts,
    weighted_aucs,
)
from diet_ray.seeds import numpy_generator


def test_the_mean_over_seeds_has_scipys_interval() -> None:
    values = [0.71, 0.74, 0.72, 0.73]
    low, high = stats.t.interval(0.95, 3, loc=np.mean(values), scale=stats.sem(values))
    found = over_seeds(values)
    assert (found.mean, found.seeds) == (pytest.approx(0.725), 4)
    assert found.half_width == pytest.approx((high - low) / 2)


def test_one_seed_has_no_interval_and_no_seed_no_mean() -> None:
    assert half_width([0.7]) is None
    assert over_seeds([0.7]).half_width is None
    with pytest.raises(ValueError, match="no seed"):
        over_seeds([])


def test_a_difference_is_paired_by_seed() -> None:
    """What all methods of a seed share falls out, and a seed of one side only does not count."""
    first = {0: 0.70, 1: 0.80, 2: 0.91, 7: 0.1}
    second = {2: 0.90, 1: 0.79, 0: 0.69}
    found = paired_difference(first, second)
    assert (found.mean, found.half_width) == (pytest.approx(0.01), pytest.approx(0))
    assert found.seeds == 3
    with pytest.raises(ValueError, match=r"\[3\] against \[4\].*same seeds"):
        paired_difference({3: 0.7}, {4: 0.7})


def test_a_resample_is_a_function_of_its_number() -> None:
    counts = row_counts(50, 4, seed=3)
    assert (counts.sum(axis=1) == 50).all()
    assert np.array_equal(row_counts(50, 9, seed=3)[:4], counts)
    assert not np.array_equal(row_counts(50, 4, seed=4), counts)
    assert len(np.unique(counts, axis=0)) == 4
    assert np.array_equal(row_counts(50, 2, seed=3, first=2), counts[2:])


def test_a_user_is_drawn_with_all_rows() -> None:
    """The twin draws users by their names and walks over the rows of each."""
    groups = np.array([70, 7, 70, 11, 7, 70, 13])
    found = row_counts(len(groups), 5, seed=3, first=2, groups=groups)
    users = sorted(set(groups.tolist()))
    for number, line in enumerate(found, start=2):
        expected = [0] * len(groups)
        for place in numpy_generator(3, "bootstrap rows", number).integers(len(users), size=4):
            for row in np.flatnonzero(groups == users[place]):
                expected[row] += 1
        assert line.tolist() == expected
    assert len(set(found.sum(axis=1))) > 1


def test_rows_without_users_are_each_their_own() -> None:
    alone = np.random.default_rng(0).permutation(50)
    counts = row_counts(50, 4, seed=3)
    assert np.array_equal(row_counts(50, 4, seed=3, groups=np.arange(50)), counts)
    assert np.array_equal(row_counts(50, 4, seed=3, groups=alone), counts[:, alone])
    with pytest.raises(ValueError, match=r"groups: shape \(3,\) for 50 test rows; give the user"):
        row_counts(50, 4, seed=3, groups=alone[:3])


def test_users_of_equal_rows_leave_as_much_chance_as_there_are_users() -> None:
    """Every row four times over: by row the interval is half as wide as it should be."""
    logits, labels = made_cells(seeds=1, rows=150)
    users = np.tile(np.arange(150), 4)
    fourfold = {cell: np.tile(z, (4, 1)) for cell, z in logits.items()}
    labels4 = np.tile(labels, (4, 1))

    cell = ("a", 0)
    alone = resampled_aucs(logits, [cell], labels, 300, 0)[cell]
    by_user = resampled_aucs(fourfold, [cell], labels4, 300, 0, users)[cell]
    by_row = resampled_aucs(fourfold, [cell], labels4, 300, 0)[cell]
    assert by_user == pytest.approx(alone)
    assert by_row.std() == pytest.approx(alone.std() / 2, rel=0.15)


def slow_auc(scores: np.ndarray, labels: np.ndarray, counts: np.ndarray) -> float:
    """Draws the rows and counts the pairs."""
    drawn = np.repeat(np.arange(len(scores)), counts)
    ones = [scores[i] for i in drawn if labels[i] == 1]
    zeros = [scores[i] for i in drawn if labels[i] == 0]
    wins = sum(float(a > b) + 0.5 * float(a == b) for a in ones for b in zeros)
    return wins / (len(ones) * len(zeros))


# Few distinct scores, so that ties are frequent.
weighted_rows = st.lists(
    st.tuples(st.integers(-3, 3), st.booleans(), st.integers(0, 3)), min_size=2, max_size=25
)


@given(weighted_rows)
def test_a_weighted_auc_equals_counting_pairs(table: list[tuple[int, bool, int]]) -> None:
    scores = np.array([s / 2 for s, _, _ in table], dtype=np.float32)
    labels = np.array([y for _, y, _ in table], dtype=np.int8)
    counts = np.array([c for _, _, c in table])
    assume(counts[labels == 1].sum() > 0 and counts[labels == 0].sum() > 0)
    (found,) = weighted_aucs(scores, labels, counts[None])
    assert found == pytest.approx(slow_auc(scores, labels, counts), abs=1e-12)


@pytest.mark.parametrize("distinct", [7, 10**6])
def test_weighted_aucs_equal_scikit_learns(distinct: int) -> None:
    random = np.random.default_rng(distinct)
    scores = (random.integers(distinct, size=400) / distinct).astype(np.float32)
    labels = (random.random(400) < 0.2).astype(np.float32)
    counts = row_counts(400, 37, seed=0)
    expected = [roc_auc_score(labels, scores, sample_weight=weights) for weights in counts]
    np.testing.assert_allclose(weighted_aucs(scores, labels, counts), expected, atol=1e-12)


def test_a_resample_with_one_class_has_no_auc_and_does_not_count() -> None:
    aucs = weighted_aucs(np.array([1.0, 2.0]), np.array([0, 1]), np.array([[1, 1], [0, 2]]))
    assert aucs[0] == 1
    assert math.isnan(aucs[1])
    assert over_rows(aucs[None]).low == 1


def made_cells(seeds: int, rows: int) -> tuple[dict[object, np.ndarray], np.ndarray]:
    random = np.random.default_rng(5)
    labels = (random.random((rows, 2)) < [0.5, 0.2]).astype(np.int8)
    names = [(method, seed) for method in ("a", "b") for seed in range(seeds)]
    noise = {"a": 1.0, "b": 1.3}
    return {
        name: (labels + noise[name[0]] * random.normal(size=labels.shape)).astype(np.float32)
        for name in names
    }, labels


def test_the_bootstrap_of_a_difference_equals_its_slow_twin() -> None:
    """The twin draws the rows themselves, jointly for all cells, and asks scikit-learn."""
    logits, labels = made_cells(seeds=3, rows=200)
    found = resampled_aucs(logits, logits, labels, 30, seed=8)
    means = []
    for counts in row_counts(200, 30, seed=8):
        drawn = np.repeat(np.arange(200), counts)
        auc = {
            name: np.mean([roc_auc_score(labels[drawn, k], z[drawn, k]) for k in range(2)])
            for name, z in logits.items()
        }
        means.append(np.mean([auc["a", s] - auc["b", s] for s in range(3)]))
    interval = over_rows(np.array([found["a", s] - found["b", s] for s in range(3)]))
    assert (interval.low, interval.high) == pytest.approx(tuple(np.percentile(means, [2.5, 97.5])))


def test_few_resamples_at_a_time_are_the_same_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    logits, labels = made_cells(seeds=1, rows=40)
    whole = resampled_aucs(logits, logits, labels, 7, seed=2)
    monkeypatch.setattr(module, "COUNTED", 90)
    parts = resampled_aucs(logits, logits, labels, 7, seed=2)
    assert all(np.array_equal(parts[cell], whole[cell]) for cell in logits)
    users = np.arange(40) // 3
    parts = resampled_aucs(logits, logits, labels, 7, seed=2, groups=users)
    monkeypatch.undo()
    whole = resampled_aucs(logits, logits, labels, 7, seed=2, groups=users)
    assert all(np.array_equal(parts[cell], whole[cell]) for cell in logits)


def test_only_the_cells_that_are_asked_for_are_read() -> None:
    logits, labels = made_cells(seeds=1, rows=30)
    assert list(resampled_aucs(logits, [("b", 0)], labels, 2, seed=0)) == [("b", 0)]


def test_the_interval_over_rows_covers_at_its_rate() -> None:
    """A mean of normal numbers with a known spread: the percentiles are the normal's."""
    values = np.random.default_rng(0).normal(0.7, 0.01, size=(1, 20_000))
    interval = over_rows(values)
    assert interval.low == pytest.approx(0.7 - 0.0196, abs=5e-4)
    assert interval.high == pytest.approx(0.7 + 0.0196, abs=5e-4)


def test_seeds_and_rows_add_their_variances() -> None:
    random = np.random.default_rng(0)
    seeds = 20
    by_seed = random.normal(scale=0.02, size=(seeds, 1))
    by_row = random.normal(scale=0.005, size=(1, 20_000))
    both = over_seeds_and_rows(by_seed + by_row, seed=1)
    spread = math.sqrt(by_seed.var() / seeds + 0.005**2)
    assert (both.high - both.low) / 2 == pytest.approx(1.96 * spread, rel=0.03)
    assert over_seeds_and_rows(by_seed + by_row, seed=1) == both


def test_with_one_seed_only_the_rows_vary() -> None:
    values = np.random.default_rng(2).normal(size=(1, 100))
    assert over_seeds_and_rows(values, seed=0) == over_rows(values)
