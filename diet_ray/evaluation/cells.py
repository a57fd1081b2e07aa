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
from diet_ray.config import CotrainConfig, NetworkConfig, ProtocolConfig
from diet_ray.evaluation.methods import REDUCED, REFERENCE_FREE, WITH_HISTORY, Labels, Use
from diet_ray.evaluation.run import Run
from diet_ray.evaluation.selection import selection_key
from diet_ray.evaluation.shared import Shared, warm_up_rows
from diet_ray.memory.ranking import RankingSet
from diet_ray.memory.rows import SyntheticRows
from diet_ray.seeds import derive
from diet_ray.training.candidate import train_through, warm_up
from diet_ray.training.cotrain import co_train, fresh_candidate
from diet_ray.training.metrics import measure
from diet_ray.training.model import Recommender, predict


@dataclass(frozen=True)
class Cell:
    """Names one training of a run."""

    run: Run
    method: str
    labels: Labels  # "" for methods without a reduced set
    candidate: NetworkConfig
    protocol: ProtocolConfig | CotrainConfig  # the second: a reduced set is co-trained
    seed: int
    share: float = 1.0  # of the stream's rows, the first ones; for the method "prefix"

    @property
    def use(self) -> Use:
        """How it uses its reduced set; "" for methods without one."""
        if self.method not in REDUCED:
            return ""
        return "cotrain" if isinstance(self.protocol, CotrainConfig) else "inherit"

    @property
    def trained_rows(self) -> int:
        """Rows that the training visits, all of its epochs together."""
        blocks, protocol = self.run.blocks, self.protocol
        reduced = sum(self.run.selection_sizes())
        if isinstance(protocol, CotrainConfig):
            return reduced * protocol.passes
        newest = blocks.block("subsequent").rows
        stream = blocks.historical_rows + newest
        if self.method in REDUCED:
            return reduced * protocol.epochs + newest
        return {"full": stream, "prefix": round(self.share * stream)}.get(self.method, newest)

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
        if self.share < 1:
            made_from["share"] = self.share
        if self.method not in REFERENCE_FREE:
            made_from["reference"] = self.run.reference_identity
        if self.use == "cotrain":
            made_from["use"] = self.use
        if self.method == "distilled":
            made_from["rows"] = self.run.distilled_files
        elif self.method in REDUCED:
            made_from["rows"] = selection_key(self.run, self.method, self.seed)
            blended = self.labels == "blended"
            made_from["blend"] = self.run.config.memory.truth_blend if blended else None
        return hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()[:20]

    def _protocol_keys(self) -> set[str]:
        whole = type(self.protocol).model_fields
        return set(whole if self.method in REDUCED else ProtocolConfig.ON_REAL_BLOCKS)

    def uri(self, suffix: str = "json") -> str:
        """Where its result lies."""
        parts = ("evaluation", "cells", self.method, self.candidate.name.replace(":", "."))
        return self.run.config.place(*parts, f"{self.key}.{suffix}")


@dataclass(frozen=True)
class CellResult:
    """What a cell found out."""

    test: dict[str, Any]  # Metrics as JSON
    validation: dict[str, Any]  # the same on validation, after the whole training
    warm_up_auc: list[float]  # validation AUC after each epoch or pass over a reduced set
    training_loss: list[float]  # progressive, of real blocks or a co-training (`curve.py`)
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
    torch.set_num_threads(cell.run.config.threads)
    started = time.monotonic()
    blocks = cell.run.blocks
    if rows is not None and isinstance(cell.protocol, CotrainConfig):
        trained = _co_trained(cell, cell.protocol, shared, rows)
    else:
        trained = _trained_on_blocks(cell, shared, rows)
    logits, on_validation = (predict(trained.model, ids) for ids in trained.judged_ids)
    result = CellResult(
        test=asdict(measure(logits, shared.test.labels, blocks.tasks)),
        validation=asdict(measure(on_validation, shared.validation.labels, blocks.tasks)),
        warm_up_auc=trained.epochs,
        training_loss=trained.losses,
        dense_parameters=trained.model.dense.parameter_count,
        seconds=round(time.monotonic() - started, 2),
    )
    tensors = {"logits": logits, "validation": on_validation}
    storage.write_tensors(cell.uri("safetensors"), tensors)
    storage.write_json(cell.uri(), asdict(result))
    return result


@dataclass(frozen=True)
class _Trained:
    model: Recommender
    epochs: list[float]  # validation AUC
    losses: list[float]
    judged_ids: tuple[np.ndarray, np.ndarray]  # of test and validation, as the model takes them


def _co_trained(
    cell: Cell, protocol: CotrainConfig, shared: Shared, rows: SyntheticRows
) -> _Trained:
    config, blocks = cell.run.config, cell.run.blocks
    ranked = RankingSet.of(rows, shared.test, shared.validation)
    sizes = dict(zip(blocks.fields, ranked.sizes, strict=True))
    tasks, seed = blocks.tasks, config.seed
    model = fresh_candidate(cell.candidate, config.models, sizes, len(tasks), seed, cell.seed)
    test, validation = ranked.judged
    order = derive(seed, "candidate co-training", cell.seed)
    found = co_train(model, ranked.soft_rows(), validation, tasks, protocol, order)
    epochs = [metrics.auc for metrics in found.passes]
    return _Trained(model, epochs, found.training_loss, (test.ids, validation.ids))


def _trained_on_blocks(cell: Cell, shared: Shared, rows: SyntheticRows | None) -> _Trained:
    """By the paper's protocol; rows: of a warm-up."""
    config, blocks, protocol = cell.run.config, cell.run.blocks, cell.protocol
    if isinstance(protocol, CotrainConfig):
        raise ValueError(f"method {cell.method!r} trains on real blocks; give it a ProtocolConfig")
    sizes = dict.fromkeys(blocks.fields, 0)
    model = fresh_candidate(
        cell.candidate, config.models, sizes, len(blocks.tasks), config.seed, cell.seed
    )
    if cell.method not in REFERENCE_FREE:
        model.table = shared.reference.trainable()
    warmed: list[float] = []
    if rows is not None:
        seed = derive(config.seed, "candidate warm-up", cell.seed)
        soft_rows, judged = warm_up_rows(rows), shared.validation
        epochs = warm_up(model.dense, model.table, soft_rows, judged, blocks.tasks, protocol, seed)
        warmed = [metrics.auc for metrics in epochs]
    history = blocks.historical if cell.method in WITH_HISTORY else []
    through = [*history, blocks.block("subsequent")]
    losses = train_through(model, blocks, through, protocol, cell.share)
    return _Trained(model, warmed, losses, (shared.test.ids, shared.validation.ids))
