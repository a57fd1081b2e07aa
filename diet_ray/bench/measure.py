"""What a measure is, what it finds, and the refusal of one that this machine is too small for."""

from __future__ import annotations

import os
import shutil
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from diet_ray import progress
from diet_ray.errors import UserError

KIBIBYTE = 1_024


class BenchError(UserError, ValueError):
    """A measure that cannot be made here; the message names it, the amount and the remedy."""


@dataclass(frozen=True)
class Goal:
    """Where a figure should lie, both ends included."""

    low: float | None = None
    high: float | None = None

    def met(self, value: float) -> bool:
        above = self.low is None or value >= self.low
        return above and (self.high is None or value <= self.high)

    def __str__(self) -> str:
        if self.low is None or self.high is None:
            return f"≤ {self.high:.3g}" if self.low is None else f"≥ {self.low:.3g}"
        return f"{self.low:.3g} to {self.high:.3g}"


@dataclass(frozen=True)
class Figure:
    """One number that a measure reached."""

    compared: str  # what over what, at which size
    value: float
    goal: Goal | None = None
    unit: str = ""  # empty for a ratio
    parts: dict[str, float] = field(default_factory=dict)  # what stands behind it, by name and unit


@dataclass(frozen=True)
class Found:
    """All that a measure found."""

    figures: list[Figure]
    tables: dict[str, list[dict[str, Any]]] = field(default_factory=dict)  # title -> rows
    notes: list[str] = field(default_factory=list)  # sentences that a reader of the figures needs


@dataclass(frozen=True)
class Needs:
    """What a measure takes at most, in bytes."""

    memory: float
    disk: float = 0


def size(default: int, text: str) -> Any:
    """A size of a measure: a field of its dataclass, and an option of the command line."""
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True)
class Measure(ABC):
    """A comparison that can be repeated at any size; its docstring is its help."""

    name: ClassVar[str]

    @abstractmethod
    def needs(self) -> Needs:
        """Before anything starts, from the sizes alone."""

    @abstractmethod
    def run(self, folder: str) -> Found:
        """Measure; `folder` is empty and is removed afterwards."""


def refuse_too_large(measure: Measure, folder: str, memory: float | None = None) -> None:
    """Raises BenchError, with the amount, if memory or the folder's disk is too small.

    memory: bytes that can be had; default: what this machine has available now.
    """
    needs = measure.needs()
    there = {
        "memory": (needs.memory, available_memory() if memory is None else memory),
        f"disk below {folder}": (needs.disk, free_disk(folder)),
    }
    for what, (needed, had) in there.items():
        if needed > had:
            raise BenchError(
                f"{measure.name}: needs {progress.byte_size(needed)} of {what}, "
                f"{progress.byte_size(had)} can be had; take smaller sizes (--help lists them)"
            )


def available_memory() -> float:
    """Bytes that can be taken without swapping."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    facts = {name: value.split()[0] for name, value in (line.split(":") for line in lines)}
    return float(facts["MemAvailable"]) * KIBIBYTE


def free_disk(folder: str) -> float:
    """Bytes free where a folder is, or will be."""
    place = os.path.abspath(folder)
    while not os.path.exists(place):
        place = os.path.dirname(place)
    return shutil.disk_usage(place).free
