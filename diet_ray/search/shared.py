"""What all trials of a sweep read: one copy per node, in Ray's object store, mapped read-only."""

from __future__ import annotations

from dataclasses import dataclass

from diet_ray.config import ModelsConfig, ProtocolConfig, RunConfig
from diet_ray.evaluation.run import Run
from diet_ray.evaluation.shared import SharedTable
from diet_ray.logs.blocks import Blocks, Rows, read_block
from diet_ray.memory import artifact
from diet_ray.memory.rows import SyntheticRows


@dataclass(frozen=True)
class SharedData:
    """The distilled set, phi_T's embedding vectors, the validation rows, and the protocol."""

    rows: SyntheticRows
    reference: SharedTable
    validation: Rows
    tasks: tuple[str, ...]
    models: ModelsConfig
    protocol: ProtocolConfig
    seed: int
    threads: int


def load_shared(config: RunConfig, blocks: Blocks, distilled: str) -> SharedData:
    """Read what the trials share; `distilled` is the URI of S_T. Raises ArtifactError."""
    artifact.check_fits(distilled, blocks.fields, config.models.embedding_dim)
    return SharedData(
        rows=artifact.read(distilled),
        reference=SharedTable.of(Run(config, blocks, distilled).reference(), config.seed),
        validation=read_block(blocks, blocks.block("validation")),
        tasks=blocks.tasks,
        models=config.models,
        protocol=config.evaluation.protocol,
        seed=config.seed,
        threads=config.threads,
    )
