"""One trial: one candidate, trained on the set by every seed, judged on the validation block."""

from __future__ import annotations

import time
import warnings
from dataclasses import asdict, dataclass, replace
from typing import Any

from ray import tune

from diet_ray import runtime
from diet_ray.config import NetworkConfig, Score
from diet_ray.evaluation.shared import warm_up_rows
from diet_ray.models.registry import fresh_network
from diet_ray.search.shared import CoTrained, Inherited, SharedData
from diet_ray.seeds import derive
from diet_ray.training.candidate import best_epoch, warm_up
from diet_ray.training.cotrain import co_trained
from diet_ray.training.metrics import Metrics, measure, taught_auc
from diet_ray.training.model import predict


@dataclass(frozen=True)
class Outcome:
    """What a trial found out, on the rows that judge."""

    epochs: tuple[tuple[Metrics, ...], ...] = ()  # by seed, after each epoch of a warm-up, or once
    kept: tuple[int, ...] = ()  # by seed, the one that counts, from 1
    taught_auc: tuple[float, ...] = ()  # by seed, against the reference's labels; of co-trainings
    dense_parameters: int | None = None
    trained_rows: int = 0  # visited by all seeds that are done
    flop: float | None = None  # of a row's way forward through the dense network
    seconds: float = 0.0
    error: str | None = None

    @property
    def judged(self) -> list[Metrics]:
        """By seed, after the epoch that counts."""
        return [epochs[kept - 1] for epochs, kept in zip(self.epochs, self.kept, strict=True)]

    def scores(self, score: Score) -> list[float]:
        """By seed, higher is better."""
        if score == "taught":
            return list(self.taught_auc)
        return [metrics.auc if score == "auc" else -metrics.logloss for metrics in self.judged]

    @staticmethod
    def from_json(content: dict[str, Any]) -> Outcome:
        """The inverse of ``dataclasses.asdict``."""
        epochs = tuple(tuple(Metrics(**m) for m in seed) for seed in content["epochs"])
        plain = {name: tuple(content[name]) for name in ("kept", "taught_auc")}
        return Outcome(**{**content, **plain, "epochs": epochs})


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
    """Train fresh candidates, one per seed, as the sweep's use of the set says.

    Seeds are those of the first cells of `evaluation`, so both see the same candidates.
    """
    runtime.use_device(0, shared.threads)
    started = time.monotonic()
    with warnings.catch_warnings():
        # Torch warns of memory that it must not write to; nothing here writes.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        if isinstance(shared.data, CoTrained):
            outcome = _co_train(network, shared, shared.data)
        else:
            outcome = _warm_up(network, shared, shared.data)
    return replace(outcome, seconds=round(time.monotonic() - started, 2))


def _co_train(network: NetworkConfig, shared: SharedData, data: CoTrained) -> Outcome:
    sizes = dict(zip(shared.fields, data.rows.sizes, strict=True))
    models, _ = co_trained(
        network,
        shared.models,
        data.rows.soft_rows(),
        sizes,
        len(shared.tasks),
        data.protocol,
        shared.seed,
    )
    (asked,) = data.rows.asked
    logits = [predict(model, asked) for model in models]
    return Outcome(
        epochs=tuple((measure(mine, data.judged.labels, shared.tasks),) for mine in logits),
        kept=(1,) * len(models),
        taught_auc=tuple(taught_auc(mine, data.taught) for mine in logits),
        dense_parameters=models[0].dense.parameter_count,
    )


def _warm_up(network: NetworkConfig, shared: SharedData, data: Inherited) -> Outcome:
    fields, tasks = len(shared.fields), len(shared.tasks)
    found = []
    for seed in range(shared.seeds):
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
        found.append(tuple(epochs))
    kept = tuple(best_epoch([metrics.auc for metrics in epochs]) for epochs in found)
    return Outcome(tuple(found), kept, dense_parameters=dense.parameter_count)
