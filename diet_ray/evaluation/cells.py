"""One cell: one candidate, trained under one method with one seed, judged on validation and test.

Layout: ``evaluation/cells/<method>/<network>/<key>.json``, beside it ``<key>.safetensors`` with
the logits on test and validation. The key is a hash of all that the result depends on, so a cell
that several studies ask for is trained once, and a changed configuration finds what still holds.
"""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch

from diet_ray import storage
from diet_ray.config import NetworkConfig, ProtocolConfig, RunConfig
from diet_ray.evaluation.methods import REDUCED, REFERENCE_FREE, Labels
from diet_ray.evaluation.run import Run
from diet_ray.evaluation.selection import selection_key
from diet_ray.evaluation.shared import Shared, warm_up_rows
from diet_ray.logs.blocks import Blocks
from diet_ray.memory.rows import SyntheticRows
from diet_ray.models.embedding import EmbeddingTable
from diet_ray.models.registry import fresh_network
from diet_ray.seeds import derive
from diet_ray.training.candidate import train_through, warm_up
from diet_ray.training.metrics import measure
from diet_ray.training.model import Recommender, predict


@dataclass(frozen=True)
class Cell:
    """Names one training of a run."""

    run: Run
    method: str
    labels: Labels  # "" for methods without a reduced set
    candidate: NetworkConfig
    protocol: ProtocolConfig
    seed: int

    @cached_property
    def key(self) -> str:
        """Equal keys mean equal results. Raises ArtifactError for a missing distilled set."""
        made_from = {
            **self.run.made_from(),
            "network": self.candidate.name,
            "parameters": self.candidate.parameters,
            "method": self.method,
            "labels": self.labels,
            "protocol": self.protocol.model_dump(include=self._protocol_keys()),
            "candidate seed": self.seed,
        }
        if self.method not in REFERENCE_FREE:
            made_from["reference"] = self.run.reference_identity
        if self.method == "distilled":
            made_from["rows"] = self.run.distilled_files
        elif self.method in REDUCED:
            made_from["rows"] = selection_key(self.run, self.method, self.seed)
            blended = self.labels == "blended"
            made_from["blend"] = self.run.config.memory.truth_blend if blended else None
        return hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()[:20]

    def _protocol_keys(self) -> set[str]:
        on_real_blocks = {"batch_size", "learning_rate"}
        return set(ProtocolConfig.model_fields) if self.method in REDUCED else on_real_blocks

    def uri(self, suffix: str = "json") -> str:
        """Where its result lies."""
        parts = ("evaluation", "cells", self.method, self.candidate.name.replace(":", "."))
        return self.run.config.place(*parts, f"{self.key}.{suffix}")


@dataclass(frozen=True)
class CellResult:
    """What a cell found out."""

    test: dict[str, Any]  # Metrics as JSON
    validation: dict[str, Any]  # the same on validation, after the whole training
    warm_up_auc: list[float]  # validation AUC after each warm-up epoch; empty without a warm-up
    training_loss: list[float]  # progressive, on real blocks (`training/curve.py`)
    dense_parameters: int
    seconds: float


def read_cell(cell: Cell) -> CellResult | None:
    """The cell's result, if it is there."""
    try:
        return CellResult(**storage.read_json(cell.uri()))
    except FileNotFoundError:
        return None


def read_logits(cell: Cell) -> np.ndarray:
    """The cell's logits on the test block, (n, K) float32."""
    return storage.read_tensors(cell.uri("safetensors"))["logits"]


def run_cell(cell: Cell, shared: Shared, rows: SyntheticRows | None) -> CellResult:
    """Train, judge, keep. rows: the reduced set of a method in REDUCED."""
    config, blocks = cell.run.config, cell.run.blocks
    torch.set_num_threads(config.threads)
    started = time.monotonic()
    fields, tasks = len(blocks.fields), len(blocks.tasks)
    path = ("candidate", cell.seed)
    dense = fresh_network(cell.candidate, config.models, fields, tasks, config.seed, *path)
    table = _fresh_table(config, blocks, cell.seed)
    if cell.method not in REFERENCE_FREE:
        table = shared.reference.trainable()
    warmed: list[float] = []
    if rows is not None:
        seed = derive(config.seed, "candidate warm-up", cell.seed)
        epochs = warm_up(
            dense,
            table,
            warm_up_rows(rows),
            shared.validation,
            blocks.tasks,
            cell.protocol,
            seed,
        )
        warmed = [metrics.auc for metrics in epochs]
    model = Recommender(table, dense)
    history = blocks.historical if cell.method == "full" else []
    losses = train_through(model, blocks, [*history, blocks.block("subsequent")], cell.protocol)
    validation, test = shared.validation, shared.test
    logits, on_validation = (predict(model, rows.ids) for rows in (test, validation))
    result = CellResult(
        test=asdict(measure(logits, test.labels, blocks.tasks)),
        validation=asdict(measure(on_validation, validation.labels, blocks.tasks)),
        warm_up_auc=warmed,
        training_loss=losses,
        dense_parameters=dense.parameter_count,
        seconds=round(time.monotonic() - started, 2),
    )
    tensors = {"logits": logits, "validation": on_validation}
    storage.write_tensors(cell.uri("safetensors"), tensors)
    storage.write_json(cell.uri(), asdict(result))
    return result


def _fresh_table(config: RunConfig, blocks: Blocks, seed: int) -> EmbeddingTable:
    sizes, models = dict.fromkeys(blocks.fields, 0), config.models
    table_seed = derive(config.seed, "candidate table", seed)
    return EmbeddingTable(sizes, models.embedding_dim, models.embedding_std, table_seed)
