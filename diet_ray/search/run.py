"""The run behind a sweep: what verifying and finishing candidates need beside the set's folder."""

from __future__ import annotations

from diet_ray.config import ConfigError, RunConfig, fit
from diet_ray.distill.context import stage_uri
from diet_ray.evaluation.run import Run
from diet_ray.logs import blocks as logs
from diet_ray.memory import artifact
from diet_ray.training.reference import published_stages


def open_run(config: RunConfig, key: str) -> Run:
    """The run's blocks and reference, with the set that the sweep takes.

    key: of the configuration that asks for them, for the message. Raises ConfigError if they are
    not there, or if the set is one of other fields or tasks.
    """
    remedy = f"run jobs/distill.py with this configuration first, or set {key} to 0"
    uri = config.place("blocks")
    if not logs.published(uri):
        raise ConfigError(
            f"{key}: it trains on the log itself, and {uri} holds no blocks; {remedy}"
        )
    blocks = logs.open_blocks(uri)
    config = fit(config, blocks.historical_rows)
    last = len(blocks.historical)
    done = published_stages(config, blocks)
    if done < last:
        raise ConfigError(
            f"{key}: of the run's references phi_1..phi_{last} {done} are there; {remedy}"
        )
    distilled = config.search.distilled or stage_uri(config, last)
    found = artifact.describe(distilled)
    if (found.fields, found.tasks) != (blocks.fields, blocks.tasks):
        raise ConfigError(
            f"{key}: {distilled} has fields {', '.join(found.fields)} and tasks "
            f"{', '.join(found.tasks)}, the blocks in {uri} have {', '.join(blocks.fields)} and "
            f"{', '.join(blocks.tasks)}; name a set of this log, or set {key} to 0"
        )
    return Run(config, blocks, distilled)
