"""The seconds of a reference, a distillation, a training: counts times the machine's pace."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from statistics import mean

import ray

from diet_ray import storage
from diet_ray.config import CotrainConfig, NetworkConfig, RunConfig
from diet_ray.distill import stream
from diet_ray.distill.proxy import proxy_networks
from diet_ray.evaluation.cells import Cell
from diet_ray.evaluation.methods import REDUCED
from diet_ray.logs.blocks import Block, Blocks, published
from diet_ray.memory.files import ArtifactError
from diet_ray.plan.pace import Pace
from diet_ray.plan.steps import PUBLISHED, Step
from diet_ray.training import reference
from diet_ray.training.reference import CheckpointError

PIPELINE_START = 3.0
"""Seconds until the first task of a Ray Data pipeline runs in a process of its own."""
SCAN_START = 0.5
"""Seconds until the first fragment of a scan is read, by a process that is there already."""
PROCESS_START = 5.0
"""Seconds until a new process has imported what it needs."""
PASSES = 2
"""Of a preparation over the rows: checking and staging, encoding and writing."""
MEASURED = 6
"""Of more networks than these, so many are measured and stand for their neighbours."""


def processes(config: RunConfig, most: int) -> int:
    """How many of at most `most` trainings run side by side, on the CPUs that there are."""
    here = ray.cluster_resources().get("CPU", 1) if ray.is_initialized() else os.cpu_count() or 1
    cpus = max(here, config.resources.cluster_limit.get("CPU", 0))
    return max(min(most, int(cpus / config.threads)), 1)


def preparation(config: RunConfig, blocks: Blocks, pace: Pace) -> Step:
    """Of the blocks."""
    title = "Prepare the log"
    if published(blocks.uri):
        return Step(title, PUBLISHED)
    rows = sum(block.rows for block in blocks.blocks) + blocks.outside_intervals
    seconds = PASSES * (rows * pace.staging() / processes(config, rows) + PIPELINE_START)
    return Step(title, f"about {rows:,} rows", seconds)


def reference_model(config: RunConfig, blocks: Blocks, pace: Pace) -> Step:
    """Of phi_1..phi_T."""
    title = "Reference model"
    done = reference.published_stages(config, blocks) if published(blocks.uri) else 0
    left = blocks.historical[done:]
    if not left:
        return Step(title, PUBLISHED)
    rows, (_, most) = sum(b.rows for b in left), config.resources.range_of_reference_workers
    a_row = pace.training(config.reference.network, config.reference.batch_size)
    seconds = PROCESS_START + rows * a_row / processes(config, max(most, 1))
    return Step(title, f"{len(left)} blocks, {rows:,} rows", seconds)


def distillation(config: RunConfig, blocks: Blocks, pace: Pace) -> Step:
    """Of S_1..S_T."""
    title, distill = "Distilled set", config.distill
    left = blocks.historical[_distilled_stages(config, blocks) :]
    if not left:
        return Step(title, PUBLISHED)
    seconds = 2 * PROCESS_START + sum(_stage(config, block, pace) for block in left)
    steps = distill.steps_of_stage
    of = f" of {steps} outer steps of {distill.logical_shards} shards" if steps else ""
    return Step(title, f"{len(left)} stages{of}", seconds)


def _distilled_stages(config: RunConfig, blocks: Blocks) -> int:
    if not published(blocks.uri):
        return 0
    if reference.published_stages(config, blocks) < len(blocks.historical):
        return 0  # what a later training of the reference makes of them is not known yet
    return stream.published_stages(config, blocks)


def _stage(config: RunConfig, block: Block, pace: Pace) -> float:
    distill, proxies = config.distill, proxy_networks(config)
    workers = processes(config, config.resources.range_of_meta_workers[1])
    steps = distill.steps_of_stage * math.ceil(distill.logical_shards / workers)
    gradient = mean(pace.meta_gradient(network, distill) for network in proxies) if steps else 0.0
    return PROCESS_START + steps * gradient + _scans(config, block, pace)


def _scans(config: RunConfig, block: Block, pace: Pace) -> float:
    """Of the block's rows: for the boundary, and for the hard targets of every round."""
    distill, proxy = config.distill, proxy_networks(config)[0]
    workers = processes(config, config.resources.scoring_workers[1])
    seconds = 0.0
    if config.memory.new_rows == "boundary":
        a_row = pace.prediction(config.reference.network)
        seconds += SCAN_START + block.rows * a_row / workers
    if distill.candidate_fraction < 1 or distill.hard_fraction < 1:
        a_row = pace.alignment(proxy, config.scoring.batch_rows)
        scored = distill.candidate_fraction * block.rows
        seconds += distill.rounds * (SCAN_START + scored * a_row / workers)
    return seconds


def trainings(title: str, cells: Sequence[Cell], pace: Pace) -> Step:
    """Of those cells that are not there yet, each once."""
    unlike = _by_key(cells)
    left = [cell for cell in unlike if not _is_there(cell)]
    if not left:
        return Step(title, PUBLISHED if cells else "none")
    config = left[0].run.config
    stand_in = stand_ins([cell.candidate for cell in left])
    seconds = sum(_training(cell, stand_in[cell.candidate.title], pace) for cell in left)
    side_by_side = processes(config, config.resources.evaluation_tasks)
    there = "" if len(left) == len(unlike) else f" ({len(unlike) - len(left)} are there)"
    amount = f"{len(left):,} trainings{there}"
    return Step(title, amount, PROCESS_START + seconds / side_by_side)


def _by_key(cells: Sequence[Cell]) -> list[Cell]:
    """Each once; those whose set is not there have no key yet, and count by themselves."""
    found: dict[object, Cell] = {}
    for number, cell in enumerate(cells):
        found.setdefault(_key(cell) or number, cell)
    return list(found.values())


def _key(cell: Cell) -> str | None:
    try:
        return cell.key
    except (CheckpointError, ArtifactError, FileNotFoundError):
        return None


def _is_there(cell: Cell) -> bool:
    return _key(cell) is not None and storage.exists(cell.uri())


def stand_ins(networks: Sequence[NetworkConfig]) -> dict[str, NetworkConfig]:
    """Title to the network that is measured in its place."""
    unlike = list({network.title: network for network in networks}.values())
    every = math.ceil(len(unlike) / MEASURED)
    return {network.title: unlike[n - n % every] for n, network in enumerate(unlike)}


def _training(cell: Cell, network: NetworkConfig, pace: Pace) -> float:
    """Of a cell, with another network of about its size."""
    blocks, protocol = cell.run.blocks, cell.protocol
    validation, test = (blocks.block(name).rows for name in ("validation", "test"))
    judged, a_prediction = validation + test, pace.prediction(network)
    set_rows = sum(cell.run.selection_sizes())
    if isinstance(protocol, CotrainConfig):
        judging = protocol.seeds * judged * a_prediction
        return pace.co_training(network, protocol, set_rows) + judging
    newest = blocks.block("subsequent").rows
    stream_rows = blocks.historical_rows + newest
    rows = {"full": stream_rows, "prefix": cell.share * stream_rows}.get(cell.method, newest)
    seconds = rows * pace.training(network, protocol.batch_size) + judged * a_prediction
    if cell.method in REDUCED:
        a_row = pace.warm_up(network, protocol.warm_up_batch_size)
        seconds += protocol.epochs * (set_rows * a_row + validation * a_prediction)
    return seconds
