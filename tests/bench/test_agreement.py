"""Agreement of shards is that of the noise that is in them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from diet_ray.bench.agreement import TARGET_BATCHES, Agreed, Agreement, agree


def test_noise_is_told_from_signal() -> None:
    draw = np.random.default_rng(0)
    signal = draw.normal(size=(500, 3))
    signal /= np.sqrt((signal**2).mean())
    gradients = signal + 4 * draw.normal(size=(64, 500, 3))
    found = agree(gradients)
    assert found.signal == pytest.approx(signal.size, rel=0.05)
    assert found.half == pytest.approx(16, rel=0.05)
    assert found.cosine(16) == pytest.approx(0.5, abs=0.02)
    halves = gradients[:32].mean(axis=0).ravel(), gradients[32:].mean(axis=0).ravel()
    cosine = halves[0] @ halves[1] / np.linalg.norm(halves[0]) / np.linalg.norm(halves[1])
    assert found.cosine(32) == pytest.approx(cosine, abs=0.03)


def test_without_signal_no_number_of_shards_agrees() -> None:
    found = Agreed(signal=-0.1, noise=1.0)
    assert found.half == float("inf")
    assert found.cosine(8) == 0


@pytest.mark.slow  # a run of its own
def test_shards_of_a_run_are_compared(tmp_path: Path) -> None:
    found = Agreement(rows=6_000, users=100, items=50, shards=3).run(str(tmp_path))
    assert len(found.figures) == len(TARGET_BATCHES)
    for figure in found.figures:
        assert figure.parts["CPU s of a shard"] > 0
        assert 0 <= figure.parts["cosine of 1"] <= figure.parts["cosine of 32"] <= 1
