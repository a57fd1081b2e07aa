"""How sure a number is: over seeds, over test rows, over both.

Protocol: a training gives an AUC, seeds repeat it. Three intervals, all of 95%, answer three
questions. The t-interval over seeds: what would other seeds give on these test rows? The
bootstrap over rows: what would these networks give on other test rows? The two-level bootstrap:
what would other seeds give on other rows? Rows of one user are alike, so where users are known a
resample draws users, each with all its rows; without them rows count as independent. None of the
three holds the variance of the reference network, which all seeds of a run share.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from diet_ray.seeds import numpy_generator

CONFIDENCE = 0.95

# Resamples that are weighed at once: bounds memory, and keeps the cumulative sums in the cache.
_AT_ONCE = 16
COUNTED = 50_000_000  # rows times resamples whose counts are held at a time, 4 bytes each


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds."""

    mean: float
    half_width: float | None  # of the t-interval; None with one seed
    seeds: int


@dataclass(frozen=True)
class Interval:
    """Of a percentile bootstrap."""

    low: float
    high: float


def half_width(values: Sequence[float]) -> float | None:
    """Half of the t-interval of the mean; None for fewer than two values."""
    if len(values) < 2:
        return None
    error = float(np.std(values, ddof=1)) / math.sqrt(len(values))
    return float(stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1)) * error


def over_seeds(values: Sequence[float]) -> Estimate:
    """Mean and t-interval of one value per seed. Raises ValueError for none."""
    if not len(values):
        raise ValueError("values: no seed at all; give one value per seed")
    return Estimate(float(np.mean(values)), half_width(values), len(values))


def paired_difference(first: Mapping[int, float], second: Mapping[int, float]) -> Estimate:
    """first - second, seed by seed, over the seeds that both have; both map seed to value.

    Raises ValueError if they share no seed.
    """
    shared = sorted(first.keys() & second.keys())
    if not shared:
        raise ValueError(
            f"seeds {sorted(first)} against {sorted(second)}: nothing to pair; run both with the "
            "same seeds"
        )
    return over_seeds([first[seed] - second[seed] for seed in shared])


def row_counts(
    rows: int, resamples: int, seed: int, first: int = 0, groups: np.ndarray | None = None
) -> np.ndarray:
    """How often each test row is in each resample: int32 (R, rows).

    groups: integers (rows,), a number for each row's user. As many users are drawn as there are,
    with replacement, each with all its rows: rows of a user have one count, and a line sums to
    `rows` only on average. Without groups every row is its own, and a line sums to `rows` exactly.
    A resample is a function of its number, counted from `first`, and the seed. Raises ValueError
    if there is not one group for each row.
    """
    if groups is None:
        groups = np.arange(rows)
    if groups.shape != (rows,):
        raise ValueError(
            f"groups: shape {groups.shape} for {rows} test rows; give the user of every row"
        )
    users, user = np.unique(groups, return_inverse=True)
    counts = np.empty((resamples, rows), dtype=np.int32)
    for line, number in enumerate(range(first, first + resamples)):
        random = numpy_generator(seed, "bootstrap rows", number)
        drawn = random.integers(len(users), size=len(users))
        counts[line] = np.bincount(drawn, minlength=len(users))[user]
    return counts


def weighted_aucs(scores: np.ndarray, labels: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """AUC of one task under each line of weights, ties counted half: float64 (R,).

    scores: float (n,). labels: (n,) of 0 and 1. counts: integers (R, n). NaN where a line has
    only one class. The scores are sorted once; a line then costs one cumulative sum, exactly.
    """
    ones, zeros = np.flatnonzero(labels == 1), np.flatnonzero(labels != 1)
    ones = ones[np.argsort(scores[ones], kind="stable")]
    zeros = zeros[np.argsort(scores[zeros], kind="stable")]
    below = np.searchsorted(scores[zeros], scores[ones], side="left")
    not_above = np.searchsorted(scores[zeros], scores[ones], side="right")
    aucs = [
        _auc_of_sorted(counts[start : start + _AT_ONCE], ones, zeros, below, not_above)
        for start in range(0, len(counts), _AT_ONCE)
    ]
    return np.concatenate(aucs)


def _auc_of_sorted(
    counts: np.ndarray,
    ones: np.ndarray,
    zeros: np.ndarray,
    below: np.ndarray,
    not_above: np.ndarray,
) -> np.ndarray:
    """A one's pairs won are the zeros below it and half of those that it ties with."""
    passed = np.zeros((len(counts), len(zeros) + 1), dtype=np.int64)
    np.cumsum(counts.take(zeros, axis=1), axis=1, out=passed[:, 1:])
    weights = counts.take(ones, axis=1).astype(np.int64)
    twice_won = np.einsum("rn,rn->r", weights, passed.take(below, axis=1))
    twice_won += np.einsum("rn,rn->r", weights, passed.take(not_above, axis=1))
    pairs = weights.sum(axis=1) * passed[:, -1]
    with np.errstate(invalid="ignore"):
        return twice_won / (2 * pairs)


def resampled_aucs(
    logits: Mapping[Hashable, np.ndarray],
    cells: Iterable[Hashable],
    labels: np.ndarray,
    resamples: int,
    seed: int,
    groups: np.ndarray | None = None,
) -> dict[Hashable, np.ndarray]:
    """Each cell's AUC, mean over tasks, on the same resamples of the test rows: float64 (R,).

    logits: cell to float (n, K), read one at a time, once for every COUNTED resamples of a row.
    labels: (n, K) of 0 and 1. groups: integers (n,), every row's user, or None: see `row_counts`.
    """
    rows, at_once = len(labels), max(COUNTED // len(labels), 1)
    found: dict[Hashable, list[np.ndarray]] = {cell: [] for cell in cells}
    for first in range(0, resamples, at_once):
        counts = row_counts(rows, min(at_once, resamples - first), seed, first, groups)
        for cell, parts in found.items():
            parts.append(_mean_over_tasks(logits[cell], labels, counts))
    return {cell: np.concatenate(parts) for cell, parts in found.items()}


def _mean_over_tasks(logits: np.ndarray, labels: np.ndarray, counts: np.ndarray) -> np.ndarray:
    tasks = range(labels.shape[1])
    return np.mean([weighted_aucs(logits[:, k], labels[:, k], counts) for k in tasks], axis=0)


def over_rows(values: np.ndarray) -> Interval:
    """Interval of the mean over these very seeds; values: float (S seeds, R resamples).

    For a paired difference, give the differences of `resampled_aucs`.
    """
    return _percentiles(values.mean(axis=0))


def over_seeds_and_rows(values: np.ndarray, seed: int) -> Interval:
    """Interval of the mean when seeds are resampled along with the rows.

    values: float (S seeds, R resamples). Drawing S seeds out of S tells their variance too small
    by (S - 1) / S, so with few seeds read it together with the t-interval.
    """
    count, resamples = values.shape
    drawn = numpy_generator(seed, "bootstrap seeds").integers(count, size=(count, resamples))
    return _percentiles(np.take_along_axis(values, drawn, axis=0).mean(axis=0))


def _percentiles(means: np.ndarray) -> Interval:
    """A resample without one of the classes has no AUC and does not count."""
    tail = 50 * (1 - CONFIDENCE)
    low, high = np.nanpercentile(means, [tail, 100 - tail])
    return Interval(float(low), float(high))
