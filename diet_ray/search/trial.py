"""One trial: one candidate, trained on the set by every seed, judged on the validation block."""

from __future__ import annotations

import time
import warnings
from dataclasses import asdict, dataclass
from typing import Any

from ray import tune

from diet_ray import runtime
from diet_ray.config import NetworkConfig
from diet_ray.evaluation.shared import warm_up_rows
from diet_ray.models.registry import fresh_network
from diet_ray.search.shared import CoTrained, Inherited, SharedData
from diet_ray.seeds import derive
from diet_ray.training.candidate import best_epoch, warm_up
from diet_ray.training.cotrain import Ranking, co_train, fresh_candidate
from diet_ray.training.metrics import Metrics


@dataclass(frozen=True)
class Outcome:
    """What a trial found out, on the rows that judge."""

    epochs: tuple[tuple[Metrics, ...], ...] = ()  # by seed, after each epoch or pass
    kept: tuple[int, ...] = ()  # by seed, the one that counts, from 1
    dense_parameters: int | None = None
    seconds: float = 0.0
    error: str | None = None

    @property
    def judged(self) -> list[Metrics]:
        """By seed, after the epoch that counts."""
        return [epochs[kept - 1] for epochs, kept in zip(self.epochs, self.kept, strict=True)]

    @staticmethod
    def from_json(content: dict[str, Any]) -> Outcome:
        """The inverse of ``dataclasses.asdict``."""
        epochs = tuple(tuple(Metrics(**m) for m in seed) for seed in content["epochs"])
        return Outcome(**{**content, "epochs": epochs, "kept": tuple(content["kept"])})


def run_trial(variant: dict[str, Any], shared: SharedData) -> None:
    """What Ray Tune runs: report every epoch, and at last the whole outcome."""
    outcome = attempt(NetworkConfig(**variant["trial"]["network"]), shared)
    for seed, epochs in enumerate(outcome.epochs):
        for epoch, metrics in enumerate(epochs, start=1):
            told = {"validation_auc": metrics.auc, "validation_logloss": metrics.logloss}
            tune.report({"seed": seed, "epoch": epoch, **told})
    tune.report({"outcome": asdict(outcome)})


def attempt(network: NetworkConfig, shared: SharedData) -> Outcome:
    """The candidate's outcome; an error of its own is one too, so that Tune does not try again."""
    try:
        return judge_candidate(network, shared)
    except Exception as error:
        return Outcome(error=one_line(error))


def one_line(error: Exception | None) -> str:
    """An error's kind and message, as a line of a table."""
    return " ".join(f"{type(error).__name__}: {error}".split()) if error else "did not finish"


def judge_candidate(network: NetworkConfig, shared: SharedData) -> Outcome:
    """Train a fresh candidate once per seed, as the sweep's use of the set says.

    Seeds are those of the first cells of `evaluation`, so both see the same candidates.
    """
    runtime.use_device(0, shared.threads)
    started = time.monotonic()
    found, kept = [], []
    with warnings.catch_warnings():
        # Torch warns of memory that it must not write to; nothing here writes.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        for seed in range(shared.seeds):
            if isinstance(shared.data, CoTrained):
                ranking = _co_train(network, shared, shared.data, seed)
                epochs, parameters = ranking.passes, ranking.dense_parameters
                kept.append(len(epochs))
            else:
                epochs, parameters = _warm_up(network, shared, shared.data, seed)
                kept.append(best_epoch([metrics.auc for metrics in epochs]))
            found.append(tuple(epochs))
    seconds = round(time.monotonic() - started, 2)
    return Outcome(tuple(found), tuple(kept), parameters, seconds)


def _co_train(network: NetworkConfig, shared: SharedData, data: CoTrained, seed: int) -> Ranking:
    sizes = dict(zip(shared.fields, data.rows.sizes, strict=True))
    model = fresh_candidate(network, shared.models, sizes, len(shared.tasks), shared.seed, seed)
    order = derive(shared.seed, "candidate co-training", seed)
    (judged,) = data.rows.judged
    return co_train(model, data.rows.soft_rows(), judged, shared.tasks, data.protocol, order)


def _warm_up(
    network: NetworkConfig, shared: SharedData, data: Inherited, seed: int
) -> tuple[list[Metrics], int]:
    """Metrics of every epoch, and the number of dense parameters."""
    fields, tasks = len(shared.fields), len(shared.tasks)
    dense = fresh_network(network, shared.models, fields, tasks, shared.seed, "candidate", seed)
    epochs = warm_up(
        dense,
        data.reference.frozen(),
        warm_up_rows(data.rows),
        data.validation,
        shared.tasks,
        data.protocol,
        derive(shared.seed, "candidate warm-up", seed),
    )
    return epochs, dense.parameter_count
