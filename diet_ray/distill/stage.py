"""One stage: D_t, phi_t and S_{t-1} become S_t (paper, algorithms 1 and 2)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean
from typing import NamedTuple

import numpy as np
import ray

from diet_ray import progress, storage, telemetry, whereabouts
from diet_ray.config import RunConfig
from diet_ray.distill.addressing import address, drawn_targets
from diet_ray.distill.boundary import empty_files, fuse, memory_sizes, new_rows, write_start
from diet_ray.distill.context import Stage, stage_uri
from diet_ray.distill.positions import Positions
from diet_ray.distill.worker import RoundTask
from diet_ray.distill.workers import MetaWorkers
from diet_ray.errors import DivergedError
from diet_ray.logs.blocks import Blocks, Rows
from diet_ray.memory import artifact
from diet_ray.memory.artifact import RankingData
from diet_ray.memory.coordinator import MemoryCoordinator, ServerLostError, start_steps
from diet_ray.memory.durable import durable_steps
from diet_ray.memory.files import RowFiles
from diet_ray.memory.update import schedule
from diet_ray.seeds import numpy_generator

LOSSES_WITHOUT_PROGRESS = 50


class Ended(NamedTuple):
    """What a stage publishes."""

    files: RowFiles
    ranking: RankingData


def distill_stage(config: RunConfig, blocks: Blocks, number: int, workers: MetaWorkers) -> None:
    """Compute and publish S_t; continues a stage that was interrupted."""
    with whereabouts.at(run=config.name, stage=number):
        _distil(Stage.open(config, blocks, number, workers))


def _distil(stage: Stage) -> None:
    config = stage.config
    start = _initialise(stage)
    learns_embeddings = config.distill.outer.embedding_step > 0
    stage.workers.make_room()
    memory = MemoryCoordinator(
        folder=stage.work("memory"),
        start=start,
        resources=config.resources,
        unit=stage.embedder.standard_deviation if learns_embeddings else None,
        name=f"memory-server-{stage.number}",
    )
    try:
        ended = _optimise(stage, memory)
    finally:
        memory.close()
        for gauge in (telemetry.OUTER_STEP, telemetry.OUTER_LOSS, telemetry.GRADIENT_NORM):
            gauge.forget()
    artifact.publish(ended.files, stage.describe(start.rows), ended.ranking)
    storage.remove(stage.work())


def _end(stage: Stage, memory: MemoryCoordinator) -> Ended:
    """The finished rows, written by the servers, and the rows to judge on."""
    uri, stored = stage_uri(stage.config, stage.number), stage.config.memory
    artifact.clear(uri)
    target = replace(
        empty_files(stage, uri, len(memory.client)),
        label_type=stored.label_precision,
        delta_type=stored.delta_precision,
    )
    return Ended(memory.write(target), _ranking_data(stage, memory))


def _ranking_data(stage: Stage, memory: MemoryCoordinator) -> RankingData:
    """A sample of the validation block with phi_t's labels; 0 for ids that no anchor has."""
    config, block = stage.config, stage.blocks.block("validation")
    count = min(config.memory.validation_rows, block.rows)
    draw = numpy_generator(config.seed, "validation sample")
    chosen = np.sort(draw.choice(block.rows, count, replace=False))
    row_ids = block.fragments[0].first_row_id + chosen
    ids, labels = stage.workers.real_rows(stage.blocks, block, row_ids)
    taught = stage.workers.taught(stage.number, ids)
    known = np.where(memory.holds(ids), ids, 0)
    judged = Rows(row_ids, known.astype(np.int64), labels.astype(np.float32))
    full_rows = stage.blocks.historical_rows + stage.blocks.block("subsequent").rows
    return RankingData(judged, taught, block.rows, full_rows)


def _initialise(stage: Stage) -> RowFiles:
    """The stage's rows before its first outer step; they are the memory's durable step 0.

    Found where an interrupted run of the same configuration and reference left them.
    """
    uri, folder = stage.work("start"), stage.work("memory")
    if artifact.published(uri) and durable_steps(folder):
        found = artifact.describe(uri)
        if found == stage.describe(found.rows):
            return artifact.open_files(uri)
    storage.remove(stage.work())
    new, kept = memory_sizes(stage.config, stage.blocks)[stage.number - 1]
    with progress.phase(f"Stage {stage.number}: {new:,} new rows, {kept:,} kept"):
        boundary = new_rows(stage, new)
        previous, keeping = _kept(stage, boundary, kept)
        target = empty_files(stage, uri, len(keeping) + new)
        start = write_start(stage, target, previous, keeping, boundary)
    start_steps(folder)
    artifact.publish(start, stage.describe(start.rows))
    return start


