"""A small distilled set, and what a sweep over it should find: trained directly, without Ray."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import torch

from diet_ray.config import NetworkConfig, RunConfig
from diet_ray.distill.context import made_from, stage_uri
from diet_ray.logs.blocks import Blocks, open_blocks, read_block
from diet_ray.memory import artifact
from diet_ray.memory.artifact import RankingData
from diet_ray.memory.dataset import load_distilled
from diet_ray.memory.rows import SyntheticRows
from diet_ray.models.candidate import Candidate
from diet_ray.models.registry import fresh_network
from diet_ray.search.leaderboard import Line
from diet_ray.search.proposals import listed
from diet_ray.search.trial import FIRST_SEED
from diet_ray.seeds import derive, numpy_generator
from diet_ray.training.candidate import warm_up
from diet_ray.training.cotrain import CompactIds, co_train, fresh_candidate
from diet_ray.training.metrics import Metrics, measure, taught_auc
from diet_ray.training.model import predict
from diet_ray.training.reference import load_reference, reference_uri
from diet_ray.training.soft_rows import SoftRows
from tests.made import small_config
from tests.sets import publish_set

ROWS = 60
SPACE: dict[str, Any] = {
    "dcn": {"num_cross_layers": [1, 2], "dnn_hidden_units": [[8]]},
    "wukong": {
        "num_layers": [1],
        "fmb_features": [2],
        "lcb_features": [2],
        "rank": [2, 3],
        "fmb_units": [[8]],
        "mlp_hidden_units": [[8]],
    },
}


def config_at(
    output: Path, space: dict[str, Any] | None = None, use: str = "cotrain", **overrides: Any
) -> RunConfig:
    search = {"space": SPACE if space is None else space, "trials": 4, "use": use}
    search |= overrides.pop("search", {})
    evaluation = {"seeds": 2, **overrides.pop("evaluation", {})}
    return small_config(str(output), search=search, evaluation=evaluation, **overrides)


def small_candidate(name: str, **own: Any) -> Candidate:
    """A network of the small run's evaluation; own: what else the space names."""
    known = {network.name: network for network in small_config("anywhere").evaluation.candidates}
    return Candidate(known[name], **own)


def publish_distilled(
    config: RunConfig, blocks: Blocks, judging: int | None = 240, fields: tuple[str, ...] = ()
) -> None:
    """Real rows with random deltas in the form of S_3, and rows of validation to judge on."""
    reference = load_reference(reference_uri(config, 3))
    real = read_block(blocks, blocks.historical[-1]).take(slice(0, ROWS))
    validation = read_block(blocks, blocks.block("validation"))
    taken = validation.take(slice(0, judging))
    shape = ROWS, len(blocks.fields), config.models.embedding_dim
    own, taught = (predict(reference.recommender, ids) for ids in (real.ids, taken.ids))
    rows = SyntheticRows(
        anchors=real.ids.astype(np.int32),
        labels=real.labels * 4 - 2,
        taught=own,
        stages=np.full(ROWS, 3, dtype=np.int32),
        source_rows=real.row_ids,
        moved=np.ones(ROWS, dtype=bool),
        deltas=numpy_generator(0, "rows").normal(scale=0.1, size=shape).astype(np.float32),
    )
    description = artifact.Description(
        stage=3,
        rows=ROWS,
        fields=fields or blocks.fields,
        tasks=blocks.tasks,
        embedding_dim=config.models.embedding_dim,
        reference=reference.identity,
        reference_uri=reference_uri(config, 3),
        made_from=made_from(config, blocks),
    )
    full_rows = blocks.historical_rows + blocks.block("subsequent").rows
    sample = RankingData(taken, taught, len(validation), full_rows)
    judges = None if judging is None else sample
    publish_set(stage_uri(config, 3), rows, description, judges)


def inherit_directly(config: RunConfig, network: NetworkConfig, seed: int) -> list[Metrics]:
    """Every epoch of a warm-up on phi_T's table."""
    blocks = open_blocks(config.place("blocks"))
    reference = load_reference(reference_uri(config, 3))
    dataset = load_distilled(stage_uri(config, 3))
    rows = SoftRows(dataset.embeddings, dataset.labels)
    validation = read_block(blocks, blocks.block("validation"))
    sizes = len(blocks.fields), len(blocks.tasks)
    dense = fresh_network(network, config.models, *sizes, config.seed, "candidate", seed)
    order = derive(config.seed, "candidate warm-up", seed)
    protocol = config.evaluation.protocol
    return warm_up(dense, reference.table, rows, validation, blocks.tasks, protocol, order)


def co_train_directly(
    config: RunConfig, network: NetworkConfig
) -> tuple[list[Metrics], list[float]]:
    """By seed, on the validation block itself: metrics, and the AUC against phi_T's labels."""
    blocks = open_blocks(config.place("blocks"))
    rows = artifact.read(stage_uri(config, 3))
    validation = read_block(blocks, blocks.block("validation"))
    compact, tasks = CompactIds(rows.anchors), blocks.tasks
    sizes = dict(zip(blocks.fields, compact.sizes, strict=True))
    protocol = config.evaluation.cotrain
    seeds = range(FIRST_SEED, FIRST_SEED + protocol.seeds)
    models = [
        fresh_candidate(network, config.models, sizes, len(tasks), config.seed, seed)
        for seed in seeds
    ]
    reference = load_reference(reference_uri(config, 3)).recommender
    own, taught = (
        predict(reference, ids) for ids in (rows.anchors.astype(np.int64), validation.ids)
    )
    trained = SoftRows(torch.tensor(compact(rows.anchors)), torch.tensor(own))
    orders = [derive(config.seed, "candidate co-training", seed) for seed in seeds]
    co_train(models, trained, protocol, orders)
    logits = [predict(model, compact(validation.ids)) for model in models]
    metrics = [measure(mine, validation.labels, tasks) for mine in logits]
    return metrics, [taught_auc(mine, taught) for mine in logits]


def directly(config: RunConfig) -> list[Line]:
    """The leaderboard, from plain copies and without Ray; sizes, seconds and the like are left out.

    By the default score: a co-training's is taught, a warm-up's AUC.
    """
    lines = []
    search = config.search
    for candidate in listed(config):
        network = candidate.network
        if search.use == "cotrain":
            counted, scores = co_train_directly(config, network)
            taught, epochs = mean(scores), None
        else:
            counted, kept = [], []
            for seed in range(FIRST_SEED, FIRST_SEED + config.evaluation.seeds):
                found = inherit_directly(config, network, seed)
                best = max(range(len(found)), key=lambda n, found=found: (found[n].auc, n))
                counted.append(found[best])
                kept.append(best + 1)
            scores = [metrics.auc for metrics in counted]
            taught, epochs = None, mean(kept)
        lines.append(
            Line(
                network=network.name,
                parameters=network.parameters,
                embedding_dim=None,
                learning_rate=None,
                dense_parameters=None,
                flop=None,
                score=mean(scores),
                score_deviation=stdev(scores),
                seeds=len(scores),
                stopped=False,
                places=None,
                validation_auc=mean(metrics.auc for metrics in counted),
                validation_logloss=mean(metrics.logloss for metrics in counted),
                taught_auc=taught,
                epochs=epochs,
                trained_rows=0,
                cost=None,
                seconds=0,
            )
        )
    return sorted(lines, key=lambda line: -line.score)


def known(lines: list[Line]) -> list[Line]:
    """What of a leaderboard `directly` knows."""
    unknown = {"dense_parameters": None, "flop": None, "places": None, "cost": None}
    return [replace(line, **unknown, trained_rows=0, seconds=0) for line in lines]
