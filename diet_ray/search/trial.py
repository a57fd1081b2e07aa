"""One trial: one candidate, trained on the set seed by seed, judged on the validation block.

A trial tells what it found in *rounds*: a co-training's round is a seed, a warm-up's is an epoch
of one of its seeds. After a round the score is that of all seeds so far, so that a scheduler can
compare candidates at the same round and stop the worse. Without one, all seeds of a co-training
are one round after another's end: they train side by side, which is cheaper. Between rounds a
co-training tells its loss after every pass over the rows.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import mean
from typing import Any

import torch
from ray import tune

from diet_ray import devices
from diet_ray.config import Score
from diet_ray.evaluation.shared import warm_up_rows
from diet_ray.models.candidate import Candidate
from diet_ray.models.flop import forward_flop
from diet_ray.models.registry import DenseNetwork, fresh_network
from diet_ray.search.shared import CoTrained, Inherited, SharedData
from diet_ray.seeds import derive
from diet_ray.training.candidate import best_epoch, warm_up
from diet_ray.training.cotrain import co_trained
from diet_ray.training.metrics import Metrics, measure, taught_auc
from diet_ray.training.model import predict

FIRST_SEED = 1_000_000
"""Of trials; those of `evaluation` count from 0, those of a benchmark's arms from 500,000."""


@dataclass(frozen=True)
class Outcome:
    """What a trial found out, on the rows that judge; of one under way, so far."""

    epochs: tuple[tuple[Metrics, ...], ...] = ()  # by seed, after each epoch of a warm-up, or once
    kept: tuple[int, ...] = ()  # by seed, the one that counts, from 1
    taught_auc: tuple[float, ...] = ()  # by seed, against the reference's labels; of co-trainings
    dense_parameters: int | None = None
    trained_rows: int = 0  # visited by all seeds that are done
    flop: float | None = None  # of a row's way forward through the dense network
    seconds: float = 0.0
    rounds: int = 0
    stopped: bool = False  # before its last round
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

    def score(self, score: Score) -> float | None:
        """The mean over seeds; None for a failed trial."""
        return mean(self.scores(score)) if self.error is None else None

    def until(self, rounds: int) -> Outcome:
        """As it was told after its first rounds."""
        if self.taught_auc:
            first = {k: getattr(self, k)[:rounds] for k in ("epochs", "kept", "taught_auc")}
            return replace(self, rounds=rounds, **first)
        left, epochs = rounds, []
        for of_seed in self.epochs:
            epochs.append(of_seed[:left])
            left -= len(epochs[-1])
        return replace(self, rounds=rounds, **_warmed_up([found for found in epochs if found]))

    @staticmethod
    def from_json(content: dict[str, Any]) -> Outcome:
        """The inverse of ``dataclasses.asdict``."""
        epochs = tuple(tuple(Metrics(**m) for m in seed) for seed in content["epochs"])
        plain = {name: tuple(content[name]) for name in ("kept", "taught_auc")}
        return Outcome(**{**content, **plain, "epochs": epochs})


Tell = Callable[[Outcome], None]
"""Takes the outcome so far, after a round."""

Report = Callable[[dict[str, Any]], None]
"""Takes what there is to report between rounds."""


def run_trial(variant: dict[str, Any], shared: SharedData) -> None:
    """What Ray Tune runs: it reports every round with the outcome so far, the last one whole.

    A scheduler stops a trial at a report, so what is reported must be all that is kept of it.
    """

    def tell(outcome: Outcome) -> None:
        told: dict[str, Any] = {"outcome": asdict(outcome)}
        if outcome.error is None:
            told |= {"round": outcome.rounds, "score": outcome.score(shared.score)}
            told |= {
                f"validation_{name}": mean(getattr(metrics, name) for metrics in outcome.judged)
                for name in ("auc", "logloss")
            }
        tune.report(told)

    attempt(Candidate.from_json(variant["trial"]["candidate"]), shared, tell, tune.report)


def attempt(candidate: Candidate, shared: SharedData, tell: Tell, report: Report) -> None:
    """Judge; an error of the candidate's own is an outcome too: Tune shall not try it again."""
    try:
        judge_candidate(candidate, shared, tell, report)
    except Exception as error:
        tell(Outcome(error=one_line(error)))


def one_line(error: Exception | None) -> str:
    """An error's kind and message, as a line of a table."""
    return " ".join(f"{type(error).__name__}: {error}".split()) if error else "did not finish"


