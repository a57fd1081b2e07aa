"""What all trials of a sweep read: one copy per node, in Ray's object store, mapped read-only."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from diet_ray.config import CotrainConfig, ModelsConfig, ProtocolConfig, RunConfig, Score
from diet_ray.evaluation.run import Run
from diet_ray.logs.blocks import Blocks, Rows, read_block
from diet_ray.memory import artifact
from diet_ray.memory.ranking import RankingSet
from diet_ray.memory.rows import SyntheticRows
from diet_ray.training.shared_reference import SharedTable


@dataclass(frozen=True)
class Inherited:
    """For warm-ups: the distilled rows, phi_T's vectors, the rows that judge, the protocol."""

    rows: SyntheticRows
    reference: SharedTable
    validation: Rows
    protocol: ProtocolConfig


@dataclass(frozen=True)
class CoTrained:
    """For co-training: a set with the reference's labels, rows to judge on, and the protocol."""

    rows: RankingSet
    judged: Rows
    taught: np.ndarray  # (m, K), the reference's soft labels of the rows that judge
    protocol: CotrainConfig


@dataclass(frozen=True)
class SharedData:
    """What trials train on, and what they have in common."""

    data: Inherited | CoTrained
    fields: tuple[str, ...]
    tasks: tuple[str, ...]
    models: ModelsConfig
    score: Score
    seed: int
    seeds: int
    groups: tuple[int, ...]  # seeds of a co-training that train side by side, one after another
    rounds: int  # of a trial that is not stopped
    trial_rows: int  # that it trains
    threads: int
    gpus: float


def load_shared(config: RunConfig, blocks: Blocks | None, distilled: str) -> SharedData:
    """Read what the trials share. Raises ArtifactError.

    distilled: URI of the set. blocks: of the run, for `search.use: inherit`.
    """
    described, evaluation = artifact.describe(distilled), config.evaluation
    data: Inherited | CoTrained
    if blocks is None:
        held = artifact.read_ranking_data(distilled)
        ranked = RankingSet.of(*artifact.read_taught(distilled), held.rows.ids)
        data = CoTrained(ranked, held.rows, held.taught, evaluation.cotrain)
        seeds = rounds = evaluation.cotrain.seeds
        round_rows = evaluation.cotrain.steps * evaluation.cotrain.batch_size
    else:
        artifact.check_fits(distilled, blocks.fields, config.models.embedding_dim)
        data = Inherited(
            rows=artifact.read(distilled),
            reference=SharedTable.of(Run(config, blocks, distilled).reference(), config.seed),
            validation=read_block(blocks, blocks.block("validation")),
            protocol=evaluation.protocol,
        )
        seeds = evaluation.seeds
        rounds = seeds * evaluation.protocol.epochs
        round_rows = len(data.rows)
    return SharedData(
        data=data,
        fields=described.fields,
        tasks=described.tasks,
        models=config.models,
        score=config.search.ranked_by,
        seed=config.seed,
        seeds=seeds,
        groups=doubling(seeds) if config.search.stop != "none" else (seeds,),
        rounds=rounds,
        trial_rows=rounds * round_rows,
        threads=config.threads,
        gpus=config.resources.trial_gpus,
    )


def doubling(seeds: int) -> tuple[int, ...]:
    """Groups after each of which twice as many are done: 1, 1, 2, 4.., the last one cut."""
    groups = [1]
    while sum(groups) < seeds:
        groups.append(min(sum(groups), seeds - sum(groups)))
    return tuple(groups)
