"""The unrolled graph gives our meta-gradient."""

from __future__ import annotations

import pytest
import torch

from diet_ray.bench.made import network_names
from diet_ray.bench.meta import Meta, ours, unroll, whole_graph


@pytest.mark.parametrize("name", network_names())
def test_the_graph_finds_the_same_derivatives(name: str) -> None:
    of = unroll(name, window=4, batch_rows=3, target_rows=6, dtype=torch.float64)
    for found, expected in zip(ours(of), whole_graph(of), strict=True):
        assert expected.abs().max() > 0
        torch.testing.assert_close(found, expected)


@pytest.mark.slow
def test_memory_and_time_are_measured() -> None:
    measure = Meta(window=3, batch_rows=4, target_rows=8, repeats=1)
    memory, seconds = measure._figures("dcn")  # of one network: a process takes seconds to start
    assert memory.parts["graph MB"] > 0
    assert seconds.parts["ours CPU s"] > 0
    assert Meta(window=160).needs().memory > 1.5 * Meta(window=80).needs().memory
