"""How near each phase comes to what this machine can do, in one thread.

A phase needs so many bytes from memory and so many floating-point operations a row; the machine
copies so many bytes and multiplies so many matrices a second, measured in the same run. The longer
of the two times is the least that a row can take; over the time it takes, it is the fraction
reached. What is counted is what no implementation can do without: bytes of ids, labels, the
embeddings that are looked up and what an optimiser keeps for them, and matrix products. Parameters
of the dense network stay in cache and count nothing.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch

from diet_ray.bench.made import FIELDS, TASKS, dense, even_sizes, run_config
from diet_ray.bench.measure import Figure, Found, Measure, Needs, size
from diet_ray.bench.meta import ours, unroll
from diet_ray.bench.scoring import PROCESS_BYTES, aligned
from diet_ray.bench.timing import by_turns, one_thread, seconds_of
from diet_ray.logs.blocks import Rows
from diet_ray.models.embedding import EmbeddingTable
from diet_ray.models.flop import forward_flop
from diet_ray.models.registry import fresh_network
from diet_ray.seeds import numpy_generator
from diet_ray.training.model import Recommender, predict, train_epoch

COPIED_FLOATS = 25_000_000  # larger than any cache
MATRIX = 1_024
ADAM_VECTORS = 6
"""As long as an embedding: itself and both moments, each read and written, of a row's step."""
LEARNING_RATE = 1e-3


@dataclass(frozen=True)
class Phase:
    """What a row of a phase needs at least, and how it is done here."""

    name: str
    bytes_per_row: float
    flop_per_row: float
    rows: int  # of one call
    call: Callable[[], object]


@dataclass(frozen=True)
class Roofline(Measure):
    """The fraction of this machine's bound that scoring, alignment, training, distilling reach.

    A small DCN over made rows in memory, on one thread; reading Parquet is not part of it.
    """

    name: ClassVar[str] = "roofline"
    batch_rows: int = size(4_096, "rows of a call")
    window: int = size(8, "W of the meta-gradient")
    ids: int = size(200_000, "ids over all fields")
    repeats: int = size(5, "calls of each, by turns")

    def needs(self) -> Needs:
        return Needs(2 * PROCESS_BYTES)

    def run(self, folder: str) -> Found:  # noqa: ARG002 - nothing is written
        with one_thread():
            phases = self._phases()
            actions: dict[str, Callable[[], float]] = {
                "copy": copy_seconds,
                "matmul": matmul_seconds,
                **{phase.name: partial(seconds_of, phase.call) for phase in phases},
            }
            by_turns(actions, 1)  # what only a first call pays
            taken = by_turns(actions, self.repeats)
        median = {name: statistics.median(seconds) for name, seconds in taken.items()}
        copied = 2 * 4 * COPIED_FLOATS / median["copy"]
        multiplied = 2 * MATRIX**3 / median["matmul"]
        rows = [line(phase, median[phase.name], copied, multiplied) for phase in phases]
        figures = [
            Figure(f"{row['Phase']}: fraction of the bound", row["Fraction"]) for row in rows
        ]
        told = f"Measured here, one thread: {copied / 1e9:.3g} GB/s, {multiplied / 1e9:.3g} GFLOP/s"
        return Found(figures, {"Roofline": rows}, [f"{told} (copy, matrix product in float32)."])

    def _phases(self) -> list[Phase]:
        config, width = run_config("anywhere"), run_config("anywhere").models.embedding_dim
        network = config.evaluation.candidates[0]
        started = fresh_network(network, config.models, FIELDS, TASKS, 0, "bench")
        flop = forward_flop(started, FIELDS, width)
        table = EmbeddingTable(even_sizes(self.ids), width, config.models.embedding_std, 0)
        model, rows = Recommender(table, started), self._rows(table.sizes)
        looked_up, row = 4 * FIELDS * width, 8 * FIELDS + 4 * TASKS
        case = dense(network.name, self.batch_rows)
        step_rows = config.distill.inner.batch_size
        of = unroll(network.name, self.window, step_rows, config.distill.target_batch)

        def train() -> object:
            return train_epoch(model.requires_grad_(True), [rows], LEARNING_RATE)

        def align() -> object:
            with torch.no_grad():
                return aligned(case)

        unrolled = self.window * step_rows
        # A step's gradient is three forward passes, and its derivative twice as much again.
        distilled = (3 + 6) * flop * unrolled + 3 * flop * config.distill.target_batch
        return [
            Phase("scan", looked_up + row, flop, len(rows), lambda: predict(model, rows.ids)),
            Phase("alignment", looked_up, 2 * flop, self.batch_rows, align),
            Phase("reference", ADAM_VECTORS * looked_up + row, 3 * flop, len(rows), train),
            Phase("meta-gradient", 2 * looked_up, distilled / unrolled, unrolled, lambda: ours(of)),
        ]

    def _rows(self, sizes: list[int]) -> Rows:
        draw = numpy_generator(0, "roofline")
        ids = np.stack([draw.integers(1, count, self.batch_rows) for count in sizes], axis=1)
        labels = draw.integers(2, size=(self.batch_rows, TASKS)).astype(np.float32)
        return Rows(np.arange(self.batch_rows), ids, labels)


def line(phase: Phase, seconds: float, copied: float, multiplied: float) -> dict[str, Any]:
    """A phase's row of the table; copied: bytes/s, multiplied: FLOP/s that the machine gives."""
    by_bytes = phase.rows * phase.bytes_per_row / copied
    by_flop = phase.rows * phase.flop_per_row / multiplied
    return {
        "Phase": phase.name,
        "Bytes a row": float(phase.bytes_per_row),
        "FLOP a row": float(phase.flop_per_row),
        "Rows/s": phase.rows / seconds,
        "Rows/s at most": phase.rows / max(by_bytes, by_flop),
        "Bound by": "bytes" if by_bytes > by_flop else "FLOP",
        "Fraction": max(by_bytes, by_flop) / seconds,
    }


def copy_seconds() -> float:
    """Of copying COPIED_FLOATS float32: each is read once and written once."""
    source, target = torch.zeros(COPIED_FLOATS), torch.zeros(COPIED_FLOATS)
    return seconds_of(lambda: target.copy_(source))


def matmul_seconds() -> float:
    """Of a product of two square matrices of float32."""
    matrix = torch.ones(MATRIX, MATRIX)
    return seconds_of(lambda: matrix @ matrix)
