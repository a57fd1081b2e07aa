"""Goals, and the refusal of what does not fit."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest

from diet_ray.bench.measure import BenchError, Found, Goal, Measure, Needs, refuse_too_large


@dataclass(frozen=True)
class Large(Measure):
    name: ClassVar[str] = "large"
    memory: float = 0
    disk: float = 0

    def needs(self) -> Needs:
        return Needs(self.memory, self.disk)

    def run(self, folder: str) -> Found:
        raise AssertionError("it must not start")


@pytest.mark.parametrize(
    ("goal", "met", "missed", "text"),
    [
        (Goal(low=1.8), 1.8, 1.79, "≥ 1.8"),
        (Goal(high=3), 3, 3.01, "≤ 3"),
        (Goal(0.95, 1.05), 0.95, 1.06, "0.95 to 1.05"),
    ],
)
def test_a_goal_holds_its_ends(goal: Goal, met: float, missed: float, text: str) -> None:
    assert goal.met(met)
    assert not goal.met(missed)
    assert str(goal) == text


def test_too_little_memory_is_refused_with_the_amount(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match=r"large: needs 3\.0 GB of memory, 2\.0 GB can be had"):
        refuse_too_large(Large(memory=3e9), str(tmp_path), memory=2e9)


def test_too_little_disk_is_refused_with_the_amount(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match=r"large: needs 1000000\.0 TB of disk"):
        refuse_too_large(Large(disk=1e18), str(tmp_path / "not there yet"))


def test_what_fits_is_let_through(tmp_path: Path) -> None:
    refuse_too_large(Large(memory=1, disk=1), str(tmp_path))
