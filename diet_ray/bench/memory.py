"""What a synthetic memory costs as it grows: the driver's peak, and a step's pull and push."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar

import numpy as np

from diet_ray.bench.measure import Figure, Found, Goal, Measure, Needs, size
from diet_ray.bench.peaks import Peaks, in_child, own_ray, watched
from diet_ray.bench.scoring import PROCESS_BYTES, SMALL_DCN
from diet_ray.bench.timing import by_turns, ratio, seconds_of
from diet_ray.bench.whole import DISK_BYTES_PER_ROW, synthetic_config
from diet_ray.config import MemoryConfig, OuterConfig, ResourcesConfig, RunConfig, fit
from diet_ray.distill.stream import distill_stream
from diet_ray.logs.blocks import open_blocks
from diet_ray.logs.prepare import prepare
from diet_ray.memory.coordinator import MemoryCoordinator, start_steps
from diet_ray.memory.files import RowFiles
from diet_ray.memory.rows import SyntheticRows, unmoved
from diet_ray.memory.update import RowGradients
from diet_ray.training.stream import train_reference

HISTORICAL = 1 / 2
"""Of a synthetic log's rows: three days of six."""
FIELDS, WIDTH, TASKS = 7, 16, 3
SHARDS = 64
"""Of a step: as many as pass over all rows would take a quarter of an hour with many of them."""
LEARNED_BYTES = 3 * 4 * (FIELDS * WIDTH + TASKS)  # of a touched row, with its moments
HELD_BYTES = 4 * (FIELDS + 2 * TASKS) + 16  # of a row that is not touched


@dataclass(frozen=True)
class Driver(Measure):
    """The driver's peak memory with many synthetic rows over that with few, on the same log.

    All stages with two outer steps each, in a process and a Ray of its own; blocks and reference
    are made before.
    """

    name: ClassVar[str] = "driver"
    rows: int = size(4_000_000, "rows of the log, half of them historical")
    many: int = size(1_500_000, "synthetic rows, above")
    few: int = size(15_000, "synthetic rows, below")

    def needs(self) -> Needs:
        row_bytes = HELD_BYTES + 2 * LEARNED_BYTES  # at most; room for them grows by doubling
        memory = 4 * PROCESS_BYTES + row_bytes * self.many
        return Needs(memory, DISK_BYTES_PER_ROW * self.rows + row_bytes * self.many)

    def run(self, folder: str) -> Found:
        configs = [self._config(folder, count) for count in (self.many, self.few)]
        for config in configs:
            in_child(made_ready, config)
        many, few = (in_child(stage_peaks, config) for config in configs)
        return Found(
            [
                Figure(
                    f"driver's peak, {self.many:,} / {self.few:,} synthetic rows",
                    many.driver / few.driver,
                    Goal(high=1.1),
                    parts={
                        "many MB": many.driver / 1e6,
                        "few MB": few.driver / 1e6,
                        "largest worker with many MB": many.largest_worker / 1e6,
                    },
                )
            ]
        )

    def _config(self, folder: str, count: int) -> RunConfig:
        """Both runs share the reference, in which the ratio has no part."""
        changes = {
            "memory": {"ratio": count / (HISTORICAL * self.rows)},
            "distill": {
                "outer_steps": 2,
                "logical_shards": SHARDS,
                "inner": {"networks": [], "steps": 4, "window": 2},
            },
            "reference": {
                "folder": f"{folder}/reference",
                "network": {"name": "dcn", "parameters": SMALL_DCN},
            },
        }
        config = synthetic_config(
            f"{folder}/{count}", self.rows, users=10_000, items=5_000, **changes
        )
        return fit(config, round(HISTORICAL * self.rows))


def made_ready(config: RunConfig) -> None:
    """Blocks, and the reference if no run has made it yet."""
    with own_ray():
        train_reference(config, prepare(config))


def stage_peaks(config: RunConfig) -> Peaks:
    """Peaks of the stages alone."""
    with own_ray(), watched() as peaks:
        distill_stream(config, open_blocks(config.place("blocks")))
    return peaks


