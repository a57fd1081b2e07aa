"""What noise alone could have swapped, against a plain regression and by simulation."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest
from scipy import stats

from diet_ray.search.places import like_places, noise

SEEDS = 4


def made(qualities: list[float], spread: float, number: int) -> np.ndarray:
    """Scores of candidates of these qualities; what a seed does to all of them is larger."""
    random = np.random.default_rng(number)
    common = random.normal(scale=10 * spread, size=SEEDS)
    own = random.normal(scale=spread, size=(len(qualities), SEEDS))
    return np.array(qualities)[:, None] + common + own


def stopped(scores: np.ndarray, seeds: dict[int, int]) -> np.ndarray:
    """Some candidates, by number, have fewer seeds."""
    found = scores.copy()
    for number, count in seeds.items():
        found[number, count:] = np.nan
    return found


def by_regression(scores: np.ndarray) -> tuple[float, int]:
    """Residual variance of a regression on a column for each candidate and each seed."""
    columns, values = [], []
    for (candidate, seed), value in np.ndenumerate(scores):
        if not math.isnan(value):
            line = np.zeros(sum(scores.shape))
            line[candidate] = line[len(scores) + seed] = 1
            columns.append(line)
            values.append(value)
    design = np.array(columns, dtype=np.float64)
    effects, _, rank, _ = np.linalg.lstsq(design, np.array(values))
    left = np.array(values) - design @ effects
    freedom = len(values) - int(rank)
    return float((left**2).sum()) / freedom, freedom


def slow_places(scores: np.ndarray) -> list[tuple[int, int]]:
    """Pair by pair."""
    variance, freedom = by_regression(scores)
    alike = [[True] * len(scores) for _ in scores]
    for i, j in combinations(range(len(scores)), 2):
        gaps = [a - b for a, b in zip(scores[i], scores[j], strict=True) if not math.isnan(a - b)]
        error = math.sqrt(variance * 2 / len(gaps))
        within = abs(np.mean(gaps)) <= stats.t.ppf(0.975, freedom) * error
        alike[i][j] = alike[j][i] = bool(within)
    seeds = [sum(not math.isnan(value) for value in line) for line in scores]
    ranges = [
        [1 + j for j, same in enumerate(line) if same and seeds[j] >= seeds[i]]
        for i, line in enumerate(alike)
    ]
    return [(min(places), max(places)) for places in ranges]


QUALITIES = [0.9, 0.8, 0.79, 0.78, 0.5, 0.49]


@pytest.mark.parametrize("seeds", [{}, {4: 2, 5: 1}, {0: 1, 3: 3}])
@pytest.mark.parametrize("number", range(5))
def test_places_equal_a_loop_over_pairs(seeds: dict[int, int], number: int) -> None:
    scores = stopped(made(QUALITIES, 0.02, number), seeds)
    assert noise(scores) == pytest.approx(by_regression(scores))
    assert like_places(scores) == slow_places(scores)


def test_only_the_equal_share_their_places() -> None:
    scores = made(QUALITIES, 0.0001, 3)
    assert like_places(scores) == [(place, place) for place in range(1, 7)]
    even = np.tile([[0.7], [0.7], [0.6]], SEEDS)
    assert like_places(even) == [(1, 2), (1, 2), (3, 3)]


def test_of_equal_candidates_a_twentieth_of_the_pairs_is_called_different() -> None:
    """Also where some were stopped, at a whim; with two candidates a range tells of one pair."""
    for seeds in ({}, {0: 2}):
        called = []
        for number in range(2_000):
            ranges = like_places(stopped(made([0.7, 0.7], 0.01, number), seeds))
            called.append(ranges is not None and ranges[0] == (1, 1))
        error = math.sqrt(0.05 * 0.95 / len(called))
        assert np.mean(called) == pytest.approx(0.05, abs=3 * error)


def test_a_pooled_noise_is_sharper_than_that_of_a_pair() -> None:
    """Of equal candidates among many others as many pairs are called different, of unequal ones
    more."""
    qualities = [0.7, 0.7, *np.linspace(0.2, 0.3, 10)]
    called = [
        like_places(made(qualities, 0.01, number))[0] == (1, 1)  # type: ignore[index]
        for number in range(1_000)
    ]
    assert np.mean(called) == pytest.approx(0.05, abs=3 * math.sqrt(0.05 * 0.95 / len(called)))
    apart = [0.7 + 2 * 0.01, *qualities[1:]]
    power = [
        np.mean([like_places(made(some, 0.01, number))[0] == (1, 1) for number in range(300)])  # type: ignore[index]
        for some in (apart[:2], apart)
    ]
    assert power[1] > power[0]


def test_one_seed_each_tells_nothing_of_noise() -> None:
    assert like_places(np.array([[0.8], [0.7]])) is None
    assert like_places(np.array([[0.8, 0.9]])) is None  # nobody to compare with
    variance, freedom = noise(np.array([[0.8], [0.7]]))
    assert math.isnan(variance)
    assert freedom == 0
