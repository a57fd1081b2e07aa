"""Pairs of settings that full data tells apart, and whether a method orders them right.

Protocol: a coefficient over all settings also counts pairs that are as good as equal. Here a pair
counts if full data's difference is significant: other seeds and other users would most likely not
turn it round. A replicate of the bootstrap draws seeds, for every setting on its own, and takes
one resample of the users, the same for all settings. Drawing seeds for each setting on its own
holds for settings whose networks share no chance, and errs to the safe side where a seed lifts or
lowers all settings together; drawn jointly, four seeds that happen to agree (one null pair in
eight) would look certain. S - 1 of S seeds are drawn, which makes the variance of their mean the
unbiased one (McCarthy and Snowden, 1985). With one seed only the users vary, and of two seeds the
spread is hardly known: below three seeds far too many pairs are called significant.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import stats

from diet_ray.seeds import numpy_generator

FALSE_DISCOVERIES = 0.05


@dataclass(frozen=True)
class SignificantPairs:
    """Places of settings, int (m,) each: full data's AUC of better[i] is above that of worse[i]."""

    better: np.ndarray
    worse: np.ndarray


@dataclass(frozen=True)
class PairsRight:
    """Significant pairs, and the share of them that a method orders right; NaN if there are none.

    A pair is within a family if both of its settings are of that family, else between families.
    """

    pairs: int
    pairs_right: float
    within: int
    within_right: float
    between: int
    between_right: float


def significant_pairs(
    truth: np.ndarray, resampled: np.ndarray, seed: int, q: float = FALSE_DISCOVERIES
) -> SignificantPairs:
    """Of all pairs, those that Benjamini and Hochberg's procedure lets through at rate q.

    truth: float (S, n), full data's test AUC. resampled: float (S, n, R), the same on R resamples
    of the users. With R resamples no p is below 2 / (R + 1), so of m pairs at least
    2 m / (q (R + 1)) must be as sure as that for any to be let through: with 50 settings 98 pairs
    for R = 500, 25 for R = 2000. Raises ValueError if the shapes do not fit.
    """
    if truth.shape != resampled.shape[:2]:
        raise ValueError(
            f"resampled: shape {resampled.shape} for truth of shape {truth.shape}; give it one "
            "more axis, the resamples of the users"
        )
    one, other = np.triu_indices(truth.shape[1], 1)
    p = p_values(resampled, seed)
    found = stats.false_discovery_control(p) <= q if len(p) else np.zeros(0, dtype=bool)
    means = truth.mean(axis=0)
    above = means[one] >= means[other]
    better, worse = np.where(above, one, other), np.where(above, other, one)
    return SignificantPairs(better[found], worse[found])


def p_values(resampled: np.ndarray, seed: int) -> np.ndarray:
    """Two-sided, of every pair's difference: float64 (m,), in the order of np.triu_indices(n, 1).

    resampled: float (S, n, R). Twice the share of replicates on the rarer side of zero, those at
    zero on both; the replicate that was observed counts once more. A resample without an AUC
    (NaN: one class only) does not count.
    """
    means = _replicates(resampled, seed)
    means = means[:, ~np.isnan(means).any(axis=0)]
    settings, replicates = means.shape
    rarer = [_rarer(means[i], means[i + 1 :]) for i in range(settings - 1)]
    counts = np.concatenate(rarer) if rarer else np.zeros(0)
    return np.minimum(2 * (1 + counts) / (replicates + 1), 1)


def _rarer(one: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Replicates on the rarer side of zero, of one setting (R,) against others (m, R): int (m,)."""
    return np.minimum((one <= others).sum(axis=1), (one >= others).sum(axis=1))


def _replicates(resampled: np.ndarray, seed: int) -> np.ndarray:
    """Mean over the seeds drawn, on each resample of the users: float64 (n, R)."""
    seeds, settings, resamples = resampled.shape
    random = numpy_generator(seed, "bootstrap seeds of settings")
    drawn = random.integers(seeds, size=(max(seeds - 1, 1), settings, resamples))
    return np.take_along_axis(resampled, drawn, axis=0).mean(axis=0)


def pairs_right(found: SignificantPairs, scores: np.ndarray, families: np.ndarray) -> PairsRight:
    """How a method's mean scores order the significant pairs; equal scores are half right.

    scores: float (S', n), higher is better. families: str (n,). Raises ValueError if the two have
    different numbers of settings.
    """
    if scores.shape[1] != len(families):
        raise ValueError(
            f"scores have {scores.shape[1]} settings, families {len(families)}; give both the same"
        )
    means = scores.mean(axis=0)
    right = (np.sign(means[found.better] - means[found.worse]) + 1) / 2
    same = families[found.better] == families[found.worse]
    return PairsRight(
        pairs=len(right),
        pairs_right=_share(right),
        within=int(same.sum()),
        within_right=_share(right[same]),
        between=int((~same).sum()),
        between_right=_share(right[~same]),
    )


def _share(right: np.ndarray) -> float:
    return float(right.mean()) if len(right) else math.nan