@dataclass(frozen=True)
class OuterStep(Measure):
    """A pull and a push of one outer step, with many synthetic rows over with few.

    Real servers, each memory in a Ray of its own; the rows of a step are as many and as scattered
    as those of 140 batches of 128. By turns, step by step, after a few that make room.
    """

    name: ClassVar[str] = "outer-step"
    many: int = size(5_000_000, "synthetic rows, above")
    few: int = size(50_000, "synthetic rows, below")
    rows: int = size(17_920, "rows of a step")
    servers: int = size(2, "memory servers")
    repeats: int = size(15, "steps that are timed, of each memory")

    def needs(self) -> Needs:
        return Needs(4 * PROCESS_BYTES + 3 * HELD_BYTES * self.many, 2 * HELD_BYTES * self.many)

    def run(self, folder: str) -> Found:
        of = {"many": self.many, "few": self.few}
        seconds = in_child(step_seconds, folder, of, self.rows, self.servers, self.repeats)
        ratios = {part: ratio(*(seconds[name][part] for name in of)) for part in STEP_PARTS}
        sizes = f"{self.many:,} / {self.few:,} synthetic rows"
        return Found(
            [
                Figure(
                    f"{part} of an outer step, {sizes}",
                    found.median,
                    Goal(high=1.1),
                    parts={"many s": found.over, "few s": found.under},
                )
                for part, found in ratios.items()
            ]
        )


STEP_PARTS = ("pull + push", "commit")
WARM_UP = 5
"""Steps that are not timed: pages are touched for the first time, room is made."""


def step_seconds(
    folder: str, sizes: dict[str, int], rows: int, servers: int, repeats: int
) -> dict[str, dict[str, list[float]]]:
    """By memory and part of a step, the seconds of each step."""
    resources, outer = ResourcesConfig(memory_servers=servers), OuterConfig()
    draw = np.random.default_rng(0)
    found: dict[str, dict[str, list[float]]] = {n: {p: [] for p in STEP_PARTS} for n in sizes}
    with own_ray():
        memories = {
            name: MemoryCoordinator(
                f"{folder}/{name}",
                made(f"{folder}/{name}/start", count),
                resources,
                1.0,
                f"bench-{name}",
            )
            for name, count in sizes.items()
        }

        def step(name: str) -> float:
            memory = memories[name]
            chosen = np.sort(draw.choice(len(memory.client), rows, replace=False))
            shape = len(chosen), FIELDS, WIDTH
            gradients = RowGradients(
                chosen,
                draw.normal(size=shape).astype(np.float32),
                draw.normal(size=(len(chosen), TASKS)).astype(np.float32),
            )
            moved = seconds_of(lambda: _pull_and_push(memory, gradients))
            committed = seconds_of(lambda: memory.commit(1, outer, 1.0))
            for part, seconds in zip(STEP_PARTS, (moved, committed), strict=True):
                found[name][part].append(seconds)
            return moved

        by_turns({name: partial(step, name) for name in sizes}, WARM_UP + repeats)
    return {
        name: {part: seconds[WARM_UP:] for part, seconds in parts.items()}
        for name, parts in found.items()
    }


def _pull_and_push(memory: MemoryCoordinator, gradients: RowGradients) -> None:
    memory.client.pull(memory.step, gradients.rows)
    memory.client.push(memory.step, 0, gradients)


def made(uri: str, count: int) -> RowFiles:
    """A start of so many rows, written file by file; nothing is learned yet."""
    start_steps(uri.removesuffix("/start"))
    target = RowFiles(
        uri,
        count,
        MemoryConfig().rows_per_file,
        tuple(f"f{n}" for n in range(FIELDS)),
        WIDTH,
    )
    sums, draw = [], np.random.default_rng(count)
    for number in range(target.count):
        first, end = target.bounds(number)
        labels = draw.normal(size=(end - first, TASKS)).astype(np.float32)
        rows = SyntheticRows(
            anchors=draw.integers(1, 1_000_000, (end - first, FIELDS)).astype(np.int32),
            labels=labels,
            taught=labels,
            stages=np.ones(end - first, dtype=np.int32),
            source_rows=np.arange(first, end),
            **unmoved((FIELDS, WIDTH), end - first),
        )
        sums.append(target.write(number, rows))
    return replace(target, checksums=tuple(sums))
