"""One parameter server: a contiguous range of synthetic rows and their optimiser state."""

from __future__ import annotations

import numpy as np

from diet_ray import storage
from diet_ray.memory.update import Learned, RowGradients, squared_norms, sum_shards

_ARRAYS = ("values", "first_moment", "second_moment", "steps")


class StaleServerError(RuntimeError):
    """The server holds another step than the call is about: it was restarted from a durable one."""


def step_uri(folder: str, step: int) -> str:
    """Where the state after outer step `step` of a stage lies; step 0 is the start."""
    return storage.join(folder, f"step={step:06d}")


def durable_steps(folder: str) -> list[int]:
    """Steps of a stage whose state is whole, ascending."""
    names = [n for n in storage.list_folders(folder) if n.startswith("step=")]
    steps = sorted(int(name.removeprefix("step=")) for name in names)
    return [s for s in steps if storage.exists(storage.join(step_uri(folder, s), "manifest.json"))]


def write_rows(folder: str, step: int, first: int, learned: dict[str, Learned]) -> str:
    """Save a range of rows that starts at row `first`; returns the file's name."""
    count = len(next(iter(learned.values())).values)
    name = f"rows-{first:09d}-{first + count:09d}.safetensors"
    arrays = {f"{k}.{a}": getattr(part, a) for k, part in learned.items() for a in _ARRAYS}
    storage.write_tensors(storage.join(step_uri(folder, step), name), arrays)
    return name


def read_rows(folder: str, step: int, first: int, end: int) -> dict[str, Learned]:
    """Rows first..end of a durable step, whatever ranges they were saved in."""
    uri = step_uri(folder, step)
    parts: dict[str, list[np.ndarray]] = {}
    for name in storage.read_json(storage.join(uri, "manifest.json"))["files"]:
        low, high = (int(n) for n in name.removesuffix(".safetensors").split("-")[1:])
        if high <= first or low >= end:
            continue
        within = slice(max(first - low, 0), end - low)
        for key, array in storage.read_tensors(storage.join(uri, name)).items():
            parts.setdefault(key, []).append(array[within])
    arrays = {key: np.concatenate(part) for key, part in parts.items()}
    return {k: Learned(*(arrays[f"{k}.{a}"] for a in _ARRAYS)) for k in ("embeddings", "labels")}


class MemoryServer:
    """State of one server; `coordinator.py` runs it as an actor.

    Rows are named by their index in the whole memory. Calls name the step they are about: the
    number of updates that the memory has seen.
    """

    def __init__(self, folder: str, first: int, end: int) -> None:
        self._folder, self._first, self._end = folder, first, end
        self.restore(durable_steps(folder)[-1])

    def restore(self, step: int) -> None:
        """Go to a durable step; whatever came after it is forgotten."""
        self._learned = read_rows(self._folder, step, self._first, self._end)
        self._step = step
        self._shards: dict[int, RowGradients] = {}
        self._summed: RowGradients | None = None

    def pull(self, step: int, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Embeddings (m, F, d) and labels (m, K) of rows (m,)."""
        self._check(step)
        at = rows - self._first
        return self._learned["embeddings"].values[at], self._learned["labels"].values[at]

    def push(self, step: int, shard: int, gradients: RowGradients) -> None:
        """Take one logical shard's gradients of this server's rows; a repeat replaces the first."""
        self._check(step)
        self._shards[shard] = gradients

    def squared_norms(self, step: int, shards: int, unit: float) -> np.ndarray:
        """Add the step's shards in order; float64 (m,), a squared norm per row, rows ascending."""
        self._check(step)
        if len(self._shards) != shards:
            raise StaleServerError(f"step {step}: {len(self._shards)} of {shards} shards are here")
        self._summed = sum_shards(self._shards)
        return squared_norms(self._summed, unit)

    def commit(self, step: int, factor: float, embedding_step: float, label_step: float) -> None:
        """Apply the summed gradients times `factor` with Adam; the memory is at step + 1 then."""
        self._check(step)
        if self._summed is None:
            raise StaleServerError(f"step {step}: its shards are not summed yet")
        at = self._summed.rows - self._first
        self._learned["embeddings"].adam(at, self._summed.embeddings * factor, embedding_step)
        self._learned["labels"].adam(at, self._summed.labels * factor, label_step)
        self._step, self._shards, self._summed = step + 1, {}, None

    def save(self, step: int) -> str:
        """Write this server's rows for a durable step; returns the file's name."""
        self._check(step)
        return write_rows(self._folder, step, self._first, self._learned)

    def _check(self, step: int) -> None:
        if step != self._step:
            raise StaleServerError(f"asked about step {step}, this server is at {self._step}")
