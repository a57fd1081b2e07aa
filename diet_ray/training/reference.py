"""The reference model phi_1..phi_T: one epoch per block in time order, parameters inherited.

Layout: ``t=<t>/model.safetensors`` (``embedding.<field>`` and ``dense.<parameter>``), then
``reference.json``, which makes phi_t visible; in ``reference`` below the output, or in the folder
that runs with the same settings share (``reference.folder``). Training runs on Ray Train: in the
driver's process with ``resources.reference_workers: 0``, else on that many data-parallel workers,
or on as many of a range as the cluster has room for, which changes no bit: a batch is always cut
into ``reference.logical_shards``.
Each block starts with a fresh optimiser, so phi_t is a function of phi_{t-1} and D_t alone, and a
killed run continues after the last published phi_t, or from within a block (`partway.py`), with the
same result.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import ray.train
import torch
from pydantic import AfterValidator
from ray.train.torch import TorchTrainer

from diet_ray import documents, progress, runtime, storage, telemetry, whereabouts
from diet_ray.config import ConfigError, ModelsConfig, NetworkConfig, RunConfig
from diet_ray.errors import DivergedError, UserError
from diet_ray.logs.blocks import Block, Blocks, iterate_batches
from diet_ray.models.embedding import EmbeddingTable
from diet_ray.models.registry import DenseNetwork, fresh_network
from diet_ray.seeds import Index
from diet_ray.training.model import Epoch, Recommender
from diet_ray.training.partway import Partway
from diet_ray.training.workers import Workers

FORMAT = 2
DIVERGED = "diverged"
"""Of a worker's report: the message."""


class CheckpointError(UserError, ValueError):
    """A reference checkpoint that does not fit; the message names file, field and remedy."""


