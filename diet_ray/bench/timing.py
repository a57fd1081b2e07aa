"""Things timed by turns, so that what disturbs a machine disturbs all of them alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch

Clock = Callable[[], float]


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch has one thread inside, and what it had again after."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def seconds_of(action: Callable[[], object], clock: Clock = time.perf_counter) -> float:
    """Of one call, by the clock (`time.process_time` for CPU time)."""
    started = clock()
    action()
    return clock() - started


def by_turns(actions: Mapping[str, Callable[[], float]], repeats: int) -> dict[str, list[float]]:
    """What each action returns, called `repeats` times in turn with the others.

    Every other turn goes backwards: none is always the one that comes after a certain other.
    """
    found: dict[str, list[float]] = {name: [] for name in actions}
    for repeat in range(repeats):
        names = list(actions) if repeat % 2 == 0 else list(reversed(list(actions)))
        for name in names:
            found[name].append(actions[name]())
    return found


@dataclass(frozen=True)
class Ratio:
    """Of two things measured by turns: medians, and of the ratios within a turn."""

    over: float
    under: float
    median: float
    low: float
    high: float

    @property
    def ends(self) -> dict[str, float]:
        """The lowest and the highest of the ratios, as parts of a figure."""
        return {"lowest": self.low, "highest": self.high}


def ratio(over: list[float], under: list[float]) -> Ratio:
    """over / under of each turn; the two lists are of equal length."""
    found = [a / b for a, b in zip(over, under, strict=True)]
    return Ratio(
        over=statistics.median(over),
        under=statistics.median(under),
        median=statistics.median(found),
        low=min(found),
        high=max(found),
    )
