"""What every step of one stage needs: the run, the block, facts of phi_t, and the workers.

The driver never loads a model: tables are the workers' business.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from diet_ray import devices
from diet_ray.config import RunConfig
from diet_ray.distill.proxy import embedding_stage
from diet_ray.distill.workers import MetaWorkers
from diet_ray.logs.blocks import Block, Blocks
from diet_ray.memory.artifact import Description
from diet_ray.training.reference import ReferenceFacts, describe_reference, reference_uri


@dataclass(frozen=True)
class Stage:
    """Stage `number`, from 1: the work that turns D_t, phi_t and S_{t-1} into S_t."""

    config: RunConfig
    blocks: Blocks
    number: int
    block: Block
    reference: ReferenceFacts  # of phi_t
    embedder: ReferenceFacts  # of what embeds rows while they are optimised: phi_t, or phi_{t-1}
    workers: MetaWorkers

    @staticmethod
    def open(config: RunConfig, blocks: Blocks, number: int, workers: MetaWorkers) -> Stage:
        """The stage; its reference must be published."""
        reference, embedder = (
            describe_reference(reference_uri(config, t))
            for t in (number, embedding_stage(config, number))
        )
        block = blocks.historical[number - 1]
        return Stage(config, blocks, number, block, reference, embedder, workers)

    def scores(self, name: str) -> str:
        """Folder of one of the stage's scans."""
        return self.config.place("scores", f"t={self.number}", name)

    def work(self, *parts: str) -> str:
        """Folder of what is kept only until the stage is published."""
        return self.config.place("work", f"stage={self.number}", *parts)

    def describe(self, rows: int) -> Description:
        """The stage's artifact, as its manifest shall describe it."""
        return Description(
            stage=self.number,
            rows=rows,
            fields=self.reference.fields,
            tasks=self.reference.tasks,
            embedding_dim=self.reference.models.embedding_dim,
            reference=self.reference.identity,
            reference_uri=reference_uri(self.config, self.number),
            made_from=made_from(self.config, self.blocks),
        )


def stage_uri(config: RunConfig, number: int) -> str:
    """Folder of a published stage."""
    return config.place("distilled", f"stage={number}")


def made_from(config: RunConfig, blocks: Blocks) -> dict[str, Any]:
    """What determines the distilled rows, besides the reference."""
    sections = ("scoring", "memory", "distill", "seed", "threads")
    resources = config.resources
    return {
        **config.determining(*sections),
        "blocks": blocks.fingerprint,
        "scoring device": devices.device_kind(resources.scoring_gpus),
        **devices.numerics(resources.meta_worker_gpus),
    }
