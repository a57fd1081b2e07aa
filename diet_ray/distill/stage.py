"""One stage: D_t, phi_t and S_{t-1} become S_t (paper, algorithms 1 and 2)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import ray

from diet_ray import progress, storage
from diet_ray.config import RunConfig
from diet_ray.distill.addressing import address
from diet_ray.distill.boundary import (
    follow_reference,
    fuse,
    memory_sizes,
    new_rows,
    re_embed,
    synthesise,
)
from diet_ray.distill.context import Stage, stage_uri
from diet_ray.distill.worker import RoundTask
from diet_ray.distill.workers import MetaWorkers
from diet_ray.logs.blocks import Blocks, read_rows
from diet_ray.memory import artifact
from diet_ray.memory.artifact import RankingData
from diet_ray.memory.coordinator import MemoryCoordinator, ServerLostError, start_state
from diet_ray.memory.rows import SyntheticRows
from diet_ray.memory.server import durable_steps
from diet_ray.memory.update import schedule
from diet_ray.seeds import numpy_generator
from diet_ray.training.model import predict
from diet_ray.training.reference import load_reference, reference_uri

LOSSES_WITHOUT_PROGRESS = 50


def distill_stage(
    config: RunConfig,
    blocks: Blocks,
    number: int,
    previous: SyntheticRows | None,
    workers: MetaWorkers,
) -> SyntheticRows:
    """Compute and publish S_t; continues a stage that was interrupted."""
    stage = Stage.open(config, blocks, number, workers)
    start = _initialise(stage, previous)
    memory = MemoryCoordinator(
        folder=stage.work("memory"),
        rows=len(start),
        resources=config.resources,
        unit=stage.embedder.table.standard_deviation(),
        name=f"memory-server-{number}",
    )
    try:
        embeddings, labels = _optimise(stage, memory)
    finally:
        memory.close()
    learned = replace(start, embeddings=embeddings, labels=labels)
    rows = re_embed(learned, stage.embedder, stage.reference)
    ranking = _ranking_data(stage, rows)
    artifact.publish(stage_uri(config, number), rows, stage.describe(len(rows)), ranking)
    storage.remove(stage.work())
    return rows


def _ranking_data(stage: Stage, rows: SyntheticRows) -> RankingData:
    """phi_t's labels of the rows and of a sample of the validation block."""
    config, block = stage.config, stage.blocks.block("validation")
    count = min(config.memory.validation_rows, block.rows)
    draw = numpy_generator(config.seed, "validation sample")
    chosen = np.sort(draw.choice(block.rows, count, replace=False))
    judged = read_rows(stage.blocks, block, block.fragments[0].first_row_id + chosen)
    own, taught = (
        predict(stage.reference.recommender, ids.astype(np.int64))
        for ids in (rows.anchors, judged.ids)
    )
    full_rows = stage.blocks.historical_rows + stage.blocks.block("subsequent").rows
    return RankingData(own, judged, taught, block.rows, full_rows)


def _initialise(stage: Stage, previous: SyntheticRows | None) -> SyntheticRows:
    """The stage's rows before its first outer step; they are the memory's durable step 0.

    Found where an interrupted run of the same configuration and reference left them.
    """
    start_uri, folder = stage.work("start"), stage.work("memory")
    if artifact.published(start_uri) and durable_steps(folder):
        found = artifact.describe(start_uri)
        if found == stage.describe(found.rows):
            return artifact.read(start_uri)
    storage.remove(stage.work())
    new, kept = memory_sizes(stage.config, stage.blocks)[stage.number - 1]
    with progress.phase(f"Stage {stage.number}: {new:,} new rows, {kept:,} kept"):
        boundary = new_rows(stage, new)
        rows = synthesise(boundary, stage.reference, stage.config.memory.truth_blend)
        rows = re_embed(rows, stage.reference, stage.embedder)
        if previous is not None:
            previous = fuse(stage, boundary, _carried_over(stage, previous), kept)
            rows = SyntheticRows.concatenate([previous, rows])
    start_state(folder, rows)
    artifact.publish(start_uri, rows, stage.describe(len(rows)))
    return rows


def _carried_over(stage: Stage, previous: SyntheticRows) -> SyntheticRows:
    """S_{t-1} in the space in which this stage optimises; as it is, if rows have no anchor."""
    if not stage.config.memory.anchored:
        return previous
    old = load_reference(reference_uri(stage.config, stage.number - 1))
    followed = follow_reference(previous, old, stage.reference)
    return re_embed(followed, stage.reference, stage.embedder)


def _optimise(stage: Stage, memory: MemoryCoordinator) -> tuple[np.ndarray, np.ndarray]:
    """Algorithm 2: rounds of addressing and outer steps, from wherever the memory stands.

    Returns the learned embeddings and labels.
    """
    distill = stage.config.distill
    total = distill.rounds * distill.outer_steps
    with progress.phase(f"Stage {stage.number}: meta-gradients", total, "outer steps") as phase:
        phase.skip(memory.step)
        losses, durable = 0, memory.step
        while True:
            try:
                while memory.step < total:
                    number = memory.step // distill.outer_steps
                    found = address(stage, memory, number)
                    task = RoundTask(
                        stage.number, number, found.targets, found.active, memory.client
                    )
                    _round(stage, memory, task, phase)
                return memory.pull_all()
            except ServerLostError:
                reached = memory.step
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
    total = distill.rounds * distill.outer_steps
    end = (task.round + 1) * distill.outer_steps
    shared = ray.put(task)
    while memory.step < end:
        step = memory.step
        losses = stage.workers.meta_gradients(shared, step, distill.logical_shards)
        factor = schedule(distill.outer, step, total)
        norm = memory.commit(distill.logical_shards, distill.outer, factor)
        progress.logger.debug("step %d: outer losses %s, norm %.3g", step, losses, norm)
        if memory.step % distill.commit_every == 0 or memory.step == end:
            memory.make_durable()
        phase.advance()
