"""The sweep: candidates of a space, each judged on one distilled set.

What could be known to fail is checked first: the space before anything else (`check_space`, which
jobs call before Ray starts), then the set, with a class of one's own tried on rows like it, then
the cluster. What earlier starts found is read
(`kept.py`), the rest runs with Ray Tune (`tuner.py`) as `proposals.py` says, and a leaderboard is
made of both. So a killed sweep resumes, a finished one has nothing to do, and a larger space or
more trials only add what is new.
"""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd
import ray

from diet_ray import progress
from diet_ray.config import ConfigError, ModelsConfig, RunConfig, fit
from diet_ray.config.space import options_of
from diet_ray.distill.context import stage_uri
from diet_ray.distill.stream import check_artifact
from diet_ray.errors import UserError
from diet_ray.logs import blocks as logs
from diet_ray.logs.blocks import Blocks
from diet_ray.memory import artifact
from diet_ray.memory.files import ArtifactError
from diet_ray.models.candidate import Candidate
from diet_ray.models.check import check_network
from diet_ray.models.registry import DenseNetwork
from diet_ray.models.space import draw
from diet_ray.search import leaderboard
from diet_ray.search.kept import Found, Trials
from diet_ray.search.leaderboard import Line
from diet_ray.search.proposals import SPACE, listed, proposals
from diet_ray.search.shared import load_shared
from diet_ray.search.tuner import run_trials
from diet_ray.training.reference import published_stages


class SearchError(UserError, RuntimeError):
    """A sweep without a result."""


@dataclass(frozen=True, repr=False)
class Swept:
    """What a sweep leaves; prints as the leaderboard, in a notebook as a table."""

    lines: list[Line]
    uri: str  # of the published leaderboard
    distilled: str  # URI of the set
    models: ModelsConfig  # what is common to all candidates

    @property
    def table(self) -> pd.DataFrame:
        """A row per candidate, best first: the columns of ``leaderboard.parquet``."""
        return leaderboard.as_frame(self.lines)

    @property
    def best(self) -> Candidate:
        """The first of the leaderboard. Raises SearchError without a candidate that was judged."""
        if not self.lines or self.lines[0].error is not None:
            raise SearchError(f"{self.uri}: no candidate was judged; raise search.budget or trials")
        return self.lines[0].candidate

    def best_network(self) -> DenseNetwork:
        """The best as a freshly started Torch module: embeddings (B, F, d) of the width of its
        table, which is the set's unless the space names another, to logits (B, K)."""
        best, described = self.best, artifact.describe(self.distilled)
        models = best.models(self.models)
        return DenseNetwork(best.network, models, len(described.fields), len(described.tasks))

    def __repr__(self) -> str:
        return leaderboard.render(self.lines)

    def _repr_html_(self) -> str:
        return leaderboard.render_html(self.lines)


def check_space(config: RunConfig) -> None:
    """Whether the space can be searched as configured. Raises ConfigError. Needs no Ray."""
    listed(config)


def sweep(config: RunConfig) -> Swept:
    """Run the trials that are missing, publish and print the leaderboard.

    Raises ConfigError, ArtifactError, CheckpointError, and SearchError if all trials failed.
    """
    config = fitted(config)
    source = proposals(config)
    blocks, distilled = open_set(config)
    described = artifact.describe(distilled)
    check_candidates(config, len(described.fields), len(described.tasks))
    check_resources(config)
    trials = Trials(config, blocks, distilled)
    known: Found = {}
    for key, (candidate, outcome) in trials.read().items():
        if source.belongs(candidate):
            source.recall(candidate, outcome.score(config.search.ranked_by))
            known[key] = candidate, outcome
    full_rows = artifact.full_rows(distilled)
    found = known
    if len(known) < config.search.trials:
        shared = load_shared(config, blocks, distilled)
        found = run_trials(config, shared, trials, source, known, full_rows)
    else:
        progress.logger.info("Sweep: all %d trials are done already", len(known))
    lines = leaderboard.leaderboard(list(found.values()), config.search.ranked_by, full_rows)
    swept = Swept(lines, leaderboard.publish(config, distilled, lines), distilled, config.models)
    _say(swept)
    return swept


def fitted(config: RunConfig) -> RunConfig:
    """With what was left to the log's size: that of the run's blocks, or else as its set tells."""
    blocks, distilled = config.place("blocks"), set_uri(config)
    if logs.published(blocks):
        return fit(config, logs.open_blocks(blocks).historical_rows)
    if artifact.published(distilled):
        return fit(config, artifact.describe(distilled).log_rows)
    return config  # there is nothing to sweep over, as `open_set` says


def set_uri(config: RunConfig) -> str:
    """Where the set lies, by `search.distilled`."""
    return config.search.distilled or stage_uri(config, len(config.raw_logs.intervals.historical))


def open_set(config: RunConfig) -> tuple[Blocks | None, str]:
    """The URI of the set; to inherit, the run's blocks too, which must fit it. Co-training needs
    none, and the set may come from anywhere.

    Raises ArtifactError, CheckpointError.
    """
    distilled = set_uri(config)
    if not artifact.published(distilled):
        raise ArtifactError(
            f"{distilled}: no published set; run jobs/distill.py with this configuration first, or "
            "name one as search.distilled"
        )
    if config.search.use == "cotrain":
        return None, distilled
    uri = config.place("blocks")
    if not logs.published(uri):
        raise ArtifactError(f"{uri}: no blocks; run jobs/distill.py with this configuration first")
    blocks = logs.open_blocks(uri)
    if published_stages(config, blocks) < len(blocks.historical):
        raise ArtifactError(
            f"{distilled}: its reference model is missing; run jobs/distill.py with this "
            "configuration first, or set search.use to cotrain"
        )
    check_artifact(config, blocks, distilled)
    return blocks, distilled


def check_candidates(config: RunConfig, fields: int, tasks: int) -> None:
    """Whether networks of one's own do what is asked of them; where candidates depend on scores,
    one of each network is tried. Raises ConfigError."""
    space = config.search.space
    candidates = listed(config) or draw(space, len(options_of(space)), config.seed, SPACE)
    for candidate in candidates:
        try:
            check_network(candidate.network, candidate.models(config.models), fields, tasks)
        except ConfigError as error:
            key = f"{SPACE}.{candidate.network.name}"
            raise ConfigError(f"{key}, as {candidate.values}: {error}") from error.__cause__


def check_resources(config: RunConfig) -> None:
    """Whether one trial can ever run. Raises ConfigError."""
    here, grown = ray.cluster_resources(), config.resources.cluster_limit
    asked: dict[str, tuple[str, float]] = {
        "CPU": ("threads", config.threads),
        "GPU": ("resources.trial_gpus", config.resources.trial_gpus),
    }
    for resource, (key, count) in asked.items():
        limit = max(here.get(resource, 0.0), grown.get(resource, 0.0))
        if count > limit:
            raise ConfigError(
                f"{key}: a trial needs {count:g} {resource}s, the cluster can give {limit:g}; set "
                "fewer, or resources.cluster_limit if the cluster can grow"
            )


def _say(swept: Swept) -> None:
    progress.logger.info(
        "Candidates trained on the distilled set, judged on the validation block, mean over tasks "
        "and seeds; the test block was not used:\n%s",
        swept,
    )
    progress.logger.info("Leaderboard: %s", swept.uri)
    failed = [line for line in swept.lines if line.error is not None]
    if swept.lines and len(failed) == len(swept.lines):
        raise SearchError(f"all {len(failed)} trials failed; the first: {failed[0].error}")
    if failed:
        progress.logger.info("%d of %d trials failed", len(failed), len(swept.lines))
