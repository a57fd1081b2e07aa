"""The sweep: the candidates of a space as Ray Tune trials over one distilled set.

Layout: ``search/trials/<key>.json`` for every trial that ended well, where the key is a hash of
all that its outcome depends on; ``search/leaderboard.json``, made from those. A trial whose file
is there is not run again, so a killed sweep resumes, a finished one has nothing to do, and a
larger space or more trials only add what is new. A failed trial leaves no file: a repeated sweep
tries it again. Trials touch no storage; the driver keeps their outcomes as they come in.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from typing import Any

import ray
from ray import tune

from diet_ray import progress, runtime, storage
from diet_ray.config import ConfigError, NetworkConfig, RunConfig, fit
from diet_ray.distill.context import stage_uri
from diet_ray.distill.stream import check_artifact
from diet_ray.errors import UserError
from diet_ray.logs import blocks as logs
from diet_ray.logs.blocks import Blocks
from diet_ray.memory import artifact
from diet_ray.memory.artifact import ArtifactError
from diet_ray.models import space
from diet_ray.search import leaderboard
from diet_ray.search.leaderboard import Line
from diet_ray.search.shared import SharedData, load_shared
from diet_ray.search.trial import Outcome, one_line, run_trial
from diet_ray.training.reference import published_stages

SPACE = "search.space"

LOST_WORKERS = 3
"""How often a trial is started again after its worker was lost."""

TUNE_ENVIRONMENT = {
    # Else an interrupt would end in a leaderboard of the trials that were done by then.
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    # Phases report progress and the leaderboard is ours; verbose=0 alone still prints a table.
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "RAY_AIR_NEW_OUTPUT": "0",
}


class SearchError(UserError, RuntimeError):
    """A sweep without a result."""


def sweep(config: RunConfig) -> list[Line]:
    """Draw candidates, run the trials that are missing, publish and print the leaderboard."""
    config = fitted(config)
    search = config.search
    candidates = space.draw(search.space, search.trials, config.seed, SPACE)
    blocks, distilled = open_set(config)
    check_cpus(config)
    keys = trial_keys(config, blocks, distilled, candidates)
    outcomes = read_trials(config, keys)
    waiting = {key: network for key, network in keys.items() if key not in outcomes}
    if waiting:
        shared = load_shared(config, blocks, distilled)
        outcomes |= run_trials(config, shared, waiting, len(keys))
    else:
        progress.logger.info("Sweep: all %d trials are done already", len(keys))
    found = [(network, outcomes[key]) for key, network in keys.items()]
    lines = leaderboard.leaderboard(found, leaderboard.score_of(config))
    uri = leaderboard.publish(config, distilled, lines)
    _say(uri, lines)
    return lines


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
    return config.search.distilled or stage_uri(config, len(config.logs.intervals.historical))


def open_set(config: RunConfig) -> tuple[Blocks | None, str]:
    """The URI of the set; to inherit, the run's blocks too, which must fit it. Co-training needs
    none, and the set may come from anywhere.

    Raises ArtifactError, CheckpointError.
    """
    last = len(config.logs.intervals.historical)
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
    if published_stages(config, blocks) < last:
        raise ArtifactError(
            f"{distilled}: its reference model is missing; run jobs/distill.py with this "
            "configuration first, or set search.use to cotrain"
        )
    check_artifact(config, blocks, distilled)
    return blocks, distilled


def check_cpus(config: RunConfig) -> None:
    """Whether one trial can ever run. Raises ConfigError."""
    here = ray.cluster_resources().get("CPU", 0.0)
    limit = max(here, config.resources.cluster_limit.get("CPU", 0.0))
    if config.threads > limit:
        raise ConfigError(
            f"threads: a trial needs {config.threads} CPUs, the cluster can give {limit:g}; set "
            "fewer, or resources.cluster_limit if the cluster can grow"
        )


def trial_keys(
    config: RunConfig, blocks: Blocks | None, distilled: str, candidates: list[NetworkConfig]
) -> dict[str, NetworkConfig]:
    """Candidates by key; equal keys mean equal outcomes."""
    described = artifact.describe(distilled)
    made_from = {
        "models": config.models.model_dump(),
        "use": config.search.use,
        "protocol": leaderboard.protocol_of(config),
        "blocks": None if blocks is None else blocks.fingerprint,
        "seed": config.seed,
        "threads": config.threads,
        "fields": described.fields,  # a fresh vector depends on its field's name
        "tasks": described.tasks,
        "distilled": artifact.checksums(distilled),
        "ranking": artifact.ranking_checksum(distilled),
        **runtime.numerics(),
    }
    if blocks is not None:
        # a co-training's seeds stand in its protocol
        made_from |= {"reference": described.reference, "seeds": config.evaluation.seeds}
    return {_key({**made_from, "candidate": space.identity(c, SPACE)}): c for c in candidates}


def _key(made_from: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()


def trial_uri(config: RunConfig, key: str) -> str:
    """Where a trial's outcome lies."""
    return config.place("search", "trials", f"{key[:32]}.json")


