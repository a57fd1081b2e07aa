"""Whole runs on synthetic logs: how phases grow with the log, and the main job from end to end."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np

from diet_ray import storage
from diet_ray.bench.made import BYTES_PER_ROW, DAYS, FITTED_TO, INTERVALS
from diet_ray.bench.measure import Figure, Found, Goal, Measure, Needs, size
from diet_ray.bench.peaks import in_child, own_ray, watched
from diet_ray.bench.scoring import PROCESS_BYTES, SMALL_DCN
from diet_ray.bench.timing import seconds_of
from diet_ray.config import DistillConfig, RunConfig, fit
from diet_ray.distill.stream import distill_stream
from diet_ray.logs.blocks import Blocks, open_blocks
from diet_ray.logs.prepare import prepare
from diet_ray.pipeline import distill_logs
from diet_ray.scoring.el2n import EL2NScoring
from diet_ray.scoring.scan import scan
from diet_ray.training.reference import reference_identity, reference_uri
from diet_ray.training.stream import train_reference

START_ROWS = 30_000
"""Of the log whose phases are nearly all start-up; their seconds are taken off all others'."""
STEP = 10  # from one size of the log to the next
SLOPE_TOLERANCE = 0.05
STAGE_OVER_EPOCH = 0.5
DISK_BYTES_PER_ROW = 4 * BYTES_PER_ROW  # staged, encoded, scored, and the set

REFERENCE = {"network": {"name": "dcn", "parameters": SMALL_DCN}, "batch_size": 512}

# Every part of the method, so that the stage does work on all of a block; few and short unrolls,
# whose cost does not grow with the log.
STAGE = {
    "distill": {
        "outer_steps": 10,
        "hard_fraction": 0.1,
        "active_fraction": 0.5,
        "unseen": False,
        "inner": {"networks": [], "steps": 20, "window": 5},
    },
    "memory": {"new_rows": "boundary", "keep": 0.8, "ratio": 0.015},
}


def synthetic_config(output: str, rows: int, users: int, items: int, **changes: Any) -> RunConfig:
    """A run on a synthetic log of so many rows over six days, users and items."""
    logs = {
        "source": "synthetic",
        "intervals": INTERVALS,
        "synthetic": {"rows": rows, "users": users, "items": items, "days": len(DAYS)},
    }
    tree = {"output": output, "logs": logs, "evaluation": {"methods": []}, **changes}
    return RunConfig.model_validate(tree)


@dataclass(frozen=True)
class Scale(Measure):
    """How seconds and peak memory of each phase grow with the log.

    Phases: prepare, reference (a small DCN), scan (EL2N of the last block) and stage (all three
    stages with every part of the method on, few outer steps). Each size is a process and a Ray of
    its own. Networks, users and items stay the same. The seconds of a log of 30,000 rows, nearly
    all start-up, are taken off before the slope is drawn in log-log. Ask for more by --largest.
    """

    name: ClassVar[str] = "scale"
    smallest: int = size(1_000_000, "rows of the smallest log; each next is ten times as long")
    largest: int = size(10_000_000, "most rows of the largest")
    users: int = size(100_000, "users of every log")
    items: int = size(50_000, "items of every log")

    def needs(self) -> Needs:
        return Needs(6 * PROCESS_BYTES, DISK_BYTES_PER_ROW * self.largest)

    def sizes(self) -> list[int]:
        decades = math.floor(math.log(self.largest / self.smallest, STEP) + 1e-9)
        return [self.smallest * STEP**n for n in range(max(decades, 0) + 1)]

    def run(self, folder: str) -> Found:
        found = {}
        for rows in (START_ROWS, *self.sizes()):
            place = f"{folder}/{rows}"
            found[rows] = in_child(phases_of, place, rows, self.users, self.items)
            storage.remove(place)
        start = found.pop(START_ROWS)
        figures = [f for phase in PHASES for f in slopes(phase, found, start)]
        figures += [share_of_training(rows, phases) for rows, phases in found.items()]
        rows_of = [
            {"Rows": f"{rows:,}", "Phase": phase, **numbers}
            for rows, phases in {START_ROWS: start, **found}.items()
            for phase, numbers in phases.items()
        ]
        return Found(figures, {"Seconds and peak memory of each phase": rows_of})


Phases = dict[str, dict[str, float]]
"""Phase -> its seconds, and the peaks of driver and largest worker in MB."""

SECONDS, DRIVER, WORKER = "Seconds", "Driver MB", "Largest worker MB"


def slopes(phase: str, found: dict[int, Phases], start: Phases) -> list[Figure]:
    """Of seconds beyond the start-up, and of memory, over rows in log-log; none from one size."""
    if len(found) < 2:
        return []
    logs = f"{min(found):,} to {max(found):,} rows"
    beyond = [max(of[phase][SECONDS] - start[phase][SECONDS], 1e-3) for of in found.values()]
    peaks = [max(of[phase][DRIVER], of[phase][WORKER]) for of in found.values()]
    timed = Goal(1 - SLOPE_TOLERANCE, 1 + SLOPE_TOLERANCE)
    seconds = {f"s at {rows:,}": s for rows, s in zip(found, beyond, strict=True)}
    memory = {f"MB at {rows:,}": peak for rows, peak in zip(found, peaks, strict=True)}
    return [
        Figure(f"{phase}: slope of seconds, {logs}", _slope(found, beyond), timed, parts=seconds),
        Figure(
            f"{phase}: slope of the largest process, {logs}",
            _slope(found, peaks),
            Goal(high=SLOPE_TOLERANCE),
            parts=memory,
        ),
    ]


