"""Does a cheap method order settings (candidate architectures) as full training does?

Protocol: `truth` is full data's test AUC, float (S seeds, n settings); `scores` a method's score
of the same settings, float (G repetitions, n), higher is better. The two sides share no seed.
Judged is the order of full data's mean over seeds against that of each repetition alone, which is
all that a user of the method sees; the mean over repetitions counts. Full data's own order is
noisy, so a perfect method would not reach 1; `corrected` estimates what one would reach if both
sides were free of noise (Spearman's correction for attenuation). The intervals, of 95%, ask what
other settings of the same network families would have given. Neither correction nor interval
undoes that all seeds share the log and the test rows.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np

from diet_ray.evaluation.ranking import kendall, regret, shortlist_regret, spearman, tau_ap
from diet_ray.evaluation.statistics import CONFIDENCE, Interval
from diet_ray.seeds import numpy_generator

# Over fewer settings a correlation says next to nothing, and no report prints one.
FEWEST_SETTINGS = 8

RESAMPLES = 1000
MOST_SPLITS = 200
_AT_ONCE = 100  # resamples whose pairs of settings are held at a time


@dataclass(frozen=True)
class Agreement:
    """Of a method's order with full data's, the mean over its repetitions. NaN where undefined."""

    settings: int
    spearman: float
    corrected: float  # Spearman over the root of both reliabilities, within [-1, 1]
    kendall: float  # tau-b
    tau_ap: float
    top1: float  # AUC lost by taking the method's best setting
    top3: float  # AUC lost by taking the truly best of the method's three best
    top1_deviations: float  # the same in seed deviations of full data
    top3_deviations: float
    reliability_truth: float
    reliability_scores: float


@dataclass(frozen=True)
class Difference:
    """Between two methods' Spearman with full data, first minus second."""

    difference: float
    interval: Interval
    clear: bool  # zero is outside of the interval


def agreement(truth: np.ndarray, scores: np.ndarray) -> Agreement:
    """truth: (S, n), scores: (G, n). Raises ValueError if they do not fit or have a NaN."""
    _check(truth, scores)
    measured = {name: float(value) for name, value in _measured(truth, scores).items()}
    return Agreement(
        settings=truth.shape[1],
        reliability_truth=float(reliability(truth)),
        reliability_scores=float(repeatability(scores)),
        **measured,
    )


def intervals(
    truth: np.ndarray,
    scores: np.ndarray,
    families: np.ndarray,
    seed: int,
    resamples: int = RESAMPLES,
) -> dict[str, Interval]:
    """Bootstrap over settings of every measure, by its name in `Agreement`.

    families: str (n,), of each setting; settings are drawn within families, so that a resample
    never is all of one kind. A resample in which a measure is undefined does not count, and if
    those are more than 5% there is no interval: NaN. There is none either if every family has
    one setting only, since nothing then varies. Raises ValueError like `agreement`.
    """
    _check(truth, scores, families)
    drawn = resampled_settings(families, resamples, seed)
    parts = [_measured(truth[:, some], scores[:, some]) for some in _few_at_once(drawn)]
    return {
        name: _interval(np.concatenate([part[name] for part in parts]), families)
        for name in parts[0]
    }


def compare(
    truth: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    families: np.ndarray,
    seed: int,
    resamples: int = RESAMPLES,
) -> Difference:
    """Is the first method's Spearman (uncorrected) above the second's, on the same resamples?

    first, second: scores (G, n) and (G', n) of the same settings. Interval and errors are those
    of `intervals`.
    """
    _check(truth, first, families)
    _check(truth, second, families)
    right = truth.mean(axis=0)
    drawn = resampled_settings(families, resamples, seed)
    resampled = _advantage(right[drawn], first[:, drawn], second[:, drawn])
    interval = _interval(resampled, families)
    clear = interval.low > 0 or interval.high < 0
    return Difference(float(_advantage(right, first, second)), interval, clear)


