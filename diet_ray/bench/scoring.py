"""Measures of scoring: a scan beside a plain loop, and alone over a long block; alignment beside a
forward pass and beside per-sample gradients."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor
from torch.func import grad, vmap

from diet_ray import runtime, storage
from diet_ray.bench.made import BYTES_PER_ROW, Dense, dense, made_blocks, network_names, run_config
from diet_ray.bench.measure import BenchError, Figure, Found, Goal, Measure, Needs, size
from diet_ray.bench.peaks import in_child, own_ray, rise, watched
from diet_ray.bench.timing import Ratio, by_turns, one_thread, ratio, seconds_of
from diet_ray.config import AlignmentMode, RunConfig, ScoringConfig
from diet_ray.logs.blocks import ROW_ID, Block, Blocks
from diet_ray.models.functional import row_losses
from diet_ray.scoring.alignment import alignment
from diet_ray.scoring.el2n import EL2NScoring, el2n
from diet_ray.scoring.scan import scan
from diet_ray.training.reference import load_reference, reference_identity, reference_uri
from diet_ray.training.stream import train_reference

FIRST_ROWS = 8_192
"""Of the block that the scanned reference is trained on, and whose own scan tells the start-up."""
SIDE_CAR_BYTES = 16
"""Of a scored row, before it is compressed."""
PROCESS_BYTES = 1.2e9
"""Of a process that has loaded torch and ray, with room for its batches."""


@dataclass(frozen=True)
class Scan(Measure):
    """EL2N scan through Ray, two workers, over a plain pyarrow + torch loop on one thread.

    Both read the same Parquet with the same checkpoint and write a score per row; the scan also
    keeps its ledger. Start-up is that of a pipeline over a block of a few thousand rows. As many
    plain loops side by side as there are workers, each over its share of the files, tell what the
    machine would give without Ray.
    """

    name: ClassVar[str] = "scan"
    rows: int = size(10_000_000, "rows of the block")
    ids: int = size(200_000, "ids over all fields")
    workers: int = size(2, "scoring workers")
    repeats: int = size(3, "times that both run, by turns")

    def needs(self) -> Needs:
        row = BYTES_PER_ROW + 2 * SIDE_CAR_BYTES
        return Needs((2 + 2 * self.workers) * PROCESS_BYTES, row * self.rows)

    def run(self, folder: str) -> Found:
        config = run_config(
            storage.join(folder, "run"),
            reference={"network": {"name": "dcn", "parameters": SMALL_DCN}},
            resources={"scoring_workers": [self.workers, self.workers]},
        )
        blocks = made_blocks(storage.join(folder, "blocks"), [FIRST_ROWS, self.rows], self.ids)
        started = time.perf_counter()
        with runtime.connect(), ProcessPoolExecutor(self.workers, get_context("spawn")) as pool:
            ray_start = time.perf_counter() - started
            scanned = scan_of(config, blocks, folder)
            loop = partial(plain_loop, config, blocks, folder=folder)
            first, long = blocks.historical
            scanned(first)  # what only the first pipeline of a session pays
            list(pool.map(loop, [first] * self.workers))
            taken = by_turns(
                {
                    "start-up": lambda: scanned(first),
                    "scan": lambda: scanned(long),
                    "plain": lambda: seconds_of(lambda: loop(long)),
                    "side by side": lambda: seconds_of(
                        lambda: list(pool.map(loop, shares(long, self.workers)))
                    ),
                },
                self.repeats,
            )
        return self._found(taken, ray_start)

    def _found(self, taken: dict[str, list[float]], ray_start: float) -> Found:
        starts = ratio(taken["start-up"], taken["plain"]).over
        whole = ratio(taken["plain"], taken["scan"])
        apart = ratio(taken["plain"], [max(s - starts, 1e-9) for s in taken["scan"]])
        of = f"EL2N rows/s, {self.workers} workers of Ray / one plain thread, {self.rows:,} rows"
        parts = {
            "scan rows/s": self.rows / apart.under,
            "plain rows/s": self.rows / apart.over,
            **apart.ends,
        }
        starting = {"pipeline start s": starts, "ray.init s": ray_start}
        most = ratio(taken["plain"], taken["side by side"])
        without = {"rows/s": self.rows / most.under, **most.ends}
        beside = f"{self.workers} plain threads side by side / one, {self.rows:,} rows"
        return Found(
            [
                Figure(f"{of}, start-up apart", apart.median, Goal(low=1.8), parts=parts),
                Figure(f"{of}, the pipeline's start-up included", whole.median, parts=starting),
                Figure(f"EL2N rows/s, {beside}", most.median, parts=without),
            ]
        )


@dataclass(frozen=True)
class LongScan(Measure):
    """EL2N of a long block by a scan alone, start-up included: rows/s, and the largest process.

    The goal, a billion rows in an hour, is stated for --rows 1000000000.
    """

    name: ClassVar[str] = "long-scan"
    rows: int = size(10_000_000, "rows of the block")
    ids: int = size(200_000, "ids over all fields")
    workers: int = size(2, "scoring workers")
    bits: int = size(16, "of the numbers that are multiplied: 32, or 16 (bfloat16)")

    def needs(self) -> Needs:
        row = BYTES_PER_ROW + SIDE_CAR_BYTES
        return Needs((2 + self.workers) * PROCESS_BYTES, row * self.rows)

    def run(self, folder: str) -> Found:
        precisions = {16: "bfloat16", 32: "float32"}
        if self.bits not in precisions:
            raise BenchError(f"{self.name}: --bits {self.bits}; give 16 or 32")
        config = run_config(
            storage.join(folder, "run"),
            reference={"network": {"name": "dcn", "parameters": SMALL_DCN}},
            resources={"scoring_workers": [self.workers, self.workers]},
            scoring={"el2n_precision": precisions[self.bits]},
        )
        blocks = made_blocks(storage.join(folder, "blocks"), [FIRST_ROWS, self.rows], self.ids)
        seconds, driver, worker = in_child(scan_alone, config, blocks, folder)
        of = f"EL2N of {self.rows:,} rows, {self.workers} workers, {precisions[self.bits]}"
        largest = {"driver MB": driver / 1e6, "worker MB": worker / 1e6}
        return Found(
            [
                Figure(
                    f"{of}: rows/s",
                    self.rows / seconds,
                    Goal(low=BILLION / 3_600),
                    parts={"minutes": seconds / 60, **largest},
                )
            ]
        )


BILLION = 1e9
SMALL_DCN = {"num_cross_layers": 2, "dnn_hidden_units": [128, 64]}


def scan_alone(config: RunConfig, blocks: Blocks, folder: str) -> tuple[float, int, int]:
    """Seconds of a scan of the second block, and the peaks of its driver and its largest worker,
    in bytes; for a fresh process."""
    with own_ray():
        scanned = scan_of(config, blocks, folder)
        with watched() as peaks:
            seconds = scanned(blocks.historical[1])
    return seconds, peaks.driver, peaks.largest_worker


def scan_of(config: RunConfig, blocks: Blocks, folder: str) -> Callable[[Block], float]:
    """The seconds of a fresh scan of a block under phi_1, which is trained here."""
    train_reference(config, dataclasses.replace(blocks, blocks=blocks.blocks[:1]))
    uri, place = reference_uri(config, 1), storage.join(folder, "scan")
    scoring = EL2NScoring(uri, reference_identity(uri), config.scoring.el2n_precision)

    def scanned(block: Block) -> float:
        storage.remove(place)
        return seconds_of(lambda: scan(config, blocks, block, scoring, place))

    return scanned


def shares(block: Block, count: int) -> list[Block]:
    """The block's files dealt out to so many."""
    dealt = [block.fragments[first::count] for first in range(count)]
    return [dataclasses.replace(block, fragments=fragments) for fragments in dealt]


