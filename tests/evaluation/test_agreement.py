"""Agreement of two orders against scipy and loops; what correction and intervals promise."""

from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from diet_ray.evaluation import agreement as module
from diet_ray.evaluation.agreement import (
    Agreement,
    agreement,
    compare,
    intervals,
    reliability,
    repeatability,
    resampled_settings,
    seed_deviation,
    splits,
)

FAMILIES = np.array(["dcn"] * 5 + ["wukong"] * 4 + ["finalmlp"] * 3)


def made(seeds: int, noise: float, number: int = 0, settings: int = len(FAMILIES)) -> np.ndarray:
    """(seeds, settings) of one quality per setting, the same for every `number`, and noise."""
    quality = np.random.default_rng(99).normal(size=settings)
    return quality + noise * np.random.default_rng(number).normal(size=(seeds, settings))


@pytest.mark.parametrize("repetitions", [2, 3])
def test_every_field_is_the_mean_over_repetitions(repetitions: int) -> None:
    truth, scores = made(4, 0.5, 1), made(repetitions, 0.8, 2)
    found = agreement(truth, scores)
    means = truth.mean(axis=0)
    orders = [np.argsort(line) for line in scores]
    assert found.settings == len(FAMILIES)
    assert found.spearman == pytest.approx(slow_spearman(means, scores))
    kendalls = [stats.kendalltau(means, line)[0] for line in scores]
    assert found.kendall == pytest.approx(np.mean(kendalls))
    assert found.top1 == pytest.approx(np.mean([means.max() - means[o[-1]] for o in orders]))
    shortlists = [means.max() - means[order[-3:]].max() for order in orders]
    assert found.top3 == pytest.approx(np.mean(shortlists))
    deviation = math.sqrt(np.mean([np.var(truth[:, i], ddof=1) for i in range(len(FAMILIES))]))
    assert seed_deviation(truth) == pytest.approx(deviation)
    assert found.top1_deviations == pytest.approx(found.top1 / deviation)
    assert found.top3_deviations == pytest.approx(found.top3 / deviation)
    assert found.reliability_truth == pytest.approx(slow_reliability(truth))
    assert found.reliability_scores == pytest.approx(slow_repeatability(scores))
    both = slow_reliability(truth) * slow_repeatability(scores)
    assert found.corrected == pytest.approx(min(found.spearman / math.sqrt(both), 1))


def test_one_repetition_is_judged_by_itself_and_cannot_be_corrected() -> None:
    truth, scores = made(4, 0.5, 1), made(1, 0.8, 2)
    found = agreement(truth, scores)
    assert found.spearman == pytest.approx(stats.spearmanr(truth.mean(axis=0), scores[0])[0])
    assert found.top1_deviations == pytest.approx(found.top1 / seed_deviation(truth))
    assert found.reliability_truth == pytest.approx(slow_reliability(truth))
    assert math.isnan(found.reliability_scores)
    assert math.isnan(found.corrected)


def test_repetitions_are_not_averaged_before_they_are_judged() -> None:
    """Their mean would have full data's order; each alone, which is what a user sees, has not."""
    truth = np.arange(9.0)
    noise = np.tile([3.0, -3.0, 0.0], 3)
    found = agreement(np.stack([truth, truth]), np.stack([truth + noise, truth - noise]))
    expected = slow_spearman(truth, np.stack([truth + noise, truth - noise]))
    assert found.spearman == pytest.approx(expected)
    assert found.spearman < 1


def slow_spearman(truth: np.ndarray, scores: np.ndarray) -> float:
    """Mean over repetitions; truth: (n,)."""
    return float(np.mean([stats.spearmanr(line, truth)[0] for line in scores]))


def slow_repeatability(scores: np.ndarray) -> float:
    """Mean over all pairs of repetitions."""
    pairs = itertools.combinations(scores, 2)
    return float(np.mean([stats.spearmanr(one, other)[0] for one, other in pairs]))


