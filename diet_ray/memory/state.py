"""What a server holds of its rows: their start, and what was learned on those that were touched.

The start is read-only. A row gets room for a delta and for the optimiser's moments when its first
gradient comes, so what a server holds beside ids and labels grows with the rows that learn, not
with the memory.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from diet_ray.memory.rows import SyntheticRows
from diet_ray.memory.update import Learned, RowGradients, grown


@dataclass(frozen=True)
class Changes:
    """Learned values of some rows and their optimiser state; what a durable step saves."""

    rows: np.ndarray  # (m,) int64
    labels: Learned  # (m, K)
    deltas: Learned | None  # (m, F, d); None where embeddings are not learned


class RowState:
    """Rows 0..n of a server."""

    def __init__(self, start: SyntheticRows, learns_deltas: bool) -> None:
        self._start = start
        self._slots = np.full(len(start), -1, dtype=np.int32)  # of each row; -1: not touched
        self._rows = np.zeros(0, dtype=np.int64)  # of each slot
        self._changed = np.zeros(0, dtype=bool)  # since the last durable step
        self._count = 0
        self._labels = Learned.start(start.labels[:0])
        self._deltas = Learned.start(start.deltas[:0]) if learns_deltas else None

    @property
    def touched(self) -> int:
        """Rows that hold more than their start."""
        return self._count

    def take(self, index: Any) -> SyntheticRows:
        """The rows at `index` (a slice or positions) as they are now."""
        rows, slots = self._start.take(index), self._slots[index]
        known = slots >= 0
        labels = rows.labels.copy()
        labels[known] = self._labels.values[slots[known]]
        rows = replace(rows, labels=labels)
        if self._deltas is None or not known.any():
            return rows
        moved = rows.moved | known
        place = np.cumsum(moved) - 1
        deltas = np.empty((int(moved.sum()), *rows.deltas.shape[1:]), dtype=np.float32)
        deltas[place[rows.moved]] = rows.deltas
        deltas[place[known]] = self._deltas.values[slots[known]]
        return replace(rows, moved=moved, deltas=deltas)

    def adam(self, gradients: RowGradients, embedding_step: float, label_step: float) -> None:
        """One Adam step on the gradients' rows; its `rows` are this server's own, from 0."""
        slots = self._touch(gradients.rows)
        self._changed[slots] = True
        self._labels.adam(slots, gradients.labels, label_step)
        if self._deltas is not None and gradients.embeddings is not None:
            self._deltas.adam(slots, gradients.embeddings, embedding_step)

    def _touch(self, rows: np.ndarray) -> np.ndarray:
        """Slots of rows, with room made for those that had none."""
        new = rows[self._slots[rows] < 0]
        if len(new):
            end = self._count + len(new)
            self._reserve(end)
            slots = np.arange(self._count, end)
            self._slots[new], self._rows[slots] = slots, new
            start = self._start.take(new)
            self._labels.values[slots] = start.labels
            if self._deltas is not None:
                self._deltas.values[slots] = start.dense_deltas()
            self._count = end
        return self._slots[rows].astype(np.int64)

    def _reserve(self, count: int) -> None:
        """Room for so many slots; it doubles, so that growth costs nothing on average."""
        if count <= len(self._rows):
            return
        room = min(max(count, 2 * len(self._rows)), len(self._start))
        self._rows, self._changed = grown(self._rows, room), grown(self._changed, room)
        self._labels = self._labels.grown(room)
        self._deltas = self._deltas.grown(room) if self._deltas is not None else None

    def changes(self, *, whole: bool) -> Changes:
        """What changed since `saved`, or all that is not the start; rows in order."""
        slots = np.arange(self._count) if whole else np.flatnonzero(self._changed[: self._count])
        slots = slots[np.argsort(self._rows[slots])]
        deltas = self._deltas.take(slots) if self._deltas is not None else None
        return Changes(self._rows[slots], self._labels.take(slots), deltas)

    def saved(self) -> None:
        """What there is now has been saved."""
        self._changed[:] = False

    def apply(self, changes: Changes) -> None:
        """Take over what was saved."""
        slots = self._touch(changes.rows)
        self._labels.put(slots, changes.labels)
        if self._deltas is not None and changes.deltas is not None:
            self._deltas.put(slots, changes.deltas)
