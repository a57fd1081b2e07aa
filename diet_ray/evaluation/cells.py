"""One cell: one candidate, trained under one method with one seed, judged on test."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any

import torch

from diet_ray import storage
from diet_ray.config import NetworkConfig, RunConfig
from diet_ray.evaluation.methods import REDUCED, warm_up_rows
from diet_ray.logs.blocks import Blocks, read_block
from diet_ray.memory import artifact
from diet_ray.models.embedding import EmbeddingTable
from diet_ray.models.registry import DenseNetwork, fresh_network
from diet_ray.seeds import derive
from diet_ray.training.candidate import judge, train_through, warm_up
from diet_ray.training.metrics import Metrics
from diet_ray.training.model import Recommender
from diet_ray.training.reference import load_reference, reference_uri


@dataclass(frozen=True)
class Cell:
    """Names one training."""

    method: str
    candidate: str  # its title
    seed: int

    def network(self, config: RunConfig) -> NetworkConfig:
        """The candidate's network."""
        return next(n for n in config.evaluation.candidates if n.title == self.candidate)

    def uri(self, config: RunConfig) -> str:
        """Where its result lies."""
        folder = config.place("evaluation", "cells", self.method, self.candidate)
        return storage.join(folder, f"seed={self.seed}.json")


@dataclass(frozen=True)
class CellResult:
    """What a cell found out."""

    key: str  # of all that the result depends on
    test: dict[str, Any]  # Metrics as JSON
    validation_auc: list[float]  # after each warm-up epoch; empty without a warm-up


def cell_key(config: RunConfig, blocks: Blocks, distilled: str, cell: Cell) -> str:
    """Equal keys mean equal results."""
    made_from = {
        "candidate": cell.network(config).model_dump(),
        "models": config.models.model_dump(),
        "settings": config.evaluation.protocol.model_dump(),
        "blocks": blocks.fingerprint,
        "seed": config.seed,
        "threads": config.threads,
    }
    if cell.method != "full":
        stage = len(blocks.historical)
        made_from["reference"] = load_reference(reference_uri(config, stage)).identity
    if cell.method in REDUCED:
        made_from["rows"] = artifact.describe(distilled).rows
    if cell.method == "distilled":
        made_from["distilled"] = artifact.checksums(distilled)
    return hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()


def read_cell(config: RunConfig, cell: Cell, key: str) -> CellResult | None:
    """The cell's result, if it is there and still holds."""
    try:
        result = CellResult(**storage.read_json(cell.uri(config)))
    except FileNotFoundError:
        return None
    return result if result.key == key else None


def run_cell(config: RunConfig, blocks: Blocks, distilled: str, cell: Cell, key: str) -> CellResult:
    """Train, judge, keep."""
    torch.set_num_threads(config.threads)
    dense = fresh_network(
        cell.network(config),
        config.models,
        len(blocks.fields),
        len(blocks.tasks),
        config.seed,
        "candidate",
        cell.seed,
    )
    epochs: list[Metrics] = []
    if cell.method == "full":
        model = Recommender(_fresh_table(config, blocks, cell), dense)
        through = [*blocks.historical, blocks.block("subsequent")]
    else:
        model, epochs = _inheriting(config, blocks, distilled, cell, dense)
        through = [blocks.block("subsequent")]
    train_through(model, blocks, through, config.evaluation.protocol)
    test = judge(model, blocks, blocks.block("test"))
    result = CellResult(key, asdict(test), [metrics.auc for metrics in epochs])
    storage.write_json(cell.uri(config), asdict(result))
    return result


def _fresh_table(config: RunConfig, blocks: Blocks, cell: Cell) -> EmbeddingTable:
    sizes = dict.fromkeys(blocks.fields, 0)
    seed = derive(config.seed, "candidate table", cell.seed)
    return EmbeddingTable(sizes, config.models.embedding_dim, config.models.embedding_std, seed)


def _inheriting(
    config: RunConfig, blocks: Blocks, distilled: str, cell: Cell, dense: DenseNetwork
) -> tuple[Recommender, list[Metrics]]:
    """A candidate on phi_T's tables, warmed up if its method has a reduced set."""
    reference = load_reference(reference_uri(config, len(blocks.historical)))
    if cell.method not in REDUCED:
        return Recommender(reference.table, dense), []
    rows = warm_up_rows(cell.method, config, blocks, reference, distilled, cell.seed)
    validation = read_block(blocks, blocks.block("validation"))
    seed = derive(config.seed, "candidate warm-up", cell.seed)
    epochs = warm_up(
        dense, reference.table, rows, validation, blocks.tasks, config.evaluation.protocol, seed
    )
    return Recommender(reference.table, dense), epochs
