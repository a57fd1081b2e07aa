"""The stream of stages: S_1, S_2, .. S_T, each published, none computed twice."""

from __future__ import annotations

from diet_ray import progress, storage
from diet_ray.config import RunConfig
from diet_ray.distill.boundary import memory_sizes
from diet_ray.distill.context import made_from, stage_uri
from diet_ray.distill.stage import distill_stage
from diet_ray.distill.workers import MetaWorkers
from diet_ray.logs.blocks import Blocks
from diet_ray.memory import artifact
from diet_ray.memory.files import ArtifactError
from diet_ray.training.reference import describe_reference, reference_uri


def distill_stream(config: RunConfig, blocks: Blocks) -> str:
    """Distil every historical block that is not distilled yet; returns the URI of S_T."""
    memory_sizes(config, blocks)
    stages = range(1, len(blocks.historical) + 1)
    done = published_stages(config, blocks)
    if done == len(stages):
        artifact.check_content(stage_uri(config, done))
        progress.logger.info("Distilled set: stages 1..%d are published already", done)
        return stage_uri(config, done)
    workers = MetaWorkers(config)
    try:
        for stage in stages[done:]:
            distill_stage(config, blocks, stage, workers)
    finally:
        workers.close()
    storage.remove(config.place("work"))
    return stage_uri(config, len(stages))


def published_stages(config: RunConfig, blocks: Blocks) -> int:
    """How many stages are published, each fitting this run; one that lacks a file is not.

    Raises ArtifactError.
    """
    done = 0
    for stage in range(1, len(blocks.historical) + 1):
        uri = stage_uri(config, stage)
        if not artifact.published(uri):
            break
        check_artifact(config, blocks, uri)
        missing = artifact.missing_files(uri)
        if missing:
            progress.logger.warning("%s: %s is missing; distilled again", uri, missing[0])
            break
        done = stage
    return done


def check_artifact(config: RunConfig, blocks: Blocks, uri: str) -> artifact.Description:
    """What a published stage says, if it fits this run's reference and configuration.

    Raises ArtifactError for another reference, schema or configuration.
    """
    found = artifact.describe(uri)
    reference = describe_reference(reference_uri(config, found.stage))
    if found.reference != reference.identity:
        raise ArtifactError(
            f"{uri}: belongs to reference {found.reference[:12]}, this run's phi_{found.stage} is "
            f"{reference.identity[:12]}; set another output, or remove the distilled folder"
        )
    if (found.fields, found.tasks) != (blocks.fields, blocks.tasks):
        raise ArtifactError(
            f"{uri}: has fields {found.fields} and tasks {found.tasks} ({len(found.fields)} and "
            f"{len(found.tasks)}), the blocks have {blocks.fields} and {blocks.tasks} "
            f"({len(blocks.fields)} and {len(blocks.tasks)}); distil again with another output"
        )
    expected = made_from(config, blocks)
    differing = [key for key in expected if found.made_from.get(key) != expected[key]]
    if differing:
        raise ArtifactError(
            f"{uri}: made with another {', '.join(differing)} than this configuration's; set "
            "another output, or remove the distilled folder"
        )
    return found
