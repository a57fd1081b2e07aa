"""Rank measures against scipy, published values, and every way to break ties."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from diet_ray.evaluation.ranking import kendall, regret, shortlist_regret, spearman, tau_ap

# Few distinct values, so that ties are frequent.
tied = st.integers(2, 6).flatmap(
    lambda n: st.tuples(*[arrays(np.float64, n, elements=st.integers(0, 4))] * 2)
)
untied = st.integers(2, 30).flatmap(
    lambda n: st.tuples(*[st.permutations(range(n)).map(lambda x: np.array(x, dtype=float))] * 2)
)
Measure = Callable[[np.ndarray, np.ndarray], np.ndarray]
measures = pytest.mark.parametrize("measure", [spearman, kendall, tau_ap])


@given(tied)
def test_spearman_and_kendall_are_scipys(sides: tuple[np.ndarray, np.ndarray]) -> None:
    scores, truth = sides
    if np.ptp(scores) == 0 or np.ptp(truth) == 0:
        assert math.isnan(spearman(scores, truth))
        assert math.isnan(kendall(scores, truth))
    else:
        assert spearman(scores, truth) == pytest.approx(stats.spearmanr(scores, truth)[0])
        assert kendall(scores, truth) == pytest.approx(stats.kendalltau(scores, truth)[0])


def orders(scores: np.ndarray) -> list[tuple[int, ...]]:
    """Every order, best first, that the scores allow."""
    return [
        order
        for order in itertools.permutations(range(len(scores)))
        if all(scores[a] >= scores[b] for a, b in itertools.pairwise(order))
    ]


def slow_tau_ap(scores: np.ndarray, truth: np.ndarray) -> float:
    """Counts right, wrong and all decidable pairs of every order, each by its place's weight."""
    balance = decidable = 0.0
    for order in orders(scores):
        for above in range(1, len(order)):
            signs = [np.sign(truth[b] - truth[order[above]]) for b in order[:above]]
            balance += sum(signs) / above
            decidable += sum(map(abs, signs)) / above
    return balance / decidable if decidable else math.nan


@given(tied)
def test_tau_ap_with_ties_is_the_expectation(sides: tuple[np.ndarray, np.ndarray]) -> None:
    assert tau_ap(*sides) == pytest.approx(slow_tau_ap(*sides), nan_ok=True)


@given(untied)
def test_tau_ap_without_ties_is_yilmazs_formula(sides: tuple[np.ndarray, np.ndarray]) -> None:
    scores, truth = sides
    order = np.argsort(-scores)
    shares = [(truth[order[:i]] > truth[order[i]]).mean() for i in range(1, len(order))]
    assert tau_ap(scores, truth) == pytest.approx(2 * np.mean(shares) - 1)


def test_tau_ap_agrees_with_the_authors_of_the_treatment_of_ties() -> None:
    """The example in the README of Urbano's R package ircor: tauAP, and tauAP_a after rounding."""
    truth = np.array([0.06, 0.2, 0.27, 0.37, 0.57, 0.63, 0.66, 0.9, 0.91, 0.94])
    scores = np.array([0.37, 0.06, 0.2, 0.27, 0.57, 0.66, 0.63, 0.91, 0.9, 0.94])
    assert tau_ap(scores, truth) == pytest.approx(0.7491182, abs=1e-7)
    assert tau_ap(np.round(scores * 5) / 5, truth) == pytest.approx(0.6074515, abs=1e-7)


def test_tau_ap_minds_the_top_more_than_kendall_does() -> None:
    truth = np.arange(10.0)
    top, bottom = truth.copy(), truth.copy()
    top[[9, 8]], bottom[[0, 1]] = truth[[8, 9]], truth[[1, 0]]
    assert kendall(top, truth) == kendall(bottom, truth)
    assert tau_ap(top, truth) < kendall(top, truth) < tau_ap(bottom, truth)


@measures
def test_the_truth_agrees_with_itself_even_if_settings_come_twice(measure: Measure) -> None:
    truth = np.array([0.7, 0.7, 0.9, 0.8, 0.9, 0.6])
    assert measure(truth, truth) == pytest.approx(1)
    assert measure(-truth, truth) == pytest.approx(-1)


@measures
def test_scores_without_an_order_have_no_correlation(measure: Measure) -> None:
    level, rising = np.ones(4), np.arange(4.0)
    assert math.isnan(measure(rising, level))
    assert math.isnan(measure(np.ones(1), np.ones(1)))
    if measure is tau_ap:  # as good as drawing lots
        assert measure(level, rising) == pytest.approx(0)
    else:
        assert math.isnan(measure(level, rising))


@pytest.mark.parametrize("measure", [spearman, kendall, tau_ap, regret, shortlist_regret])
def test_many_at_once_are_each_by_itself(measure: Measure) -> None:
    scores, truth = np.random.default_rng(0).integers(6, size=(2, 3, 4, 9)).astype(float)
    found = measure(scores, truth)
    assert found.shape == (3, 4)
    for i, j in np.ndindex(3, 4):
        assert found[i, j] == pytest.approx(measure(scores[i, j], truth[i, j]))


def test_regret_is_what_the_pick_loses() -> None:
    truth = np.array([0.70, 0.74, 0.76, 0.71])
    assert regret(np.array([4.0, 1, 2, 3]), truth) == pytest.approx(0.06)
    assert regret(truth, truth) == 0
    assert regret(np.array([5.0, 5, 0, 0]), truth) == pytest.approx(0.76 - 0.72)


def test_a_shortlist_of_three_loses_less() -> None:
    truth = np.array([0.70, 0.74, 0.76, 0.71])
    assert shortlist_regret(np.array([4.0, 1, 0, 3]), truth) == pytest.approx(0.02)
    assert shortlist_regret(np.array([4.0, 1, 2, 3]), truth) == 0
    assert shortlist_regret(truth[:2], truth[:2]) == 0


def test_a_shortlist_counts_no_luck_among_equals() -> None:
    """The third place is one of two: the truly worse one is taken, wherever it stands."""
    truth = np.array([0.70, 0.71, 0.76, 0.72])
    scores = np.array([3.0, 2, 1, 1])
    for order in itertools.permutations(range(4)):
        assert shortlist_regret(scores[[*order]], truth[[*order]]) == pytest.approx(0.04)