def resampled_settings(families: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """Every setting's place taken by one drawn, with replacement, from its family: int (R, n)."""
    drawn = np.empty((resamples, len(families)), dtype=np.int64)
    for family in np.unique(families):
        members = np.flatnonzero(families == family)
        random = numpy_generator(seed, "bootstrap settings", str(family))
        drawn[:, members] = random.choice(members, size=(resamples, len(members)))
    return drawn


def reliability(values: np.ndarray) -> np.ndarray:
    """Of the order of the means over seeds: float64 (...,); values: float (S seeds, ..., n).

    The Spearman correlation that these means would have with those of S other seeds. Measured
    between the means of two halves of the seeds, the mean over all splits (with many seeds, over
    MOST_SPLITS of them, evenly from their list), and stepped up from S / 2, the mean size of a
    half even where S is odd, to S seeds by Spearman and Brown's 2 r / (1 + r). That formula is
    exact for equal halves and Pearson's correlation, close otherwise. Halves that disagree have
    no reliability: 0. NaN with one seed, or where all settings of a half are equal.
    """
    halves = [
        spearman(values[one].mean(axis=0), values[other].mean(axis=0))
        for one, other in splits(len(values))
    ]
    if not halves:
        return np.full(values.shape[1:-1], math.nan)
    between = np.maximum(np.mean(halves, axis=0), 0)
    return 2 * between / (1 + between)


def repeatability(scores: np.ndarray) -> np.ndarray:
    """Of one repetition's order: float64 (...,); scores: float (G repetitions, ..., n).

    The Spearman correlation between two repetitions, the mean over all pairs; 0 if they disagree.
    NaN with one repetition.
    """
    pairs = [spearman(one, other) for one, other in itertools.combinations(scores, 2)]
    if not pairs:
        return np.full(scores.shape[1:-1], math.nan)
    return np.maximum(np.mean(pairs, axis=0), 0)


def splits(seeds: int) -> list[tuple[list[int], list[int]]]:
    """Each way to part the seeds into floor(S / 2) and the rest, once; MOST_SPLITS at most."""
    size, everyone = seeds // 2, range(seeds)
    # Of an even number either half comes up by itself: keep the one with the first seed.
    total = math.comb(seeds, size) // (1 if seeds % 2 else 2) if size else 0
    halves = itertools.islice(itertools.combinations(everyone, size), total)
    every = max(-(-total // MOST_SPLITS), 1)
    return [
        (list(half), [seed for seed in everyone if seed not in half])
        for half in itertools.islice(halves, 0, None, every)
    ]


def seed_deviation(values: np.ndarray) -> np.ndarray:
    """What one seed's value is off by: float64 (...,); values: float (S seeds, ..., n).

    Root of the mean over settings of the variance over seeds; NaN with one seed.
    """
    if len(values) < 2:
        return np.full(values.shape[1:-1], math.nan)
    return np.sqrt(values.var(axis=0, ddof=1).mean(axis=-1))


def _measured(truth: np.ndarray, scores: np.ndarray) -> dict[str, np.ndarray]:
    """Every measure with an interval, (...,) each; truth: (S, ..., n), scores: (G, ..., n)."""
    right = np.broadcast_to(truth.mean(axis=0), scores.shape)
    raw, deviation = spearman(scores, right).mean(axis=0), seed_deviation(truth)
    top1 = regret(scores, right).mean(axis=0)
    top3 = shortlist_regret(scores, right).mean(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return {
            "spearman": raw,
            "corrected": _corrected(raw, reliability(truth) * repeatability(scores)),
            "kendall": kendall(scores, right).mean(axis=0),
            "tau_ap": tau_ap(scores, right).mean(axis=0),
            "top1": top1,
            "top3": top3,
            "top1_deviations": top1 / deviation,
            "top3_deviations": top3 / deviation,
        }


def _corrected(raw: np.ndarray, reliabilities: np.ndarray) -> np.ndarray:
    defined = np.where(reliabilities > 0, reliabilities, math.nan)
    return np.clip(raw / np.sqrt(defined), -1, 1)


def _advantage(truth: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Of one over the other, each the mean over its repetitions (G, ..., n); truth: (..., n)."""
    return spearman(first, truth).mean(axis=0) - spearman(second, truth).mean(axis=0)


def _few_at_once(drawn: np.ndarray) -> list[np.ndarray]:
    return [drawn[start : start + _AT_ONCE] for start in range(0, len(drawn), _AT_ONCE)]


def _interval(values: np.ndarray, families: np.ndarray) -> Interval:
    """Percentiles of values (R,), as `intervals` says."""
    defined = values[~np.isnan(values)]
    alone = len(np.unique(families)) == len(families)
    if alone or len(defined) < CONFIDENCE * len(values):
        return Interval(math.nan, math.nan)
    tail = 50 * (1 - CONFIDENCE)
    low, high = np.percentile(defined, [tail, 100 - tail])
    return Interval(float(low), float(high))


def _check(truth: np.ndarray, scores: np.ndarray, families: np.ndarray | None = None) -> None:
    for name, values in (("truth", truth), ("scores", scores)):
        if values.ndim != 2 or not len(values):
            raise ValueError(
                f"{name}: shape {values.shape}; give a line per seed or repetition, (.., n)"
            )
        if np.isnan(values).any():
            setting = int(np.flatnonzero(np.isnan(values).any(axis=0))[0])
            raise ValueError(
                f"{name}: NaN at setting {setting}; leave out settings that a side lacks"
            )
    if truth.shape[1] != scores.shape[1]:
        raise ValueError(
            f"truth has {truth.shape[1]} settings, scores {scores.shape[1]}; give both the same "
            "settings in one order"
        )
    if families is not None and len(families) != truth.shape[1]:
        raise ValueError(
            f"families: {len(families)} of them for {truth.shape[1]} settings; give one for each"
        )