def plain_loop(config: RunConfig, blocks: Blocks, block: Block, folder: str) -> None:
    """What one would write by hand: read a file, score its rows, write their scores."""
    with one_thread(), torch.no_grad():
        model = load_reference(reference_uri(config, 1)).recommender
        for fragment in block.fragments:
            table = pq.read_table(f"{blocks.uri}/{fragment.path}", use_threads=False)
            ids = np.stack([table[f].to_numpy() for f in blocks.fields], axis=1).astype(np.int64)
            labels = np.stack([table[k].to_numpy() for k in blocks.tasks], axis=1)
            parts = []
            for start in range(0, len(ids), config.scoring.batch_rows):
                rows = slice(start, start + config.scoring.batch_rows)
                logits = model(torch.from_numpy(ids[rows]))
                parts.append(el2n(logits, torch.from_numpy(labels[rows]).float()).numpy())
            scores = pa.table({ROW_ID: table[ROW_ID], "score": np.concatenate(parts)})
            storage.write_parquet(plain_uri(folder, fragment.path), scores)


def plain_uri(folder: str, path: str) -> str:
    """Where the plain loop leaves a fragment's scores."""
    return storage.join(folder, "plain", path)


@dataclass(frozen=True)
class Alignment(Measure):
    """Alignment of a batch over a plain forward pass, in CPU time on one thread: exactly, by one
    JVP, and by a central difference (`scoring.alignment: difference`)."""

    name: ClassVar[str] = "alignment"
    exact: ClassVar[dict[str, Goal]] = {"dcn": Goal(high=3), "wukong": Goal(high=4)}
    difference: ClassVar[Goal] = Goal(high=2.2)
    batch_rows: int = size(ScoringConfig().batch_rows, "rows of the batch")
    repeats: int = size(15, "times that each runs, by turns")

    def needs(self) -> Needs:
        return Needs(PROCESS_BYTES + JVP_BYTES_PER_ROW * self.batch_rows)

    def run(self, folder: str) -> Found:  # noqa: ARG002 - nothing is written
        with one_thread(), torch.no_grad():
            return Found([f for name in network_names() for f in self._figures(name)])

    def _figures(self, name: str) -> list[Figure]:
        case = dense(name, self.batch_rows)
        actions: dict[str, Callable[[], object]] = {
            "alignment": lambda: aligned(case),
            "by difference": lambda: aligned(case, "difference"),
            "forward": lambda: case.flat(case.theta, case.embeddings),
        }
        timed = {k: partial(seconds_of, action, time.process_time) for k, action in actions.items()}
        by_turns(timed, 1)  # what only a first call pays
        taken = by_turns(timed, self.repeats)
        goals = {"alignment": self.exact.get(name), "by difference": self.difference}
        of = f"forward, CPU time, {name}, {self.batch_rows:,} rows"
        return [
            self._figure(f"{way} / {of}", ratio(taken[way], taken["forward"]), goal)
            for way, goal in goals.items()
        ]

    def _figure(self, compared: str, found: Ratio, goal: Goal | None) -> Figure:
        parts = {
            "alignment ms": 1e3 * found.over,
            "forward ms": 1e3 * found.under,
            **found.ends,
        }
        return Figure(compared, found.median, goal, parts=parts)


