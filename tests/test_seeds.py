"""Seeds: each draw is a pure function of its path."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from diet_ray import seeds

index = st.integers(-(2**40), 2**40) | st.text(max_size=6)
paths = st.lists(index, max_size=4).map(tuple)
seed_values = st.integers(0, 2**63 - 1)


@given(seed_values, paths, paths)
def test_different_paths_have_different_seeds(seed: int, a: tuple, b: tuple) -> None:
    assert (seeds.derive(seed, *a) == seeds.derive(seed, *b)) == (a == b)


@given(seed_values, st.integers(0, 10**6))
def test_the_type_of_an_index_counts(seed: int, number: int) -> None:
    assert seeds.derive(seed, number) != seeds.derive(seed, str(number))


@given(seed_values, paths, index, index)
def test_a_path_is_not_its_joined_text(seed: int, path: tuple, a: int | str, b: int | str) -> None:
    assert seeds.derive(seed, *path, a, b) != seeds.derive(seed, *path, f"{a}{b}")


@given(st.integers(0, 2**31 - 1))
def test_an_index_from_an_array_is_the_plain_one(number: int) -> None:
    assert seeds.derive(0, np.int32(number), np.int64(7)) == seeds.derive(0, number, 7)


def test_a_fraction_is_not_an_index() -> None:
    with pytest.raises(TypeError):
        seeds.derive(0, 0.5)  # type: ignore[arg-type]


def test_seeds_stay_the_same_from_version_to_version() -> None:
    assert seeds.derive(0) == 4761921975702974394
    assert seeds.derive(7, "meta", 1, 2) == 2822571025418018007
    drawn = seeds.uniform(7, "rows", indices=np.arange(3))
    assert drawn.tolist() == [0.463469829283197, 0.298696207596417, 0.9698659729871528]


@given(seed_values, paths)
def test_a_seed_fits_every_generator(seed: int, path: tuple) -> None:
    assert 0 <= seeds.derive(seed, *path) < 2**63
    one, other = (seeds.numpy_generator(seed, *path).random(4) for _ in range(2))
    np.testing.assert_array_equal(one, other)
    a, b = (torch.rand(4, generator=seeds.torch_generator(seed, *path)) for _ in range(2))
    assert torch.equal(a, b)


@given(seed_values, paths, st.lists(st.integers(0, 2**62), min_size=1, max_size=40), st.randoms())
def test_uniform_does_not_depend_on_the_other_indices(
    seed: int, path: tuple, indices: list[int], random: object
) -> None:
    whole = seeds.uniform(seed, *path, indices=np.array(indices))
    order = np.arange(len(indices))
    random.shuffle(order)  # type: ignore[attr-defined]
    part = order[: max(1, len(order) // 2)]
    again = seeds.uniform(seed, *path, indices=np.array(indices)[part])
    np.testing.assert_array_equal(again, whole[part])
    assert whole.dtype == np.float64
    assert ((whole >= 0) & (whole < 1)).all()


@pytest.mark.parametrize("seed", [0, 1, 12345])
def test_uniform_has_the_moments_of_a_uniform_draw(seed: int) -> None:
    n = 200_000
    drawn = seeds.uniform(seed, "moments", indices=np.arange(n))
    deviation = 5 / np.sqrt(n)
    assert abs(drawn.mean() - 1 / 2) < deviation * np.sqrt(1 / 12)
    assert abs(drawn.var() - 1 / 12) < deviation * np.sqrt(1 / 180)
    counts, _ = np.histogram(drawn, bins=64, range=(0, 1))
    chi_square = ((counts - n / 64) ** 2 / (n / 64)).sum()
    assert chi_square < 63 + 5 * np.sqrt(2 * 63)


def test_uniform_draws_of_neighbours_are_not_correlated() -> None:
    indices = np.arange(200_000)
    drawn = seeds.uniform(0, "a", indices=indices)
    for other in (
        seeds.uniform(0, "b", indices=indices),
        seeds.uniform(1, "a", indices=indices),
        np.roll(drawn, 1),
    ):
        assert abs(np.corrcoef(drawn, other)[0, 1]) < 5 / np.sqrt(len(indices))


def test_torch_seeded_gives_torch_its_own_state_back() -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    with seeds.torch_seeded(0, "initialise", 1):
        inside = torch.nn.Linear(3, 2).weight.detach().clone()
    assert torch.equal(torch.rand(2), expected)
    with seeds.torch_seeded(0, "initialise", 1):
        assert torch.equal(torch.nn.Linear(3, 2).weight, inside)


def test_torch_seeded_gives_the_state_back_after_an_error() -> None:
    before = torch.get_rng_state()
    with pytest.raises(RuntimeError), seeds.torch_seeded(0, "x"):
        torch.rand(-1)
    assert torch.equal(torch.get_rng_state(), before)