def _kept(stage: Stage, boundary: np.ndarray, keep: int) -> tuple[RowFiles | None, Positions]:
    """S_{t-1}, and which of its rows stay; neither at stage 1."""
    if stage.number == 1:
        return None, range(0)
    previous = artifact.open_files(stage_uri(stage.config, stage.number - 1))
    return previous, fuse(stage, boundary, previous, keep)


def _optimise(stage: Stage, memory: MemoryCoordinator) -> Ended:
    """Algorithm 2: rounds of addressing and outer steps, from wherever the memory stands."""
    distill = stage.config.distill
    total = distill.steps_of_stage
    with progress.phase(f"Stage {stage.number}: meta-gradients", total, "outer steps") as phase:
        phase.skip(memory.step)
        losses, durable = 0, memory.step
        while True:
            try:
                while memory.step < total:
                    number = memory.step // distill.outer_steps
                    with whereabouts.at(round=number):
                        found = address(stage, memory, number)
                        targets = drawn_targets(stage, found.targets, number)
                        task = RoundTask(stage.number, number, targets, found.active, memory.client)
                        _round(stage, memory, task, phase)
                return _end(stage, memory)
            except ServerLostError:
                telemetry.RETRIES.add(1, what="memory rollback")
                reached = memory.step
                stage.workers.make_room()
                memory.rollback()
                phase.skip(memory.step - reached)
                losses = losses + 1 if memory.step == durable else 1
                durable = memory.step
                if losses == LOSSES_WITHOUT_PROGRESS:
                    raise
                progress.logger.info(
                    "Stage %d: a memory server was lost; going on from step %d",
                    stage.number,
                    memory.step,
                )


def _round(stage: Stage, memory: MemoryCoordinator, task: RoundTask, phase: progress.Phase) -> None:
    """The outer steps of one round that are still to do."""
    distill = stage.config.distill
    total = distill.steps_of_stage
    end = (task.round + 1) * distill.outer_steps
    shared = ray.put(task)
    while memory.step < end:
        step = memory.step
        whereabouts.enter(step=step)
        memory.leave_nodes()
        losses = stage.workers.meta_gradients(shared, step, distill.logical_shards)
        dropped = sum(map(math.isnan, losses))
        factor = schedule(distill.outer, step, total)
        norm = memory.commit(distill.logical_shards, distill.outer, factor, dropped)
        progress.logger.debug("step %d: outer losses %s, norm %.3g", step, losses, norm)
        _measure(memory.step, losses, norm)
        if dropped:
            _tell_dropped(stage, memory, dropped)
        if memory.step % distill.commit_every == 0 or memory.step == end:
            memory.make_durable()
        phase.advance()


def _measure(step: int, losses: Sequence[float], norm: float) -> None:
    """Metrics of an outer step; losses: of its shards, NaN of one that was left out."""
    finite = [loss for loss in losses if math.isfinite(loss)]
    telemetry.OUTER_STEP.set(step)
    telemetry.GRADIENT_NORM.set(norm)
    telemetry.SHARDS_LEFT_OUT.add(len(losses) - len(finite))
    if finite:
        telemetry.OUTER_LOSS.set(fmean(finite))


def _tell_dropped(stage: Stage, memory: MemoryCoordinator, dropped: int) -> None:
    """Warn of shards that a step left out. Raises DivergedError if the stage's are too many."""
    distill = stage.config.distill
    shards = distill.steps_of_stage * distill.logical_shards
    limit = math.floor(distill.dropped_limit * shards)
    told = (
        f"stage {stage.number}, outer step {memory.step}: loss or gradient of {dropped} of "
        f"{distill.logical_shards} shards was not a finite number; left out so far: "
        f"{memory.dropped} of the stage's {shards}"
    )
    if memory.dropped > limit:
        raise DivergedError(
            f"{told}, more than distill.dropped_limit {distill.dropped_limit} allows ({limit}); "
            "the inner loop diverges: lower distill.inner.learning_rate "
            f"({distill.inner.learning_rate:g}) and run again"
        )
    progress.logger.warning("%s (distill.dropped_limit allows %d)", told, limit)
