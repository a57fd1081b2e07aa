"""Turns and ratios."""

from __future__ import annotations

import pytest
import torch

from diet_ray.bench.timing import by_turns, one_thread, ratio, seconds_of


def test_every_other_turn_goes_backwards() -> None:
    order: list[str] = []

    def noting(name: str, value: float) -> float:
        order.append(name)
        return value

    found = by_turns({"a": lambda: noting("a", 1), "b": lambda: noting("b", 2)}, repeats=3)
    assert order == ["a", "b", "b", "a", "a", "b"]
    assert found == {"a": [1, 1, 1], "b": [2, 2, 2]}


def test_a_ratio_is_the_median_of_turns() -> None:
    found = ratio([2.0, 9.0, 8.0], [1.0, 3.0, 1.0])
    assert (found.over, found.under) == (8, 1)
    assert (found.low, found.median, found.high) == (2, 3, 8)


def test_turns_must_pair() -> None:
    with pytest.raises(ValueError, match="shorter"):
        ratio([1.0, 2.0], [1.0])


def test_a_clock_of_ones_own() -> None:
    ticks = iter([3.0, 10.0])
    assert seconds_of(lambda: None, clock=lambda: next(ticks)) == 7


def test_threads_are_given_back() -> None:
    before = torch.get_num_threads()
    with one_thread():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before
