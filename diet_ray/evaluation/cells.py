"""One cell: one candidate, trained under one method with one seed, judged on validation and test.

Layout: ``evaluation/cells/<method>/<network>/<key>.json``, beside it ``<key>.safetensors`` with
the logits on test and validation. The key is a hash of all that the result depends on, so a cell
that several studies ask for is trained once, and a changed configuration finds what still holds.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch

from diet_ray import documents, progress, storage, tensor_files
from diet_ray.config import CotrainConfig, NetworkConfig, ProtocolConfig
from diet_ray.evaluation.methods import REDUCED, REFERENCE_FREE, WITH_HISTORY, Labels, Use
from diet_ray.evaluation.run import Run
from diet_ray.evaluation.selection import selection_key
from diet_ray.evaluation.shared import Shared, warm_up_rows
from diet_ray.memory.ranking import RankingSet
from diet_ray.memory.rows import SyntheticRows
from diet_ray.models.registry import source_digest
from diet_ray.seeds import derive, torch_seeded
from diet_ray.training.candidate import train_through, warm_up
from diet_ray.training.cotrain import co_trained, fresh_candidate
from diet_ray.training.metrics import LOSS_OF_ONE_HALF, Metrics, answers, mean_metrics, measure
from diet_ray.training.model import Recommender, predict


@dataclass(frozen=True)
class Cell:
    """Names one training of a run; of a co-training those of all its seeds, `seed` and on."""

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
            return protocol.steps * protocol.batch_size * protocol.seeds
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
        if ":" in self.candidate.name:
            made_from["code"] = source_digest(self.candidate.name)
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
    """What a cell found out; of a co-training the means over its seeds."""

    test: dict[str, Any]  # Metrics as JSON
    validation: dict[str, Any]  # the same on validation, after the whole training
    warm_up_auc: list[float]  # validation AUC after each epoch of a warm-up
    training_loss: list[float]  # progressive, of real blocks or a co-training (`curve.py`); that
    # of one half where it is not a number
    dense_parameters: int
    seconds: float

    @property
    def diverged(self) -> bool:
        """Whether a training did; older results do not say so."""
        return any(of.get("diverged", False) for of in (self.test, self.validation))


def read_cell(cell: Cell) -> CellResult | None:
    """The cell's result, if it is there with its logits; a damaged one is not."""
    if not storage.exists(cell.uri("safetensors")):
        return None
    try:
        return documents.parsed(documents.read_sealed(cell.uri()), CellResult, cell.uri())
    except FileNotFoundError:
        return None
    except storage.StorageError as error:
        progress.logger.warning("%s: damaged, trained again (%s)", cell.uri(), error)
        return None


def read_logits(cell: Cell) -> np.ndarray:
    """The cell's logits on the test block, (n, K) float32; of a co-training the mean over seeds."""
    return tensor_files.read(cell.uri("safetensors"))["logits"]


def read_validation_logits(cell: Cell) -> np.ndarray:
    """The cell's logits on the validation block, (seeds, n, K) float32."""
    found = tensor_files.read(cell.uri("safetensors"))["validation"]
    return found if cell.use == "cotrain" else found[None]


def run_cell(cell: Cell, shared: Shared, rows: SyntheticRows | None) -> CellResult:
    """Train, judge, keep. rows: the reduced set of a method in REDUCED."""
    torch.set_num_threads(cell.run.config.threads)
    started = time.monotonic()
    blocks = cell.run.blocks
    if rows is not None and isinstance(cell.protocol, CotrainConfig):
        trained = _co_trained(cell, cell.protocol, shared, rows)
    else:
        trained = train_on_blocks(cell, shared, rows)
    on_validation = trained.logits(trained.validation_ids)
    validation = _metrics(on_validation, shared.validation.labels, blocks.tasks)
    seconds = time.monotonic() - started  # a score is there; the test block is asked for the tables
    on_test = trained.logits(trained.test_ids)
    result = CellResult(
        test=asdict(_metrics(on_test, shared.test.labels, blocks.tasks)),
        validation=asdict(validation),
        warm_up_auc=trained.epochs,
        training_loss=[x if math.isfinite(x) else LOSS_OF_ONE_HALF for x in trained.losses],
        dense_parameters=trained.models[0].dense.parameter_count,
        seconds=round(seconds, 2),
    )
    on_test, on_validation = (
        np.stack([answers(mine) for mine in logits]) for logits in (on_test, on_validation)
    )
    tensors = {
        "logits": on_test.mean(axis=0),
        "validation": on_validation if cell.use == "cotrain" else on_validation[0],
    }
    tensor_files.write_sealed(cell.uri("safetensors"), tensors)
    documents.write_sealed(cell.uri(), asdict(result))
    return result


@dataclass(frozen=True)
class Trained:
    """What a cell's training leaves behind, before it is judged."""

    models: list[Recommender]  # by seed
    epochs: list[float]  # validation AUC
    losses: list[float]
    test_ids: np.ndarray  # as the models take them
    validation_ids: np.ndarray

    def logits(self, ids: np.ndarray) -> np.ndarray:
        """(seeds, n, K) float32."""
        return np.stack([predict(model, ids) for model in self.models])


def _metrics(logits: np.ndarray, labels: np.ndarray, tasks: Sequence[str]) -> Metrics:
    return mean_metrics([measure(mine, labels, tasks) for mine in logits])


def _co_trained(
    cell: Cell, protocol: CotrainConfig, shared: Shared, rows: SyntheticRows
) -> Trained:
    config, blocks = cell.run.config, cell.run.blocks
    ranked = RankingSet.of(rows.anchors, rows.labels, shared.test.ids, shared.validation.ids)
    sizes = dict(zip(blocks.fields, ranked.sizes, strict=True))
    models, losses = co_trained(
        cell.candidate,
        config.models,
        ranked.soft_rows(),
        sizes,
        len(blocks.tasks),
        protocol,
        config.seed,
        cell.seed,
    )
    return Trained(models, [], losses, *ranked.asked)


def train_on_blocks(cell: Cell, shared: Shared, rows: SyntheticRows | None) -> Trained:
    """By the paper's protocol, to the end of the subsequent block; rows: of a warm-up."""
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
        soft_rows, judged = warm_up_rows(rows, model.table), shared.validation
        epochs = warm_up(model.dense, model.table, soft_rows, judged, blocks.tasks, protocol, seed)
        warmed = [metrics.auc for metrics in epochs]
    history = blocks.historical if cell.method in WITH_HISTORY else []
    through = [*history, blocks.block("subsequent")]
    with torch_seeded(config.seed, "candidate noise", cell.seed):  # of dropout
        losses = train_through(model, blocks, through, protocol, cell.share)
    return Trained([model], warmed, losses, shared.test.ids, shared.validation.ids)
