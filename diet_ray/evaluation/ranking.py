"""How far two orders of the same settings agree, and what it costs to trust one of them.

Protocol: `scores` is the order that is judged, `truth` the one that is right; both are float
(..., n settings), higher is better, and every function works along the last axis, so that a
thousand resamples cost one call. A correlation is NaN where one side has no order at all: fewer
than two settings, or all of them equal.
"""

from __future__ import annotations

import numpy as np
from scipy import stats

_SHORTLIST = 3


def spearman(scores: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Correlation of the ranks, equal values sharing their mean rank: float64 (...,)."""
    one, other = (_centred(stats.rankdata(values, axis=-1)) for values in (scores, truth))
    products = (one * other).sum(axis=-1)
    return _ratio(products, np.sqrt((one**2).sum(axis=-1) * (other**2).sum(axis=-1)))


def kendall(scores: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Tau-b: right less wrong pairs, over the pairs that neither side holds equal: float64 (...,).

    The latter is a geometric mean of both sides' unequal pairs. Holds (..., n, n) bytes.
    """
    one, other = _signs(scores), _signs(truth)
    balance = (one * other).sum(axis=(-2, -1))
    unequal = [np.abs(signs).sum(axis=(-2, -1)).astype(np.float64) for signs in (one, other)]
    return _ratio(balance, np.sqrt(unequal[0] * unequal[1]))


def tau_ap(scores: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """AP correlation (Yilmaz, Aslam and Robertson, SIGIR 2008), the top weighs most: (...,).

    Walk down the order of `scores`: of the i - 1 settings above place i, what share is truly
    better than the one at i? Twice the mean share over places 2 to n, less 1.

    Settings that `scores` holds equal stand in any order with the same probability, and the
    expectation counts (tau-AP-a of Urbano and Marrero, ICTIR 2017). Of settings that are truly
    equal no order is right, so their pairs count neither above nor below the line: expected
    weight of right less wrong pairs, over that of all that have a right order. So the truth itself
    gets 1 even if it holds settings twice, as a bootstrap's resamples do. Holds (..., n, n) floats.
    """
    places = _signs(scores)
    above, equal = (places < 0).sum(axis=-1), (places == 0).sum(axis=-1)
    weight, weight_equal = _expected_weights(above, equal)
    weights = np.where(places < 0, weight[..., None], 0)
    weights = np.where(places == 0, weight_equal[..., None], weights)
    worse = -_signs(truth)  # 1 where the setting in the line is truly worse than in the column
    balance = (weights * worse).sum(axis=(-2, -1))
    return _ratio(balance, (weights * np.abs(worse)).sum(axis=(-2, -1)))


def _expected_weights(above: np.ndarray, equal: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What a setting's pair weighs with one above it, and with one that is equal: (..., n) each.

    Of t equals below p others, each is at place p + k with probability 1 / t, k = 1..t, where
    every pair weighs 1 / (p + k - 1), and any equal is above it with probability
    (k - 1) / (t - 1). Nothing is above the first place.
    """
    harmonic = np.append(0.0, np.cumsum(1 / np.arange(1, above.shape[-1] + 1)))
    weight = (harmonic[above + equal - 1] - harmonic[np.maximum(above - 1, 0)]) / equal
    # The sum over k of (k - 1) / (p + k - 1) is that of 1 - p / (p + k - 1).
    of_all_equals = 1 - (above == 0) / equal - above * weight
    return weight, of_all_equals / np.maximum(equal - 1, 1)


def regret(scores: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Truth lost by taking the best of `scores`: float64 (...,); equal bests share their mean."""
    best = scores == scores.max(axis=-1, keepdims=True)
    return truth.max(axis=-1) - np.where(best, truth, 0).sum(axis=-1) / best.sum(axis=-1)


def shortlist_regret(scores: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Truth lost by taking the truly best of the three best of `scores`: float64 (...,).

    Of settings that `scores` holds equal the truly worst come first, so no luck is counted.
    """
    order = np.lexsort((truth, -scores), axis=-1)
    shortlist = np.take_along_axis(truth, order[..., :_SHORTLIST], axis=-1)
    return truth.max(axis=-1) - shortlist.max(axis=-1)


def _centred(ranks: np.ndarray) -> np.ndarray:
    return ranks - (ranks.shape[-1] + 1) / 2


def _signs(values: np.ndarray) -> np.ndarray:
    """1 where the setting in the line is above the one in the column: int8 (..., n, n)."""
    lines, columns = values[..., :, None], values[..., None, :]
    return (lines > columns).astype(np.int8) - (lines < columns).astype(np.int8)


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """NaN for 0 / 0."""
    with np.errstate(invalid="ignore"):
        return above / below
