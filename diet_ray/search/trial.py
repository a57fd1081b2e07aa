"""One trial: one candidate, trained on the distilled set, judged on the validation block."""

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
from diet_ray.search.shared import SharedData
from diet_ray.seeds import derive
from diet_ray.training.candidate import best_epoch, warm_up
from diet_ray.training.metrics import Metrics


@dataclass(frozen=True)
class Outcome:
    """What a trial found out, on the validation block."""

    epochs: tuple[Metrics, ...] = ()
    dense_parameters: int | None = None
    seconds: float = 0.0
    error: str | None = None

    @property
    def best_epoch(self) -> int:
        """The epoch that counts, from 1: the highest AUC, as in a warm-up."""
        return best_epoch([metrics.auc for metrics in self.epochs])

    @property
    def best(self) -> Metrics:
        """Metrics after that epoch."""
        return self.epochs[self.best_epoch - 1]

    @staticmethod
    def from_json(content: dict[str, Any]) -> Outcome:
        """The inverse of ``dataclasses.asdict``."""
        epochs = tuple(Metrics(**metrics) for metrics in content["epochs"])
        return Outcome(**{**content, "epochs": epochs})


def run_trial(variant: dict[str, Any], shared: SharedData) -> None:
    """What Ray Tune runs: report every epoch, and at last the whole outcome."""
    outcome = attempt(NetworkConfig(**variant["trial"]["network"]), shared)
    for epoch, metrics in enumerate(outcome.epochs, start=1):
        tune.report(
            {"epoch": epoch, "validation_auc": metrics.auc, "validation_logloss": metrics.logloss}
        )
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
    """Warm a fresh candidate up on the distilled set, on phi_T's tables.

    Seeds are those of the first cell of `evaluation`, so both see the same candidate.
    """
    runtime.use_device(0, shared.threads)
    started = time.monotonic()
    fields, tasks = len(shared.reference.vocabulary_sizes), len(shared.tasks)
    dense = fresh_network(network, shared.models, fields, tasks, shared.seed, "candidate", 0)
    with warnings.catch_warnings():
        # Torch warns of memory that it must not write to; nothing here writes.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        epochs = warm_up(
            dense,
            shared.reference.frozen(),
            warm_up_rows(shared.rows),
            shared.validation,
            shared.tasks,
            shared.protocol,
            derive(shared.seed, "candidate warm-up", 0),
        )
    seconds = round(time.monotonic() - started, 2)
    return Outcome(tuple(epochs), dense.parameter_count, seconds)