def judge_candidate(candidate: Candidate, shared: SharedData, tell: Tell, report: Report) -> None:
    """Train by the sweep's use of the set, and tell the outcome after every round.

    Seeds count from FIRST_SEED: no training that `--verify` compares with shares one.
    """
    device = devices.use_device(shared.gpus, shared.threads)
    started = time.monotonic()

    def timed(outcome: Outcome) -> None:
        spent = round(time.monotonic() - started, 2)
        tell(replace(outcome, seconds=spent, stopped=outcome.rounds < shared.rounds))

    with warnings.catch_warnings():
        # Torch warns of memory that it must not write to; nothing here writes.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        if isinstance(shared.data, CoTrained):
            _co_train(candidate, shared, shared.data, device, timed, report)
        else:
            _warm_up(candidate, shared, shared.data, device, timed)


def _co_train(
    candidate: Candidate,
    shared: SharedData,
    data: CoTrained,
    device: torch.device,
    tell: Tell,
    report: Report,
) -> None:
    sizes = dict(zip(shared.fields, data.rows.sizes, strict=True))
    protocol = data.protocol
    if candidate.learning_rate is not None:
        protocol = protocol.model_copy(update={"learning_rate": candidate.learning_rate})
    (asked,) = data.rows.asked
    epochs: tuple[tuple[Metrics, ...], ...] = ()
    taught: tuple[float, ...] = ()
    flop = _flop(candidate, shared)
    for seeds in shared.groups:
        models, _ = co_trained(
            candidate.network,
            candidate.models(shared.models),
            data.rows.soft_rows().to(device),
            sizes,
            len(shared.tasks),
            protocol.model_copy(update={"seeds": seeds}),
            shared.seed,
            first=FIRST_SEED + len(epochs),
            after_batch=_Passes(len(data.rows.ids), report),
        )
        logits = [predict(model, asked) for model in models]
        epochs += tuple((measure(mine, data.judged.labels, shared.tasks),) for mine in logits)
        taught += tuple(taught_auc(mine, data.taught) for mine in logits)
        tell(
            Outcome(
                epochs,
                kept=(1,) * len(epochs),
                taught_auc=taught,
                dense_parameters=models[0].dense.parameter_count,
                flop=flop,
                trained_rows=len(epochs) * protocol.steps * protocol.batch_size,
                rounds=len(epochs),
            )
        )


def _flop(candidate: Candidate, shared: SharedData) -> float | None:
    models = candidate.models(shared.models)
    dense = DenseNetwork(candidate.network, models, len(shared.fields), len(shared.tasks))
    found = forward_flop(dense, len(shared.fields), models.embedding_dim)
    return None if math.isnan(found) else found


class _Passes:
    """Reports the mean loss of every whole pass over the rows, by the models together."""

    def __init__(self, rows: int, report: Report) -> None:
        self.rows, self.report = rows, report
        self.passes, self.seen, self.loss_sum = 0, 0, 0.0

    def __call__(self, rows: int, loss: float) -> None:
        self.seen += rows
        self.loss_sum += rows * loss
        if self.seen >= self.rows:
            self.passes += 1
            self.report({"pass": self.passes, "loss": self.loss_sum / self.seen})
            self.seen, self.loss_sum = 0, 0.0


def _warmed_up(epochs: Sequence[Sequence[Metrics]]) -> dict[str, Any]:
    """Of an outcome: metrics by seed and epoch, and the epochs that count."""
    kept = tuple(best_epoch([metrics.auc for metrics in found]) for found in epochs)
    return {"epochs": tuple(map(tuple, epochs)), "kept": kept}


def _warm_up(
    candidate: Candidate,
    shared: SharedData,
    data: Inherited,
    device: torch.device,
    tell: Tell,
) -> None:
    fields, tasks, protocol = len(shared.fields), len(shared.tasks), data.protocol
    if candidate.learning_rate is not None:
        protocol = protocol.model_copy(update={"warm_up_learning_rate": candidate.learning_rate})
    done: list[list[Metrics]] = []
    flop = _flop(candidate, shared)
    for seed in range(FIRST_SEED, FIRST_SEED + shared.seeds):
        dense = fresh_network(
            candidate.network, shared.models, fields, tasks, shared.seed, "candidate", seed
        ).to(device)

        def after_epoch(epochs: list[Metrics], parameters: int = dense.parameter_count) -> None:
            so_far = [*done, epochs]
            rounds = sum(map(len, so_far))
            tell(
                Outcome(
                    **_warmed_up(so_far),
                    dense_parameters=parameters,
                    flop=flop,
                    trained_rows=rounds * len(data.rows),
                    rounds=rounds,
                )
            )

        table = data.reference.frozen()
        rows = warm_up_rows(data.rows, table).to(device)
        epochs = warm_up(
            dense,
            table.to(device),
            rows,
            data.validation,
            shared.tasks,
            protocol,
            derive(shared.seed, "candidate warm-up", seed),
            after_epoch,
        )
        done.append(epochs)
