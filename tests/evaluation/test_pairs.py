"""Significant pairs against loops over pairs and replicates, and their rate under no difference."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from diet_ray.evaluation.pairs import (
    PairsRight,
    SignificantPairs,
    p_values,
    pairs_right,
    significant_pairs,
)
from diet_ray.seeds import numpy_generator

SEEDS, SETTINGS, RESAMPLES = 4, 7, 60


def made(
    spread: float, number: int = 0, resamples: int = RESAMPLES
) -> tuple[np.ndarray, np.ndarray]:
    """truth (S, n), settings `spread` apart with seeds 1 apart, and truth on resampled users."""
    random = np.random.default_rng(number)
    truth = spread * np.arange(SETTINGS) + random.normal(size=(SEEDS, SETTINGS))
    noise = random.normal(scale=0.3, size=(1, SETTINGS, resamples))
    return truth, truth[:, :, None] + noise


def slow_p_values(resampled: np.ndarray, seed: int) -> list[float]:
    """Draws S - 1 seeds per setting and resample, and counts pair by pair."""
    seeds, settings, resamples = resampled.shape
    random = numpy_generator(seed, "bootstrap seeds of settings")
    drawn = random.integers(seeds, size=(seeds - 1, settings, resamples))
    found = []
    for i, j in itertools.combinations(range(settings), 2):
        differences = []
        for r in range(resamples):
            mine = [resampled[s, i, r] for s in drawn[:, i, r]]
            other = [resampled[s, j, r] for s in drawn[:, j, r]]
            differences.append(np.mean(mine) - np.mean(other))
        below, above = sum(d <= 0 for d in differences), sum(d >= 0 for d in differences)
        found.append(min(2 * (1 + min(below, above)) / (resamples + 1), 1.0))
    return found


@pytest.mark.parametrize("spread", [0.0, 0.5, 5.0])
def test_p_values_equal_a_loop(spread: float) -> None:
    _, resampled = made(spread)
    assert p_values(resampled, seed=3) == pytest.approx(slow_p_values(resampled, seed=3))


def test_no_p_is_zero_and_equals_have_one() -> None:
    resampled = np.repeat(np.array([[[0.7], [0.7], [0.9]]]), 19, axis=2)
    assert p_values(resampled, seed=0) == pytest.approx([1, 2 / 20, 2 / 20])


def test_a_resample_without_an_auc_does_not_count() -> None:
    _, resampled = made(1.0)
    resampled[:, :, 5] = np.nan
    found = p_values(resampled, seed=1)
    assert found.min() >= 2 / RESAMPLES
    assert not np.isnan(found).any()


def test_benjamini_and_hochbergs_steps() -> None:
    """The largest k with the k-th smallest p at most k q / m lets through the k smallest."""
    truth, resampled = made(1.0, resamples=999)
    p, means = p_values(resampled, seed=2), truth.mean(axis=0)
    pairs = list(itertools.combinations(range(SETTINGS), 2))
    ranked = sorted(range(len(pairs)), key=lambda i: p[i])
    through = max(k for k in range(len(p) + 1) if not k or p[ranked[k - 1]] <= 0.05 * k / len(p))
    expected = {tuple(sorted(pairs[i], key=lambda s: -means[s])) for i in ranked[:through]}
    found = significant_pairs(truth, resampled, seed=2)
    assert set(zip(found.better.tolist(), found.worse.tolist(), strict=True)) == expected
    assert 0 < through < len(p)


def test_settings_far_apart_all_differ_and_equal_ones_hardly_ever() -> None:
    far = significant_pairs(*made(10.0, resamples=999), seed=0)
    assert len(far.better) == math.comb(SETTINGS, 2)
    assert (far.better > far.worse).all()
    tries = [len(significant_pairs(*made(0.0, i, 999), seed=i).better) for i in range(40)]
    assert np.mean(np.array(tries) > 0) <= 0.15


def test_p_values_of_equal_settings_are_small_at_their_rate() -> None:
    shares = [(p_values(made(0.0, i, 499)[1], seed=i) < 0.05).mean() for i in range(60)]
    assert np.mean(shares) == pytest.approx(0.05, abs=0.03)


def test_a_family_of_few_pairs_is_counted_apart() -> None:
    found = SignificantPairs(better=np.array([0, 0, 1, 3]), worse=np.array([1, 2, 2, 0]))
    families = np.array(["dcn", "dcn", "wukong", "wukong"])
    scores = np.array([[0.9, 0.8, 0.7, 0.1], [0.7, 0.8, 0.7, 0.1]])
    # Within: 0 over 1, right once. Between: 0 over 2, right and equal; 1 over 2, right twice; 3
    # over 0, never. Of the means 0 and 1 would be equal and 0 over 2 right.
    assert pairs_right(found, scores, families) == PairsRight(
        pairs=4,
        pairs_right=pytest.approx((0.5 + 0.75 + 1) / 4),
        within=1,
        within_right=0.5,
        between=3,
        between_right=pytest.approx((0.75 + 1) / 3),
    )


@pytest.mark.parametrize("repetitions", [1, 3])
@pytest.mark.parametrize("number", [0, 1, 2])
def test_pairs_right_equal_a_loop_over_repetitions_and_pairs(repetitions: int, number: int) -> None:
    found = significant_pairs(*made(2.0, number), seed=0)
    families = np.array(["a"] * 3 + ["b"] * 4)
    scores = np.random.default_rng(number).integers(4, size=(repetitions, SETTINGS)) / 4
    counted: dict[bool, list[float]] = {True: [], False: []}
    for line in scores:
        for i, j in zip(found.better, found.worse, strict=True):
            right = 0.5 if line[i] == line[j] else float(line[i] > line[j])
            counted[bool(families[i] == families[j])].append(right)
    assert pairs_right(found, scores, families) == PairsRight(
        pairs=len(found.better),
        pairs_right=pytest.approx(np.mean(counted[True] + counted[False])),
        within=len(counted[True]) // repetitions,
        within_right=pytest.approx(np.mean(counted[True])),
        between=len(counted[False]) // repetitions,
        between_right=pytest.approx(np.mean(counted[False])),
    )


@given(arrays(np.float64, (2, SETTINGS), elements=st.integers(0, 5)))
def test_the_reversed_scores_are_right_where_these_are_wrong(scores: np.ndarray) -> None:
    truth, resampled = made(2.0)
    found = significant_pairs(truth, resampled, seed=0)
    families = np.array(["a"] * 3 + ["b"] * 4)
    one, other = pairs_right(found, scores, families), pairs_right(found, -scores, families)
    assert one.pairs_right + other.pairs_right == pytest.approx(1)
    assert one.pairs == one.within + one.between
    parts = one.within * one.within_right + one.between * one.between_right
    assert parts == pytest.approx(one.pairs * one.pairs_right)
    assert pairs_right(found, truth.mean(axis=0)[None], families).pairs_right == 1


def test_without_significant_pairs_there_is_no_share() -> None:
    none = np.zeros(0, dtype=np.int64)
    found = pairs_right(SignificantPairs(none, none), np.ones((1, 3)), np.array(["a"] * 3))
    assert (found.pairs, math.isnan(found.pairs_right)) == (0, True)
    one = significant_pairs(np.ones((2, 1)), np.ones((2, 1, 9)), seed=0)
    assert len(one.better) == 0


def test_shapes_that_do_not_fit_are_named() -> None:
    truth, resampled = made(1.0)
    with pytest.raises(ValueError, match=r"resampled: shape \(4, 7, 60\) for truth of shape"):
        significant_pairs(truth[1:], resampled, seed=0)
    none = np.zeros(0, dtype=np.int64)
    with pytest.raises(ValueError, match="scores have 7 settings, families 2"):
        pairs_right(SignificantPairs(none, none), truth, np.array(["a", "b"]))
