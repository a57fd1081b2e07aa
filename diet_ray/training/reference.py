"""The reference model phi_1..phi_T: what is known of each, where it lies, and how it is read.

Layout: ``t=<t>/model.safetensors`` (``embedding.<field>`` and ``dense.<parameter>``), then
``reference.json``, which makes phi_t visible; in ``reference`` below the output, or in the folder
that runs with the same settings share (``reference.folder``). `stream.py` trains them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import AfterValidator, Field

from diet_ray import devices, documents, progress, storage, telemetry, tensor_files
from diet_ray.config import ModelsConfig, NetworkConfig, RunConfig
from diet_ray.errors import UserError
from diet_ray.logs.blocks import Blocks
from diet_ray.models.embedding import EmbeddingTable
from diet_ray.models.registry import DenseNetwork, fresh_network
from diet_ray.seeds import Index
from diet_ray.training.model import Recommender

FORMAT = 2


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


_Names = Annotated[tuple[str, ...], Field(min_length=1)]


@dataclass(frozen=True)
class _Description:
    """What ``reference.json`` holds."""

    format: int
    stage: int
    identity: str
    fields: _Names
    tasks: _Names
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
        found, expected = _description(uri), made_from(config, blocks)
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


def made_from(config: RunConfig, blocks: Blocks) -> dict[str, Any]:
    """All that decides phi_t's bits."""
    return {
        **config.determining("models", "reference", "seed", "threads"),
        "blocks": blocks.fingerprint,
        **devices.numerics(config.resources.reference_gpu),
    }


def publish(config: RunConfig, blocks: Blocks, stage: int, model: Recommender, loss: float) -> None:
    """Make phi_t visible. loss: the mean of its epoch."""
    arrays = {f"embedding.{name}": v.cpu().numpy() for name, v in model.table.by_field().items()}
    for name, parameter in model.dense.named_parameters():
        arrays[f"dense.{name}"] = parameter.detach().cpu().numpy()
    uri = reference_uri(config, stage)
    identity = tensor_files.write(_tensors_uri(uri), arrays)
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
        "made_from": made_from(config, blocks),
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
        arrays = tensor_files.read(_tensors_uri(uri), _again(uri), sha256=facts.identity)
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