def _with_seed(made_from: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(made_from.get("seed"), int):
        raise ValueError("states no seed")
    return made_from


def _with_head(models: ModelsConfig) -> ModelsConfig:
    if models.mmoe is None:
        raise ValueError("states no mmoe")
    return models


@dataclass(frozen=True)
class _Description:
    """What ``reference.json`` holds."""

    format: int
    stage: int
    identity: str
    fields: tuple[str, ...]
    tasks: tuple[str, ...]
    training_loss: float
    standard_deviation: float
    network: NetworkConfig
    models: Annotated[ModelsConfig, AfterValidator(_with_head)]
    made_from: Annotated[dict[str, Any], AfterValidator(_with_seed)]


@dataclass(frozen=True)
class ReferenceFacts:
    """What phi_t's description says of it."""

    stage: int
    identity: str  # SHA-256 of its tensors
    fields: tuple[str, ...]
    tasks: tuple[str, ...]
    network: NetworkConfig
    models: ModelsConfig
    seed: int  # of the vectors of ids that come later
    standard_deviation: float  # of all entries of its table


@dataclass(frozen=True)
class Reference(ReferenceFacts):
    """phi_t, ready to be applied."""

    table: EmbeddingTable
    dense: DenseNetwork

    @property
    def recommender(self) -> Recommender:
        return Recommender(self.table, self.dense)

    def fresh(self, network: NetworkConfig, seed: int, *path: Index) -> DenseNetwork:
        """Any network over this one's fields, width and tasks, a pure function of (seed, path)."""
        return fresh_network(network, self.models, len(self.fields), len(self.tasks), seed, *path)


def reference_uri(config: RunConfig, stage: int) -> str:
    """Folder of phi_t."""
    return storage.join(config.reference.folder or config.place("reference"), f"t={stage}")


def published_stages(config: RunConfig, blocks: Blocks) -> int:
    """How many of phi_1..phi_T are published. Raises CheckpointError if they are of another run."""
    done = 0
    for stage in range(1, len(blocks.historical) + 1):
        folder = reference_uri(config, stage)
        uri = _description_uri(folder)
        if not storage.exists(uri):
            break
        if not storage.exists(_tensors_uri(folder)):
            progress.logger.warning("%s: missing; trained again", _tensors_uri(folder))
            break
        found, expected = _description(uri), _made_from(config, blocks)
        differing = [key for key in expected if found.made_from.get(key) != expected[key]]
        if differing:
            raise CheckpointError(
                f"{uri}: made from another {', '.join(differing)} than this configuration's"
                f"{_embedding_widths(found.models, config.models)}; set another "
                f"{_place_key(config)}, or remove the reference folder to train it again"
            )
        done = stage
    return done


def _place_key(config: RunConfig) -> str:
    return "reference.folder" if config.reference.folder else "output"


def _embedding_widths(found: ModelsConfig, expected: ModelsConfig) -> str:
    """Both widths, if they differ: no network can take the other's embeddings."""
    theirs, ours = found.embedding_dim, expected.embedding_dim
    return "" if theirs == ours else f" (models.embedding_dim {theirs}, here {ours})"


def _made_from(config: RunConfig, blocks: Blocks) -> dict[str, Any]:
    return {
        **config.determining("models", "reference", "seed", "threads"),
        "blocks": blocks.fingerprint,
        **runtime.numerics(config.resources.reference_gpu),
    }


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
            storage_path=storage.absolute(config.place("reference", "ray_train")),
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
            _publish(config, blocks, stage, model, loss)
            partway.remove()
        ray.train.report({"stage": stage, "loss": loss})


def _partway(config: RunConfig, blocks: Blocks, stage: int, nodes: frozenset[str]) -> Partway:
    every = config.resources.reference_checkpoint_minutes
    return Partway(reference_uri(config, stage), _made_from(config, blocks), every, nodes)


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


def _publish(
    config: RunConfig, blocks: Blocks, stage: int, model: Recommender, loss: float
) -> None:
    arrays = {f"embedding.{name}": v.cpu().numpy() for name, v in model.table.by_field().items()}
    for name, parameter in model.dense.named_parameters():
        arrays[f"dense.{name}"] = parameter.detach().cpu().numpy()
    uri = reference_uri(config, stage)
    identity = storage.write_tensors(_tensors_uri(uri), arrays)
    description = {
        "format": FORMAT,
        "stage": stage,
        "identity": identity,
        "fields": blocks.fields,
        "tasks": blocks.tasks,
        "training_loss": loss,
        "standard_deviation": model.table.standard_deviation(),
        "network": config.reference.network.model_dump(),
        "models": config.models.model_dump(),
        "made_from": _made_from(config, blocks),
    }
    documents.write_sealed(_description_uri(uri), description)
    telemetry.durable()


def _tensors_uri(uri: str) -> str:
    return storage.join(uri, "model.safetensors")


def _description_uri(uri: str) -> str:
    return storage.join(uri, "reference.json")


def _again(uri: str) -> str:
    """The remedy for phi_t's folder `uri`."""
    return f"remove the folder {uri} and run again to train it again, or bring back a copy"


def _description(path: str) -> _Description:
    remedy = _again(path.rpartition("/")[0])
    try:
        description = documents.read_sealed(path, remedy)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file; train the reference first") from None
    if description.get("format") != FORMAT:
        raise CheckpointError(
            f"{path}: format {description.get('format')} is not {FORMAT}; remove the reference "
            "folder to train it again, or set another"
        )
    return documents.parsed(description, _Description, path, remedy)


def describe_reference(uri: str) -> ReferenceFacts:
    """What is known of phi_t in a folder without reading its tensors. Raises CheckpointError."""
    found = _description(_description_uri(uri))
    return ReferenceFacts(
        stage=found.stage,
        identity=found.identity,
        fields=found.fields,
        tasks=found.tasks,
        network=found.network,
        models=found.models,
        seed=found.made_from["seed"],
        standard_deviation=found.standard_deviation,
    )


def reference_identity(uri: str) -> str:
    """SHA-256 of phi_t's tensors, without reading them. Raises CheckpointError."""
    return describe_reference(uri).identity


def load_reference(uri: str) -> Reference:
    """phi_t from its folder, on the CPU, its dense network frozen; its tensors are those whose
    SHA-256 its description states. Raises CheckpointError, StorageError."""
    facts = describe_reference(uri)
    try:
        arrays = storage.read_tensors(_tensors_uri(uri), _again(uri), sha256=facts.identity)
    except FileNotFoundError:
        raise CheckpointError(f"{_tensors_uri(uri)}: no such file; {_again(uri)}") from None
    models, sizes = facts.models, dict.fromkeys(facts.fields, 0)
    table = EmbeddingTable(sizes, models.embedding_dim, models.embedding_std, facts.seed)
    of_a_field = (None, models.embedding_dim)
    table.load(
        {name: _tensor(arrays, f"embedding.{name}", of_a_field, uri) for name in facts.fields}
    )
    dense = fresh_network(facts.network, models, len(facts.fields), len(facts.tasks), 0)
    own = {name: tuple(parameter.shape) for name, parameter in dense.named_parameters()}
    dense.load_state_dict(
        {name: _tensor(arrays, f"dense.{name}", shape, uri) for name, shape in own.items()}
    )
    return Reference(**vars(facts), table=table, dense=dense.requires_grad_(False))


def _tensor(
    arrays: dict[str, np.ndarray], name: str, shape: tuple[int | None, ...], uri: str
) -> torch.Tensor:
    """One of them, whose description asks for this shape; None for any length."""
    if name not in arrays:
        raise CheckpointError(f"{_tensors_uri(uri)}: no tensor {name}; {_again(uri)}")
    array, shape = arrays[name], shape or (1,)  # a file holds a scalar as one element
    fits = len(array.shape) == len(shape) and all(
        wanted in (None, length) for wanted, length in zip(shape, array.shape, strict=True)
    )
    if not fits:
        raise CheckpointError(
            f"{_tensors_uri(uri)}: {name} has shape {array.shape}, reference.json says "
            f"{shape}; {_again(uri)}"
        )
    return torch.from_numpy(array)
