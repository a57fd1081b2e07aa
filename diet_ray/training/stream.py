"""Training of the reference model over the stream: one epoch per block in time order, parameters
inherited.

Protocol: Ray Train runs it in the driver's process with ``resources.reference_workers: 0``, else on
that many data-parallel workers, or on as many of a range as the cluster has room for, which changes
no bit: a batch is always cut into ``reference.logical_shards``. Each block starts with a fresh
optimiser, so phi_t is a function of phi_{t-1} and D_t alone, and a killed run continues after the
last published phi_t, or from within a block (`partway.py`), with the same result.
"""

from __future__ import annotations

import math
from typing import Any

import ray.train
import torch
from ray.train.torch import TorchTrainer

from diet_ray import progress, storage, whereabouts
from diet_ray.config import ConfigError, RunConfig
from diet_ray.errors import DivergedError
from diet_ray.logs.blocks import Block, Blocks, iterate_batches
from diet_ray.models.embedding import EmbeddingTable
from diet_ray.models.registry import fresh_network
from diet_ray.training.model import Epoch, Recommender
from diet_ray.training.partway import Partway
from diet_ray.training.reference import (
    load_reference,
    made_from,
    publish,
    published_stages,
    reference_uri,
)
from diet_ray.training.workers import Workers

DIVERGED = "diverged"
"""Of a worker's report: the message."""


def _check_shards(config: RunConfig) -> None:
    """Whether every worker has some of a batch's logical shards. Raises ConfigError."""
    shards, (_, most) = config.reference.logical_shards, config.resources.range_of_reference_workers
    if most > shards:
        raise ConfigError(
            f"resources.reference_workers {most} exceeds reference.logical_shards {shards}; set at "
            "most as many workers, or, to train the reference anew, more shards"
        )


def check_device(config: RunConfig) -> None:
    """Whether there is the GPU that the driver is to train on. Raises ConfigError."""
    asked = config.resources
    if asked.reference_gpu and not asked.reference_workers and not torch.cuda.is_available():
        raise ConfigError(
            "resources.reference_gpu true: the reference trains in this process "
            "(resources.reference_workers 0), which has no GPU; set it to false, or "
            "reference_workers to 1 to train on a node that has one"
        )


def train_reference(config: RunConfig, blocks: Blocks) -> None:
    """Train and publish what is missing of phi_1..phi_T. Raises CheckpointError, ConfigError,
    DivergedError."""
    done = published_stages(config, blocks)
    if done == len(blocks.historical):
        progress.logger.info("Reference model: phi_1..phi_%d are published already", done)
        return
    _check_shards(config)
    check_device(config)
    trainer = TorchTrainer(
        _train_stream,
        train_loop_config={"config": config, "blocks": blocks},
        scaling_config=ray.train.ScalingConfig(
            num_workers=config.resources.reference_workers,
            use_gpu=config.resources.reference_gpu,
            # another number of workers goes on from the last state: not more often than one is kept
            elastic_resize_monitor_interval_s=60 * config.resources.reference_checkpoint_minutes,
        ),
        run_config=ray.train.RunConfig(
            name=f"diet_ray-reference-{config.name}",
            # below the output wherever phi_t lies: this run's own state, of use to no other
            **storage.known_to_ray(config.place("reference", "ray_train")),
            failure_config=ray.train.FailureConfig(max_failures=3),
        ),
    )
    with progress.others_commit(lambda: _states(config, blocks)):
        diverged = (trainer.fit().metrics or {}).get(DIVERGED)
    if diverged:
        raise DivergedError(diverged)


def _states(config: RunConfig, blocks: Blocks) -> list[str]:
    """What is kept of the training so far, by any process; other states are told otherwise."""
    stages = range(1, len(blocks.historical) + 1)
    folders = [reference_uri(config, stage) for stage in stages]
    kept = [uri for folder in folders for uri in storage.list_files(folder)]
    return [f"{uri} {storage.fingerprint(uri)}" for uri in kept]


def _train_stream(loop_config: dict[str, Any]) -> None:
    """What every worker runs: the blocks that have no phi_t yet, in order."""
    config, blocks = loop_config["config"], loop_config["blocks"]
    whereabouts.enter(run=config.name)
    torch.set_num_threads(config.threads)
    device, context = ray.train.torch.get_device(), ray.train.get_context()
    workers = Workers(context.get_world_rank(), context.get_world_size())
    nodes = workers.nodes(device)
    done = published_stages(config, blocks)
    model = _starting_model(config, blocks, done)
    for stage, block in enumerate(blocks.historical[done:], start=done + 1):
        model.table.grow(block.vocabulary_sizes)
        partway = _partway(config, blocks, stage, nodes)
        try:
            loss = _train_block(config, blocks, block, model.to(device), workers, partway)
        except DivergedError as error:
            ray.train.report({DIVERGED: str(error)})  # raised, it would be tried again
            return
        if workers.rank == 0:
            publish(config, blocks, stage, model, loss)
            partway.remove()
        ray.train.report({"stage": stage, "loss": loss})


def _partway(config: RunConfig, blocks: Blocks, stage: int, nodes: frozenset[str]) -> Partway:
    every = config.resources.reference_checkpoint_minutes
    return Partway(reference_uri(config, stage), made_from(config, blocks), every, nodes)


def _starting_model(config: RunConfig, blocks: Blocks, done: int) -> Recommender:
    if done:
        reference = load_reference(reference_uri(config, done))
        return Recommender(reference.table, reference.dense.requires_grad_(True))
    models, sizes = config.models, dict.fromkeys(blocks.fields, 0)
    table = EmbeddingTable(sizes, models.embedding_dim, models.embedding_std, config.seed)
    dense = fresh_network(
        config.reference.network,
        models,
        len(blocks.fields),
        len(blocks.tasks),
        config.seed,
        "reference",
    )
    return Recommender(table, dense)


def _train_block(
    config: RunConfig,
    blocks: Blocks,
    block: Block,
    model: Recommender,
    workers: Workers,
    partway: Partway,
) -> float:
    reference = config.reference
    noise = (config.seed, "reference noise", block.name)
    epoch = Epoch(model, reference.learning_rate, reference.logical_shards, workers, noise)
    partway.resume(epoch)
    with progress.phase(f"Reference model on {block.name}", block.rows) as phase:
        phase.skip(epoch.rows)
        for batch in iterate_batches(blocks, block, reference.batch_size, epoch.rows):
            _check_finite(epoch.step(batch), config, block, epoch.rows)
            phase.advance(len(batch))
            if workers.rank == 0:
                partway.save_if_due(epoch)
    loss = epoch.finish()
    last = [parameter.detach().sum() for parameter in model.parameters()]
    _check_finite(float(torch.stack(last).sum()), config, block, epoch.rows)
    return loss


def _check_finite(number: float, config: RunConfig, block: Block, rows: int) -> None:
    """Raises DivergedError."""
    if not math.isfinite(number):
        raise DivergedError(
            f"the reference has diverged on {block.name}, within {rows:,} rows: a loss or a "
            f"parameter is {number}; lower reference.learning_rate "
            f"({config.reference.learning_rate:g}) and run again"
        )
