"""The outer optimiser's mathematics: ordered sum of shards, clipping, Adam on single rows.

Pure functions of arrays, so that a server is nothing but state. Adam's moments and its count of
steps belong to a row: a row that no gradient touched in a step is not moved by that step, and
neither the number of servers nor the split of rows between them changes any bit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from statistics import median
from typing import Any

import numpy as np

from diet_ray.config import OuterConfig

BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-8


def grown(array: np.ndarray, length: int) -> np.ndarray:
    """The array's rows, and after them as many of zeros as make it `length` long."""
    longer = np.zeros((length, *array.shape[1:]), dtype=array.dtype)
    longer[: len(array)] = array
    return longer


@dataclass
class Learned:
    """One learned array and its Adam state; first axis: rows."""

    values: np.ndarray  # (n, ...) float32
    first_moment: np.ndarray  # like values
    second_moment: np.ndarray  # like values
    steps: np.ndarray  # (n,) int32, updates of each row

    @staticmethod
    def start(values: np.ndarray) -> Learned:
        """Values that no step has moved yet."""
        values = np.ascontiguousarray(values, dtype=np.float32).copy()
        steps = np.zeros(len(values), dtype=np.int32)
        return Learned(values, np.zeros_like(values), np.zeros_like(values), steps)

    def take(self, rows: np.ndarray) -> Learned:
        """A copy of some rows."""
        return Learned(*(getattr(self, f.name)[rows] for f in fields(self)))

    def put(self, rows: np.ndarray, other: Learned) -> None:
        """Replace some rows by `other`'s."""
        for f in fields(self):
            getattr(self, f.name)[rows] = getattr(other, f.name)

    def grown(self, length: int) -> Learned:
        """The rows, and after them new ones that hold zeros."""
        return Learned(*(grown(getattr(self, f.name), length) for f in fields(self)))

    def adam(self, rows: np.ndarray, gradients: np.ndarray, step_size: float) -> None:
        """One Adam step in place on `rows` (m,) with gradients (m, ...)."""
        if not len(rows):
            return
        gradients = gradients.astype(np.float32)
        self.steps[rows] += 1
        shape = (len(rows),) + (1,) * (self.values.ndim - 1)
        count = self.steps[rows].reshape(shape)
        correction_1, correction_2 = (
            (1 - beta**count).astype(np.float32) for beta in (BETA_1, BETA_2)
        )
        first = BETA_1 * self.first_moment[rows] + (1 - BETA_1) * gradients
        second = BETA_2 * self.second_moment[rows] + (1 - BETA_2) * gradients**2
        self.first_moment[rows], self.second_moment[rows] = first, second
        root = np.sqrt(second / correction_2) + np.float32(EPSILON)
        self.values[rows] -= np.float32(step_size) * (first / correction_1 / root)


@dataclass(frozen=True)
class RowGradients:
    """Meta-gradients of some rows."""

    rows: np.ndarray  # (m,) int64, ascending
    embeddings: np.ndarray | None  # (m, F, d) float32; None where they are not learned
    labels: np.ndarray  # (m, K) float32

    @property
    def finite(self) -> bool:
        """Whether every number of them is."""
        parts = (self.labels, self.embeddings)
        return all(np.isfinite(part).all() for part in parts if part is not None)

    def take(self, index: Any) -> RowGradients:
        """Those at `index` (a slice)."""
        embeddings = None if self.embeddings is None else self.embeddings[index]
        return RowGradients(self.rows[index], embeddings, self.labels[index])


def sum_shards(shards: dict[int, RowGradients | None]) -> RowGradients | None:
    """The mean over logical shards, added in shard order in float64, on the union of their rows.

    A shard that is None was not finite: the mean is that of the others, None if there is none.
    """
    ordered = [shard for _, shard in sorted(shards.items()) if shard is not None]
    if not ordered:
        return None
    rows = np.unique(np.concatenate([shard.rows for shard in ordered]))
    places = [np.searchsorted(rows, shard.rows) for shard in ordered]

    def mean(parts: list[np.ndarray]) -> np.ndarray:
        total = np.zeros((len(rows), *parts[0].shape[1:]))
        for place, part in zip(places, parts, strict=True):
            total[place] += part
        return total / len(ordered)

    learned = [shard.embeddings for shard in ordered if shard.embeddings is not None]
    embeddings = mean(learned) if learned else None
    return RowGradients(rows, embeddings, mean([shard.labels for shard in ordered]))


def squared_norms(gradients: RowGradients, unit: float) -> np.ndarray:
    """Squared norm of every row's gradient, float64 (m,), embeddings measured in `unit`.

    A step on embeddings is stated in units of the table's standard deviation, so their gradient
    is too: d loss / d (e / unit) = unit * d loss / d e. Without that, the embeddings' part would
    swamp the labels' part of the norm.
    """
    by_labels: np.ndarray = (gradients.labels**2).sum(axis=1)
    if gradients.embeddings is None:
        return by_labels
    return ((gradients.embeddings * unit) ** 2).sum(axis=(1, 2)) + by_labels


@dataclass(frozen=True)
class Clipping:
    """Clips a gradient whose norm leaves those before it behind.

    What it may be is a multiple of the median of the last norms, as they were before clipping: one
    that is far off, the first one too, spoils nothing, and a lasting change is followed.
    """

    norms: tuple[float, ...] = ()  # the last ones, positive, at most `outer.clip_window`

    def step(self, norm: float, outer: OuterConfig) -> tuple[float, Clipping]:
        """Factor for this step's gradient, and the state for the next step.

        norm: finite; 0 says nothing of other steps and is forgotten.
        """
        if norm == 0:
            return 1.0, self
        limit = outer.clip * median(self.norms) if self.norms else norm
        return min(limit / norm, 1.0), Clipping((*self.norms, norm)[-outer.clip_window :])


def schedule(outer: OuterConfig, step: int, steps: int) -> float:
    """Factor of the step sizes at outer step `step` of `steps` in a stage, counted from 0."""
    if outer.schedule == "constant":
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * step / steps))