JVP_BYTES_PER_ROW = 100_000
"""More than the activations and tangents of a row take in either network."""


def aligned(case: Dense, mode: AlignmentMode = "jvp") -> Tensor:
    """The alignment of every row with the direction, (B,), by our JVP or difference."""
    rows = case.embeddings, case.labels
    return alignment(case.flat, case.theta, case.direction, *rows, mode=mode)


def aligned_per_sample(case: Dense) -> Tensor:
    """The same by `vmap(grad)`: a gradient (P,) for every row."""

    def loss(theta: Tensor, embeddings: Tensor, labels: Tensor) -> Tensor:
        return row_losses(case.flat(theta, embeddings[None]), labels[None])[0]

    gradients = vmap(grad(loss), in_dims=(None, 0, 0))(case.theta, case.embeddings, case.labels)
    return gradients @ case.direction


WAYS: dict[str, Callable[[Dense], Tensor]] = {"jvp": aligned, "vmap": aligned_per_sample}
WARM_UP_ROWS = 8


@dataclass(frozen=True)
class PerSample(Measure):
    """Alignment by one JVP over per-sample gradients, `vmap(grad)`: CPU time, peak memory.

    Each runs in processes of its own; memory is how far the first call raises its process.
    """

    name: ClassVar[str] = "per-sample"
    batch_rows: int = size(4_096, "rows of the batch")
    calls: int = size(3, "timed calls in each process; their median counts")
    repeats: int = size(3, "processes of each, by turns")

    def needs(self) -> Needs:
        parameters = max(dense(name, 1).flat.parameter_count for name in network_names())
        gradients = 4 * parameters * self.batch_rows
        return Needs(PROCESS_BYTES + GRADIENT_COPIES * gradients)

    def run(self, folder: str) -> Found:  # noqa: ARG002 - nothing is written
        return Found([f for name in network_names() for f in self._figures(name)])

    def _figures(self, name: str) -> list[Figure]:
        found: dict[str, list[tuple[float, int]]] = {way: [] for way in WAYS}

        def child(way: str) -> float:
            found[way].append(in_child(time_and_rise, way, name, self.batch_rows, self.calls))
            return found[way][-1][0]

        taken = by_turns({way: partial(child, way) for way in WAYS}, self.repeats)
        peaks = {way: [float(peak) for _, peak in found[way]] for way in WAYS}
        seconds, memory = (ratio(of["jvp"], of["vmap"]) for of in (taken, peaks))
        of = f"JVP / vmap(grad), {name}, {self.batch_rows:,} rows"
        times = {"JVP ms": 1e3 * seconds.over, "vmap ms": 1e3 * seconds.under}
        rises = {"JVP MB": memory.over / 1e6, "vmap MB": memory.under / 1e6}
        return [
            Figure(f"{of}: CPU time", seconds.median, Goal(high=1 / 10), parts=times),
            Figure(f"{of}: peak memory", memory.median, Goal(high=1 / 30), parts=rises),
        ]


GRADIENT_COPIES = 3
"""Of all rows' gradients that are there at once: by parameter, and joined to one vector."""


def time_and_rise(way: str, name: str, rows: int, calls: int) -> tuple[float, int]:
    """Median CPU seconds of a call, and the bytes by which the first raised the process."""
    torch.set_num_threads(1)
    case = dense(name, rows)
    with torch.no_grad():
        WAYS[way](case.first(WARM_UP_ROWS))
        _, peak = rise(lambda: WAYS[way](case))
        call = partial(WAYS[way], case)
        return statistics.median(seconds_of(call, time.process_time) for _ in range(calls)), peak
