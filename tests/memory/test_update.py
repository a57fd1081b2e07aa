"""The outer optimiser against torch's own and against loops in float64."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from diet_ray.config import OuterConfig
from diet_ray.memory.update import (
    BETA_1,
    BETA_2,
    EPSILON,
    Clipping,
    Learned,
    RowGradients,
    schedule,
    squared_norms,
    sum_shards,
)

ROWS, SHAPE = 7, (3, 2)


def torch_adam(parameter: torch.Tensor, step_size: float) -> torch.optim.Adam:
    return torch.optim.Adam([parameter], lr=step_size, betas=(BETA_1, BETA_2), eps=EPSILON)


def torch_step(optimizer: torch.optim.Adam, gradient: np.ndarray) -> None:
    optimizer.param_groups[0]["params"][0].grad = torch.from_numpy(gradient)
    optimizer.step()


def test_dense_adam_is_that_of_torch() -> None:
    draw = np.random.default_rng(0)
    start = draw.normal(size=(ROWS, *SHAPE)).astype(np.float32)
    ours, theirs = Learned.start(start), torch.from_numpy(start.copy())
    optimizer = torch_adam(theirs, 0.03)
    for _ in range(30):
        gradient = draw.normal(size=start.shape).astype(np.float32)
        ours.adam(np.arange(ROWS), gradient, 0.03)
        torch_step(optimizer, gradient)
        np.testing.assert_allclose(ours.values, theirs.numpy(), rtol=0, atol=2e-7 * 30)
    assert ours.steps.tolist() == [30] * ROWS


def test_a_row_counts_only_its_own_steps() -> None:
    draw = np.random.default_rng(1)
    start = draw.normal(size=(ROWS, *SHAPE)).astype(np.float32)
    ours = Learned.start(start)
    theirs = [torch.from_numpy(row.copy()) for row in start]
    optimizers = [torch_adam(row, 0.1) for row in theirs]
    touched = np.zeros(ROWS, dtype=int)
    for _ in range(40):
        rows = np.flatnonzero(draw.random(ROWS) < 0.4)
        gradient = draw.normal(size=(len(rows), *SHAPE)).astype(np.float32)
        ours.adam(rows, gradient, 0.1)
        for row, part in zip(rows, gradient, strict=True):
            torch_step(optimizers[row], part)
        touched[rows] += 1
    assert len(set(touched)) > 1, "the rows should be touched unequally often"
    assert ours.steps.tolist() == touched.tolist()
    np.testing.assert_allclose(ours.values, torch.stack(theirs).numpy(), rtol=0, atol=1e-5)


def test_an_untouched_row_stays_as_it_is_and_the_start_is_a_copy() -> None:
    start = np.ones((ROWS, *SHAPE), dtype=np.float32)
    ours = Learned.start(start)
    ours.adam(np.array([2]), np.ones((1, *SHAPE)), 0.5)
    ours.adam(np.array([], dtype=np.int64), np.zeros((0, *SHAPE)), 0.5)
    assert (start == 1).all()
    changed = (ours.values != 1).any(axis=(1, 2))
    assert np.flatnonzero(changed).tolist() == [2]


@st.composite
def shards(draw: st.DrawFn) -> dict[int, RowGradients]:
    generator = np.random.default_rng(draw(st.integers(0, 2**32)))
    found = {}
    for index in range(draw(st.integers(1, 4))):
        rows = np.array(sorted(draw(st.sets(st.integers(0, 9), max_size=8))), dtype=np.int64)
        scale = 10.0 ** draw(st.integers(-6, 6))
        embeddings = (generator.normal(size=(len(rows), *SHAPE)) * scale).astype(np.float32)
        labels = (generator.normal(size=(len(rows), 2)) * scale).astype(np.float32)
        found[index] = RowGradients(rows, embeddings, labels)
    return found


@given(shards(), st.randoms(use_true_random=False))
def test_shards_are_averaged_whatever_order_they_came_in(
    found: dict[int, RowGradients], shuffler: random.Random
) -> None:
    order = list(found)
    shuffler.shuffle(order)
    summed = sum_shards({index: found[index] for index in order})
    expected: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    for index in sorted(found):
        for at, row in enumerate(found[index].rows.tolist()):
            embedding, label = expected.get(row, (np.zeros(SHAPE), np.zeros(2)))
            expected[row] = (
                embedding + found[index].embeddings[at],
                label + found[index].labels[at],
            )
    assert summed.rows.tolist() == sorted(expected)
    for at, row in enumerate(summed.rows.tolist()):
        embedding, label = expected[row]
        assert (summed.embeddings[at] == embedding / len(found)).all()
        assert (summed.labels[at] == label / len(found)).all()


@given(shards(), st.integers(0, 10))
def test_a_split_of_the_rows_changes_no_bit(found: dict[int, RowGradients], cut: int) -> None:
    """What two servers compute, side by side, is what one computes."""

    def part(low: int, high: int) -> RowGradients:
        kept = {}
        for index, shard in found.items():
            mask = (shard.rows >= low) & (shard.rows < high)
            kept[index] = RowGradients(shard.rows[mask], shard.embeddings[mask], shard.labels[mask])
        return sum_shards(kept)

    whole, parts = sum_shards(found), [part(0, cut), part(cut, 10)]
    assert np.concatenate([p.embeddings for p in parts]).tobytes() == whole.embeddings.tobytes()
    norms = np.concatenate([squared_norms(p, 0.3) for p in parts])
    assert norms.tobytes() == squared_norms(whole, 0.3).tobytes()

    start = np.random.default_rng(0).normal(size=(10, *SHAPE))
    one, two = Learned.start(start), [Learned.start(start[:cut]), Learned.start(start[cut:])]
    one.adam(whole.rows, whole.embeddings, 0.1)
    for learned, gradients, first in zip(two, parts, (0, cut), strict=True):
        learned.adam(gradients.rows - first, gradients.embeddings, 0.1)
    assert np.concatenate([learned.values for learned in two]).tobytes() == one.values.tobytes()


def test_norms_measure_embeddings_in_units() -> None:
    embeddings = np.array([[[3.0, 0.0]], [[0.0, 4.0]]])
    gradients = RowGradients(np.array([4, 9]), embeddings, np.array([[1.0], [2.0]]))
    assert squared_norms(gradients, 0.5).tolist() == [1.5**2 + 1, 2.0**2 + 4]


def test_clipping_follows_the_median_of_the_last_norms() -> None:
    outer = OuterConfig(clip=2.0, clip_window=3)
    factor, state = Clipping().step(8.0, outer)
    assert factor == 1.0
    factor, state = state.step(15.0, outer)
    assert factor == 1.0
    factor, state = state.step(92.0, outer)
    assert (factor, state.norms) == (2 * 11.5 / 92, (8.0, 15.0, 92.0))
    factor, state = state.step(40.0, outer)
    assert (factor, state.norms) == (2 * 15 / 40, (15.0, 92.0, 40.0))


@pytest.mark.parametrize("first", [0.0, 1e-3, 1e3])
def test_a_bad_first_norm_spoils_one_step_at_most(first: float) -> None:
    outer = OuterConfig()
    _, state = Clipping().step(first, outer)
    factors = []
    for _ in range(20):
        factor, state = state.step(1.0, outer)
        factors.append(factor)
    assert factors[1:] == [1.0] * 19
    assert factors[0] > 0


def test_a_zero_gradient_is_no_measure_of_others() -> None:
    _, state = Clipping().step(3.0, OuterConfig())
    assert state.step(0.0, OuterConfig()) == (1.0, state)


@given(st.lists(st.floats(1e-9, 1e9), min_size=1, max_size=30))
def test_a_clipped_norm_never_leaves_the_last_ones_behind(norms: list[float]) -> None:
    outer, state = OuterConfig(clip=1.5), Clipping()
    for number, norm in enumerate(norms):
        factor, state = state.step(norm, outer)
        assert 0 < factor <= 1
        before = norms[max(number - outer.clip_window, 0) : number]
        if before:
            assert factor * norm <= 1.5 * np.median(before) * (1 + 1e-12)


def test_shards_that_are_not_finite_are_left_out_of_the_mean() -> None:
    def shard(value: float) -> RowGradients:
        return RowGradients(np.array([1, 3]), None, np.full((2, 2), value))

    summed = sum_shards({0: shard(1.0), 1: None, 2: shard(2.0)})
    assert summed is not None
    assert summed.labels.tolist() == [[1.5, 1.5]] * 2
    assert sum_shards({0: None, 1: None}) is None


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_one_number_makes_gradients_not_finite(bad: float) -> None:
    labels, embeddings = np.zeros((2, 1)), np.zeros((2, *SHAPE))
    assert RowGradients(np.arange(2), embeddings, labels).finite
    assert RowGradients(np.arange(2), None, labels).finite
    broken = embeddings.copy()
    broken[1, 0, 1] = bad
    assert not RowGradients(np.arange(2), broken, labels).finite
    assert not RowGradients(np.arange(2), embeddings, np.full((2, 1), bad)).finite


@settings(max_examples=30)
@given(st.integers(1, 200))
def test_the_schedule_falls_from_one_towards_zero(steps: int) -> None:
    outer = OuterConfig(schedule="cosine")
    factors = [schedule(outer, step, steps) for step in range(steps)]
    assert factors[0] == 1.0
    assert factors == sorted(factors, reverse=True)
    assert factors[-1] > 0
    if steps % 2 == 0:
        assert factors[steps // 2] == pytest.approx(0.5)
    constant = OuterConfig(schedule="constant")
    assert {schedule(constant, step, steps) for step in range(steps)} == {1.0}


def test_learned_state_starts_at_rest() -> None:
    learned = Learned.start(np.ones((2, 3), dtype=np.float64))
    assert learned.values.dtype == np.float32
    assert not learned.first_moment.any()
    assert not learned.second_moment.any()
    assert learned.steps.tolist() == [0, 0]