def share_of_training(rows: int, phases: Phases) -> Figure:
    """The stages, every part of the method on, over the reference's one epoch on their blocks."""
    stage, epoch = phases["stage"][SECONDS], phases["reference"][SECONDS]
    return Figure(
        f"all stages / an epoch of the reference on their blocks, {rows:,} rows, every part on",
        stage / epoch,
        Goal(high=STAGE_OVER_EPOCH),
        parts={"stages s": stage, "epoch s": epoch},
    )


def _slope(rows: dict[int, Phases], values: list[float]) -> float:
    return float(np.polyfit(np.log(list(rows)), np.log(values), 1)[0])


def phases_of(folder: str, rows: int, users: int, items: int) -> Phases:
    """Every phase of a run, one after the other; in a process of its own."""
    open_config = synthetic_config(folder, rows, users, items, reference=REFERENCE, **STAGE)
    config = fit(open_config, FITTED_TO)  # else a longer log has larger networks
    found: Phases = {}
    with own_ray():
        for phase, work in PHASES.items():
            with watched() as peaks:
                seconds = seconds_of(partial(work, config))
            found[phase] = {
                SECONDS: seconds,
                DRIVER: peaks.driver / 1e6,
                WORKER: peaks.largest_worker / 1e6,
            }
    return found


def _blocks(config: RunConfig) -> Blocks:
    return open_blocks(config.place("blocks"))


def _scan(config: RunConfig) -> object:
    blocks = _blocks(config)
    uri = reference_uri(config, len(blocks.historical))
    scoring = EL2NScoring(uri, reference_identity(uri), config.scoring.el2n_precision)
    return scan(config, blocks, blocks.historical[-1], scoring, config.place("bench scan"))


PHASES: dict[str, Callable[[RunConfig], object]] = {
    "prepare": prepare,
    "reference": lambda config: train_reference(config, _blocks(config)),
    "scan": _scan,
    "stage": lambda config: distill_stream(config, _blocks(config)),
}


@dataclass(frozen=True)
class Job(Measure):
    """The whole main job on a synthetic log, check off: its phases, and its largest process.

    What jobs/distill.py does, in a process and a Ray of its own, by the default recipe with 1.5%
    of the rows; the reference is a small DCN, as in `scale`. The goal is stated for
    --rows 100000000.
    """

    name: ClassVar[str] = "job"
    rows: int = size(10_000_000, "rows of the log")
    users: int = size(100_000, "users")
    items: int = size(50_000, "items")
    outer_steps: int = size(DistillConfig().outer_steps, "outer steps of each stage")

    def needs(self) -> Needs:
        return Needs(LARGEST_PROCESS, DISK_BYTES_PER_ROW * self.rows)

    def run(self, folder: str) -> Found:
        seconds, driver, worker, phases = in_child(
            job_of, folder, self.rows, self.users, self.items, self.outer_steps
        )
        of = f"the main job, {self.rows:,} rows, ratio 1.5%, check off"
        largest = max(driver, worker) / 1e9
        stages, epoch = (
            sum(s for phase, s in phases if phase.startswith(begin))
            for begin in ("Stage", "Reference model")
        )
        return Found(
            [
                Figure(f"{of}: minutes", seconds / 60, unit="min"),
                Figure(
                    f"{of}: largest process",
                    largest,
                    Goal(high=LARGEST_PROCESS / 1e9),
                    "GB",
                    {"driver GB": driver / 1e9, "largest worker GB": worker / 1e9},
                ),
                Figure(
                    f"{of}: all stages / an epoch of the reference on their blocks",
                    stages / epoch,
                    Goal(high=STAGE_OVER_EPOCH),
                    parts={"stages s": stages, "epoch s": epoch},
                ),
            ],
            {"Phases of the main job": [{"Phase": p, SECONDS: s} for p, s in phases]},
        )


LARGEST_PROCESS = 8e9


def job_of(
    folder: str, rows: int, users: int, items: int, outer_steps: int
) -> tuple[float, int, int, list[tuple[str, float]]]:
    """Seconds, peaks of driver and largest worker, title and seconds of each phase."""
    recipe = {"memory": {"ratio": 0.015}, "distill": {"outer_steps": outer_steps}}
    config = synthetic_config(folder, rows, users, items, reference=REFERENCE, **recipe)
    with own_ray(), watched() as peaks:
        seconds = seconds_of(lambda: distill_logs(config))
    told = storage.read_json(config.place("summary.json"))["seconds_of_last_run"]
    return seconds, peaks.driver, peaks.largest_worker, list(told.items())
