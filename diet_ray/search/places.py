"""Which places of a leaderboard noise alone could have swapped.

Protocol: scores are candidates by seeds, and seed s of all candidates sees the rows in one order,
so it is a two-way layout: score = candidate + seed + noise. What candidate and seed leave
unexplained, pooled over all candidates, is the variance of the noise; a pooled one is known far
better than each candidate's own from its three or four seeds, and takes them to be equally noisy:
where some are far noisier than others, the ranges of the steady ones come out too wide and those
of the noisy ones too narrow.
Two candidates are compared over the seeds that both have, where what a seed does to all of them
cancels, by the t-interval (95%) of the difference of their means. Of pairs that are truly equal 5%
are called different: with many candidates that is many pairs.

Not in there is the draw of the set's rows, which all candidates share: another set of the same log
would move the whole order (RESULTS.md: worth ±.07 of Spearman's correlation with full data's).
"""

from __future__ import annotations

import math

import numpy as np
from scipy import stats

from diet_ray.evaluation.statistics import CONFIDENCE


def like_places(scores: np.ndarray) -> list[tuple[int, int]] | None:
    """By place, the first and the last place (from 1) whose candidate is not distinguishable.

    scores: float (n candidates, S seeds), in the order of the places, NaN where a candidate lacks
    a seed; each has one at least. A candidate is compared with those of as many seeds or more: of
    one that was stopped early its own range tells where it might stand. None if the seeds are too
    few to know the noise: one each.
    """
    seeds = (~np.isnan(scores)).sum(axis=1)
    variance, freedom = noise(scores)
    if freedom == 0:
        return None
    limit = float(stats.t.ppf((1 + CONFIDENCE) / 2, freedom)) * math.sqrt(variance)
    ranges = []
    for mine, own in zip(scores, seeds, strict=True):
        alike = 1 + np.flatnonzero(_alike(mine, scores, limit) & (seeds >= own))
        ranges.append((int(alike[0]), int(alike[-1])))
    return ranges


def _alike(mine: np.ndarray, others: np.ndarray, limit: float) -> np.ndarray:
    """Whether a candidate (S,) differs by noise only from others (n, S): bool (n,).

    limit: of a difference in units of the root of 2 / seeds. Without a common seed: alike.
    """
    gaps = others - mine
    common = ~np.isnan(gaps)
    seeds = common.sum(axis=1)
    sums = np.where(common, gaps, 0).sum(axis=1)
    return np.abs(sums) <= limit * np.sqrt(2 * seeds)


def noise(scores: np.ndarray) -> tuple[float, int]:
    """Variance that candidates and seeds leave unexplained, and its degrees of freedom.

    scores: like `like_places`. Without a degree of freedom the variance is NaN. The candidates'
    means are taken out of both sides, which leaves a regression on the S seeds alone.
    """
    seen = ~np.isnan(scores)
    candidate, seed = np.nonzero(seen)
    by_seed = np.eye(scores.shape[1])[seed] - (seen / seen.sum(axis=1, keepdims=True))[candidate]
    values = scores[seen] - np.nanmean(scores, axis=1)[candidate]
    effects, _, rank, _ = np.linalg.lstsq(by_seed, values)
    left = values - by_seed @ effects
    freedom = len(values) - len(scores) - int(rank)
    return (float(left @ left) / freedom if freedom else math.nan), freedom
