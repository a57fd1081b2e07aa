"""One parameter server: some files of synthetic rows, and what is learned on them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from diet_ray.memory.durable import read_changes, read_step, write_changes
from diet_ray.memory.files import RowFiles
from diet_ray.memory.rows import SyntheticRows
from diet_ray.memory.state import RowState
from diet_ray.memory.update import RowGradients, squared_norms, sum_shards


class StaleServerError(RuntimeError):
    """The server holds another step than the call is about: it was restarted from a durable one."""


@dataclass(frozen=True)
class Saved:
    """What a server did for a durable step."""

    files: dict[str, str]  # name and SHA-256 of the one; none if nothing had changed
    rows: int  # in it
    touched: int  # rows on which something is learned


class MemoryServer:
    """State of one server; `coordinator.py` runs it as an actor.

    It holds whole files of the stage's start, and writes the same files of its end. Rows are
    named by their index in the whole memory. Calls name the step they are about: the number of
    updates that the memory has seen. A server that was just started holds none: `restore` comes
    first.
    """

    def __init__(self, folder: str, start: RowFiles, numbers: range, learns_deltas: bool) -> None:
        self._folder, self._files, self._numbers = folder, start, numbers
        self._first, self._end = start.bounds(numbers[0])[0], start.bounds(numbers[-1])[1]
        self._learns_deltas = learns_deltas
        self._start: SyntheticRows | None = None
        self._step: int | None = None

    def restore(self, step: int) -> None:
        """Go to a durable step; whatever came after it is forgotten."""
        if self._start is None:
            self._start = self._files.slice(self._first, self._end)
        self._state = RowState(self._start, self._learns_deltas)
        for name, sha256 in sorted(read_step(self._folder, step).files.items()):
            changes = read_changes(self._folder, name, sha256, self._first, self._end)
            if changes is not None:
                self._state.apply(changes)
        self._step = step
        self._forget_shards()

    def _forget_shards(self) -> None:
        self._shards: dict[int, RowGradients | None] = {}
        self._summed: RowGradients | None = None
        self._is_summed = False

    def pull(self, step: int, rows: np.ndarray) -> SyntheticRows:
        """The rows at (m,) as they are now."""
        self._check(step)
        return self._state.take(rows - self._first)

    def push(self, step: int, shard: int, gradients: RowGradients | None) -> None:
        """Take one logical shard's gradients of this server's rows, None of one that was not
        finite; a repeat replaces the first."""
        self._check(step)
        self._shards[shard] = gradients

    def squared_norms(self, step: int, shards: int, unit: float) -> np.ndarray:
        """Add the step's shards in order; float64 (m,), a squared norm per row, rows ascending."""
        self._check(step)
        if len(self._shards) != shards:
            raise StaleServerError(f"step {step}: {len(self._shards)} of {shards} shards are here")
        self._summed = sum_shards(self._shards)
        self._is_summed = True
        return np.zeros(0) if self._summed is None else squared_norms(self._summed, unit)

    def commit(self, step: int, factor: float, embedding_step: float, label_step: float) -> None:
        """Apply the summed gradients times `factor` with Adam; the memory is at step + 1 then, also
        if no shard was finite."""
        self._check(step)
        if not self._is_summed:
            raise StaleServerError(f"step {step}: its shards are not summed yet")
        summed = self._summed
        if summed is not None:
            embeddings = None if summed.embeddings is None else summed.embeddings * factor
            own = RowGradients(summed.rows - self._first, embeddings, summed.labels * factor)
            self._state.adam(own, embedding_step, label_step)
        self._step = step + 1
        self._forget_shards()

    def save(self, step: int, *, whole: bool) -> Saved:
        """Write for a durable step what changed since the last one, or all that was learned."""
        self._check(step)
        changes = self._state.changes(whole=whole)
        files = write_changes(self._folder, step, self._first, self._end, changes)
        self._state.saved()
        return Saved(files, len(changes.rows), self._state.touched)

    def write(self, step: int, target: RowFiles) -> dict[int, str]:
        """Write this server's files of the finished stage; number -> SHA-256."""
        self._check(step)
        found = {}
        for number in self._numbers:
            first, end = target.bounds(number)
            rows = self._state.take(slice(first - self._first, end - self._first))
            found[number] = target.write(number, rows)
        return found

    def holds(self, step: int, ids: np.ndarray) -> np.ndarray:
        """Which of the ids (m, F) are anchors of this server's rows, (m, F) bool."""
        self._check(step)
        assert self._start is not None
        anchors = self._start.anchors
        return np.stack([np.isin(ids[:, f], anchors[:, f]) for f in range(ids.shape[1])], axis=1)

    def _check(self, step: int) -> None:
        if step != self._step:
            raise StaleServerError(f"asked about step {step}, this server is at {self._step}")
