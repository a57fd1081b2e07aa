"""What every worker has is everyone's, in the order of the parts."""

from __future__ import annotations

import threading

import pytest
import ray
import torch
from torch import Tensor

from diet_ray.training.workers import Workers
from tests.training.in_threads import together

PARTS = 6


def vector(part: int) -> Tensor:
    """Of a length of its own; part 0's is empty."""
    return torch.arange(part * part) + 100 * part


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 6])
def test_all_get_all_parts_in_order(count: int) -> None:
    def work(workers: Workers) -> list[Tensor]:
        return workers.gather([vector(part) for part in workers.own(PARTS)], PARTS)

    for found in [work(Workers())] if count == 1 else together(count, work):
        assert [part.tolist() for part in found] == [vector(n).tolist() for n in range(PARTS)]


@pytest.mark.parametrize("count", [1, 3])
def test_all_know_the_nodes_of_all(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads are all on one node, as Ray knows; here each says that it is on its own."""
    rank = threading.local()

    class Context:
        def get_node_id(self) -> str:
            return ids[rank.value]

    def work(workers: Workers) -> frozenset[str]:
        rank.value = workers.rank
        return workers.nodes(torch.device("cpu"))

    ids = [bytes([1, 2, 250 + number]).hex() for number in range(count)]
    monkeypatch.setattr(ray, "get_runtime_context", Context)
    for found in [work(Workers())] if count == 1 else together(count, work):
        assert found == frozenset(ids)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 6])
def test_every_part_is_one_workers_own(count: int) -> None:
    own = [Workers(rank, count).own(PARTS) for rank in range(count)]
    assert [part for parts in own for part in parts] == list(range(PARTS))
    assert {len(parts) for parts in own} <= {PARTS // count, -(-PARTS // count)}
