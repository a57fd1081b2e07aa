"""The progressive loss of a training, part by part."""

from __future__ import annotations

import numpy as np
import pytest

from diet_ray.training.curve import PARTS, LossCurve


@pytest.mark.parametrize(("rows", "batch"), [(6_000, 10), (6_001, 7), (100, 32), (61, 1), (3, 8)])
def test_a_part_is_the_mean_of_the_batches_that_begin_in_it(rows: int, batch: int) -> None:
    losses = np.random.default_rng(rows).random(-(-rows // batch))
    curve = LossCurve(rows)
    parts: dict[int, list[tuple[int, float]]] = {}
    for number, loss in enumerate(losses):
        first = number * batch
        size = min(batch, rows - first)
        curve.add(size, loss)
        parts.setdefault(first * PARTS // rows, []).append((size, loss))
    expected = [
        sum(size * loss for size, loss in part) / sum(size for size, _ in part)
        for part in parts.values()
    ]
    assert curve.means() == pytest.approx(expected, rel=1e-12)
