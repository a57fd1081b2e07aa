"""Workers of one process: each a thread, which hand each other what torch's group would."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from torch import Tensor

from diet_ray.training.workers import Workers

Result = TypeVar("Result")
PATIENCE = 60  # seconds until a worker that waits for one that failed gives up


class Meeting:
    """Where the workers put what they have for all."""

    def __init__(self, count: int) -> None:
        self.brought: dict[int, Tensor] = {}
        self.barrier = threading.Barrier(count, timeout=PATIENCE)


@dataclass(frozen=True)
class InThreads(Workers):
    meeting: Meeting = field(default_factory=lambda: Meeting(1))

    def _from_all(self, tensor: Tensor) -> list[Tensor]:
        self.meeting.brought[self.rank] = tensor.detach().clone()
        self.meeting.barrier.wait()
        found = [self.meeting.brought[rank] for rank in range(self.count)]
        self.meeting.barrier.wait()
        assert len({part.shape for part in found}) == 1, "torch gathers equal shapes only"
        return found


def together(count: int, work: Callable[[Workers], Result]) -> list[Result]:
    """What each of so many workers returns."""
    meeting = Meeting(count)

    def one(rank: int) -> Result:
        torch.set_num_threads(1)
        return work(InThreads(rank, count, meeting))

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(one, range(count)))