def read_trials(config: RunConfig, keys: Mapping[str, NetworkConfig]) -> dict[str, Outcome]:
    """Outcomes of those trials that ended well."""
    found = {}
    for key in keys:
        uri = trial_uri(config, key)
        if storage.exists(uri):
            found[key] = Outcome.from_json(storage.read_json(uri)["outcome"])
    return found


def run_trials(
    config: RunConfig, shared: SharedData, waiting: Mapping[str, NetworkConfig], total: int
) -> dict[str, Outcome]:
    """Run trials with Ray Tune; each outcome is kept as soon as it is known."""
    for name, value in TUNE_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    scratch = config.place("search", "ray_tune")
    trials = [{"key": key, "network": n.model_dump()} for key, n in waiting.items()]
    with progress.phase("Sweep over the distilled set", total, "trials") as phase:
        phase.skip(total - len(waiting))
        keeper = Keeper(config, phase)
        tuner = tune.Tuner(
            tune.with_resources(
                tune.with_parameters(run_trial, shared=shared), {"cpu": config.threads}
            ),
            param_space={"trial": tune.grid_search(trials)},
            tune_config=tune.TuneConfig(
                max_concurrent_trials=config.resources.evaluation_tasks, reuse_actors=True
            ),
            run_config=tune.RunConfig(
                name="sweep",
                storage_path=storage.absolute(scratch),
                failure_config=tune.FailureConfig(max_failures=LOST_WORKERS),
                callbacks=[keeper],
                verbose=0,
            ),
        )
        try:
            results = tuner.fit()
        finally:
            storage.remove(scratch)
    # Tune keeps the order of the grid; a lost trial's result may not even know its parameters.
    for key, result in zip(waiting, results, strict=True):
        if key not in keeper.outcomes:
            keeper.outcomes[key] = Outcome(error=one_line(result.error))
    return keeper.outcomes


class Keeper(tune.Callback):
    """Keeps the outcome of every trial that ends, and counts it."""

    def __init__(self, config: RunConfig, phase: progress.Phase) -> None:
        self.config, self.phase = config, phase
        self.outcomes: dict[str, Outcome] = {}

    def on_trial_complete(self, *, trial: Any, **_: Any) -> None:
        told, outcome = trial.config["trial"], trial.last_result["outcome"]
        self.outcomes[told["key"]] = Outcome.from_json(outcome)
        if outcome["error"] is None:
            storage.write_json(
                trial_uri(self.config, told["key"]),
                {"key": told["key"], "network": told["network"], "outcome": outcome},
            )
        self.phase.advance()

    def on_trial_error(self, **_: Any) -> None:
        self.phase.advance()


def _say(uri: str, lines: list[Line]) -> None:
    progress.logger.info(
        "Candidates trained on the distilled set, judged on the validation block, mean over tasks "
        "and seeds; the test block was not used:\n%s",
        leaderboard.render(lines),
    )
    progress.logger.info("Leaderboard: %s", uri)
    failed = [line for line in lines if line.error is not None]
    if len(failed) == len(lines):
        raise SearchError(f"all {len(lines)} trials failed; the first: {failed[0].error}")
    if failed:
        progress.logger.info("%d of %d trials failed", len(failed), len(lines))