def slow_reliability(values: np.ndarray) -> float:
    """Every half of the seeds against its complement, both ways round."""
    seeds, found = set(range(len(values))), []
    for size in {len(values) // 2, len(values) - len(values) // 2}:
        for half in itertools.combinations(seeds, size):
            one, other = values[list(half)], values[sorted(seeds - {*half})]
            found.append(stats.spearmanr(one.mean(axis=0), other.mean(axis=0))[0])
    return 2 * np.mean(found) / (1 + np.mean(found))


@pytest.mark.parametrize("seeds", [2, 3, 4, 5])
def test_reliability_is_that_of_all_splits(seeds: int) -> None:
    values = made(seeds, 0.7)
    assert reliability(values) == pytest.approx(slow_reliability(values))


def test_reliability_foretells_the_correlation_with_other_seeds() -> None:
    many = made(400, 1.5)
    of_four = [reliability(many[start : start + 4]) for start in range(0, 400, 4)]
    means = many.reshape(100, 4, -1).mean(axis=1)
    between = [stats.spearmanr(means[i], means[i + 1])[0] for i in range(99)]
    assert np.mean(of_four) == pytest.approx(np.mean(between), abs=0.05)


@pytest.mark.parametrize("seeds", [2, 3, 4, 7])
def test_every_split_comes_up_once(seeds: int) -> None:
    found = splits(seeds)
    assert len({frozenset(map(frozenset, pair)) for pair in found}) == len(found)
    total = math.comb(seeds, seeds // 2)
    assert len(found) == (total if seeds % 2 else total / 2)
    for one, other in found:
        assert sorted(one + other) == list(range(seeds))
        assert len(one) == seeds // 2


def test_many_seeds_take_some_of_the_splits(monkeypatch: pytest.MonkeyPatch) -> None:
    values = made(10, 0.5)
    every = reliability(values)
    monkeypatch.setattr(module, "MOST_SPLITS", 40)
    assert 20 <= len(splits(10)) <= 40
    assert reliability(values) == pytest.approx(every, abs=0.05)


def test_repeatability_foretells_the_correlation_with_another_repetition() -> None:
    """It is of one repetition: not stepped up to what the mean of all of them would have."""
    many = made(100, 1.5)
    of_five = [repeatability(many[start : start + 5]) for start in range(0, 100, 5)]
    assert np.mean(of_five) == pytest.approx(slow_repeatability(many), abs=0.05)
    stacked = np.stack([many[:5], many[5:10]], axis=1)  # (G, ..., n)
    assert repeatability(stacked) == pytest.approx(of_five[:2])


def test_one_seed_has_neither_reliability_nor_deviation() -> None:
    found = agreement(made(1, 0.1, 1), made(3, 0.1, 2))
    undefined = (found.reliability_truth, found.corrected, found.top1_deviations)
    assert all(math.isnan(value) for value in undefined)
    assert found.spearman > 0.9
    assert found.reliability_scores > 0.9


def test_repetitions_that_disagree_have_no_reliability_and_no_correction() -> None:
    rising = np.arange(9.0)
    found = agreement(made(3, 0.1, settings=9), np.array([rising, -rising]))
    assert found.reliability_scores == 0
    assert math.isnan(found.corrected)


def test_the_correction_finds_what_noise_took() -> None:
    """A hundred settings, a true correlation of one half, and seeds and repetitions as noisy as
    the settings."""
    random = np.random.default_rng(3)
    raw, corrected = [], []
    for _ in range(40):
        quality = random.normal(size=100)
        other = 0.5 * quality + math.sqrt(0.75) * random.normal(size=100)
        found = agreement(
            quality + random.normal(size=(4, 100)), other + random.normal(size=(4, 100))
        )
        raw.append(found.spearman)
        corrected.append(found.corrected)
    level = 6 / math.pi * math.asin(0.5 / 2)  # Spearman's of two normals correlated by one half
    assert np.mean(raw) < level - 0.05
    assert np.mean(corrected) == pytest.approx(level, abs=0.03)


@given(st.integers(0, 2**32), st.integers(1, 4), st.floats(0.01, 3))
def test_measures_keep_within_their_bounds(number: int, lines: int, noise: float) -> None:
    truth, scores = made(3, noise, number), made(lines, noise, number + 1)
    found = agreement(truth, scores)
    for value in (found.spearman, found.kendall, found.tau_ap):
        assert -1 <= value <= 1
    assert math.isnan(found.corrected) or abs(found.spearman) <= abs(found.corrected) <= 1
    assert 0 <= found.top3 <= np.ptp(truth.mean(axis=0))
    assert 0 <= found.top3 <= found.top1
    moved = dataclasses.asdict(agreement(truth, 3 * scores + 1))
    assert moved == pytest.approx(dataclasses.asdict(found), nan_ok=True)


def test_settings_are_drawn_within_families() -> None:
    drawn = resampled_settings(FAMILIES, 50, seed=1)
    assert (FAMILIES[drawn] == FAMILIES).all()
    assert set(drawn.ravel()) == set(range(len(FAMILIES)))
    assert np.array_equal(resampled_settings(FAMILIES, 50, seed=1), drawn)
    assert not np.array_equal(resampled_settings(FAMILIES, 50, seed=2), drawn)


def test_intervals_equal_a_loop_over_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_AT_ONCE", 7)
    truth, scores = made(3, 0.5, 1), made(2, 0.5, 2)
    found = intervals(truth, scores, FAMILIES, seed=5, resamples=40)
    loop = [
        dataclasses.asdict(agreement(truth[:, places], scores[:, places]))
        for places in resampled_settings(FAMILIES, 40, seed=5)
    ]
    assert {"spearman", "corrected", "kendall", "tau_ap", "top1", "top3"} < found.keys()
    assert found.keys() < {field.name for field in dataclasses.fields(Agreement)}
    for name, interval in found.items():
        bounds = np.percentile([line[name] for line in loop], [2.5, 97.5])
        assert (interval.low, interval.high) == pytest.approx(tuple(bounds))


def test_an_interval_covers_the_correlation_of_all_settings_there_are() -> None:
    """Settings drawn from a large population, again and again: the rate is near 95%."""
    random = np.random.default_rng(8)
    level, inside = 6 / math.pi * math.asin(0.8 / 2), 0
    for number in range(100):
        quality = random.normal(size=40)
        scores = 0.8 * quality + 0.6 * random.normal(size=40)
        one_family = np.array(["dcn"] * 40)
        found = intervals(quality[None], scores[None], one_family, number, resamples=200)
        inside += found["spearman"].low <= level <= found["spearman"].high
    assert inside >= 88


def test_what_is_often_undefined_has_no_interval() -> None:
    found = intervals(made(1, 0.1), made(3, 0.1, 2), FAMILIES, seed=0, resamples=20)
    assert math.isnan(found["corrected"].low)
    assert math.isnan(found["top1_deviations"].high)
    assert found["spearman"].low > 0.5
    alone = intervals(made(3, 0.1), made(1, 0.1, 2), FAMILIES, seed=0, resamples=20)
    assert math.isnan(alone["corrected"].low)
    assert alone["top1_deviations"].high >= 0


def test_families_of_one_setting_each_have_no_interval() -> None:
    """Drawn within families, the settings would be the same every time."""
    alone = np.array([f"family-{i}" for i in range(len(FAMILIES))])
    found = intervals(made(2, 0.1), made(2, 0.1, 2), alone, seed=0, resamples=20)
    assert all(math.isnan(interval.low) for interval in found.values())
    assert not compare(made(2, 0.1), made(2, 0.1, 2), made(2, 9, 3), alone, seed=0).clear


def test_a_difference_is_of_the_same_resamples() -> None:
    """Of any numbers of repetitions."""
    truth, first, second = made(4, 0.2, 1), made(3, 0.3, 2), made(1, 2.0, 3)
    found = compare(truth, first, second, FAMILIES, seed=5, resamples=60)
    right = truth.mean(axis=0)
    loop = [
        slow_spearman(right[places], first[:, places])
        - slow_spearman(right[places], second[:, places])
        for places in resampled_settings(FAMILIES, 60, seed=5)
    ]
    bounds = tuple(np.percentile(loop, [2.5, 97.5]))
    assert (found.interval.low, found.interval.high) == pytest.approx(bounds)
    whole = slow_spearman(right, first) - slow_spearman(right, second)
    assert found.difference == pytest.approx(whole)


def test_a_difference_is_clear_on_either_side_of_zero() -> None:
    truth, good, bad = made(3, 0.05, 1), made(3, 0.05, 2), -made(3, 0.05, 3)
    assert compare(truth, good, bad, FAMILIES, seed=0, resamples=50).clear
    assert compare(truth, bad, good, FAMILIES, seed=0, resamples=50).clear
    same = compare(truth, good, good, FAMILIES, seed=0, resamples=50)
    assert (same.difference, same.clear) == (0, False)


def test_inputs_that_do_not_fit_are_named() -> None:
    truth = made(2, 0.1)
    with pytest.raises(ValueError, match=r"truth: shape \(12,\); give a line per seed"):
        agreement(truth[0], truth)
    with pytest.raises(ValueError, match="truth has 12 settings, scores 11"):
        agreement(truth, truth[:, 1:])
    holed = truth.copy()
    holed[1, 4] = np.nan
    with pytest.raises(ValueError, match="scores: NaN at setting 4; leave out"):
        agreement(truth, holed)
    with pytest.raises(ValueError, match="families: 3 of them for 12 settings"):
        intervals(truth, truth, FAMILIES[:3], seed=0)
