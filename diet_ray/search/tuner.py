"""Trials with Ray Tune: who asks for candidates, who keeps what they tell, who stops them early.

Tune decides what runs where, with as many trials side by side as the cluster has CPUs (and GPUs)
for, restarts those whose worker was lost, and stops the worse with its own schedulers. Its folder
is scratch, and removed at the end; what lasts is kept by `kept.py`. A scheduler of a sweep that
goes on is told first what the trials of earlier starts reported.
"""

from __future__ import annotations

import os
import time
from itertools import accumulate
from typing import Any

import ray
from ray import tune
from ray.tune.schedulers import (
    AsyncHyperBandScheduler,
    FIFOScheduler,
    MedianStoppingRule,
    TrialScheduler,
)
from ray.tune.search import Searcher

from diet_ray import progress, storage
from diet_ray.config import RunConfig, SearchConfig
from diet_ray.models.candidate import Candidate
from diet_ray.models.space import TRIES
from diet_ray.search.kept import Found, Trials
from diet_ray.search.proposals import Proposals
from diet_ray.search.shared import SharedData, doubling
from diet_ray.search.trial import Outcome, one_line, run_trial
from diet_ray.search.watched import callbacks

LOST_WORKERS = 3
"""How often a trial is started again after its worker was lost."""

TUNE_ENVIRONMENT = {
    # Else an interrupt would end in a leaderboard of the trials that were done by then.
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    # Its loggers write into each trial's scratch folder; `watched.py` has those that last.
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    # A report between rounds has no score.
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    # Phases report progress and the leaderboard is ours; verbose=0 alone still prints a table.
    "RAY_AIR_NEW_OUTPUT": "0",
}


def run_trials(
    config: RunConfig,
    shared: SharedData,
    trials: Trials,
    proposals: Proposals,
    known: Found,
    full_rows: int | None,
) -> Found:
    """Run trials until the proposals, their number or the budget end; returns `known` and theirs.

    full_rows: of one full training, which `search.budget.cost` counts in.
    """
    for name, value in TUNE_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    # A process is kept for another trial only if one waits: else each costs the start of a process.
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(side_by_side(config))
    scratch = config.place("search", "ray_tune")
    with progress.phase(
        "Sweep over the distilled set", config.search.trials, "trials", long=True
    ) as phase:
        phase.skip(len(known))
        budget = float("inf")
        if config.search.budget.cost is not None and full_rows is not None:
            budget = config.search.budget.cost * full_rows
        asker = Asker(config.search, trials, proposals, known, budget, shared.trial_rows)
        keeper = Keeper(trials, asker, phase)
        tuner = tune.Tuner(
            tune.with_resources(
                tune.with_parameters(run_trial, shared=shared),
                {"cpu": config.threads, "gpu": config.resources.trial_gpus},
            ),
            tune_config=tune.TuneConfig(
                search_alg=asker,
                scheduler=scheduler(config, shared.rounds, known),
                num_samples=-1,  # until the asker has no more
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                name="sweep",
                **storage.known_to_ray(scratch),
                failure_config=tune.FailureConfig(max_failures=LOST_WORKERS),
                callbacks=[keeper, *callbacks(config)],
                verbose=0,
            ),
        )
        try:
            tuner.fit()
            keeper.tell_errors()
        finally:
            storage.remove(scratch)
    return asker.found


def side_by_side(config: RunConfig) -> int:
    """Trials that the cluster, as it is now, has room for."""
    here, gpus = ray.cluster_resources(), config.resources.trial_gpus
    room = here.get("CPU", 1) / config.threads
    return max(int(min(room, here.get("GPU", 0) / gpus) if gpus else room), 1)


class Asker(Searcher):
    """Asks for the next candidate that is not known yet, within trials and budget."""

    def __init__(
        self,
        search: SearchConfig,
        trials: Trials,
        proposals: Proposals,
        known: Found,
        budget_rows: float,
        trial_rows: int,
    ) -> None:
        """budget_rows: that all trials together may train; trial_rows: that one may."""
        super().__init__(metric="score", mode="max")
        self.search, self.trials, self.proposals = search, trials, proposals
        self.found: Found = dict(known)
        self.running: dict[str, tuple[str, Candidate]] = {}  # by Tune's name of the trial
        self.budget_rows, self.trial_rows = budget_rows, trial_rows
        self.started = time.monotonic()

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        for _ in range(TRIES):
            if self._enough():
                break
            if self._spent() + len(self.running) * self.trial_rows >= self.budget_rows:
                return None  # unless those under way are stopped early, they take what is left
            candidate = self.proposals.next()
            if candidate is None:
                break
            key = self.trials.key(candidate)
            if key in self.found:
                known = self.found[key][1]
                self.proposals.tell(candidate, known.score(self.search.ranked_by))
            elif key in (other for other, _ in self.running.values()):
                self.proposals.tell(candidate, None)
            else:
                self.running[trial_id] = key, candidate
                return {"trial": {"key": key, "candidate": candidate.as_json()}}
        return str(Searcher.FINISHED)

    def _enough(self) -> bool:
        seconds = time.monotonic() - self.started
        return (
            len(self.found) + len(self.running) >= self.search.trials
            or seconds > (self.search.budget.seconds or float("inf"))
            or self._spent() >= self.budget_rows
        )

    def _spent(self) -> int:
        return sum(outcome.trained_rows for _, outcome in self.found.values())

    def ended(self, trial_id: str, outcome: Outcome) -> tuple[str, Candidate]:
        """A trial is over; returns its key and candidate."""
        key, candidate = self.running.pop(trial_id)
        self.found[key] = candidate, outcome
        self.proposals.tell(candidate, outcome.score(self.search.ranked_by))
        return key, candidate

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """The keeper says so, which knows the error too."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the kept outcomes are all that a sweep needs to go on."""

    def restore(self, checkpoint_path: str) -> None:
        """See `save`."""


class Keeper(tune.Callback):
    """Keeps the outcome of every trial that ends, and counts it."""

    def __init__(self, trials: Trials, asker: Asker, phase: progress.Phase) -> None:
        self.trials, self.asker, self.phase = trials, asker, phase
        self.lost: dict[str, Any] = {}  # by key, Tune's trial

    def on_trial_complete(self, *, trial: Any, **_: Any) -> None:
        outcome = Outcome.from_json(trial.last_result["outcome"])
        key, candidate = self.asker.ended(trial.trial_id, outcome)
        if outcome.error is None:
            self.trials.keep(key, candidate, outcome)
        self.phase.advance()

    def on_trial_error(self, *, trial: Any, **_: Any) -> None:
        key, _candidate = self.asker.ended(trial.trial_id, Outcome(error=one_line(None)))
        self.lost[key] = trial
        self.phase.advance()

    def tell_errors(self) -> None:
        """At the end, when Tune has written down why trials were lost."""
        for key, trial in self.lost.items():
            outcome = Outcome(error=one_line(trial.get_pickled_error() or trial.get_error()))
            self.asker.found[key] = self.asker.found[key][0], outcome


def scheduler(config: RunConfig, rounds: int, known: Found) -> TrialScheduler:
    """As `search.stop` says, having seen what the known outcomes reported at their rounds."""
    kinds: dict[str, Any] = {
        "asha": lambda: AsyncHyperBandScheduler(
            time_attr="round", max_t=rounds, grace_period=1, reduction_factor=2
        ),
        # It would else pause trials, which without a checkpoint start anew.
        "median": lambda: MedianStoppingRule(
            time_attr="round", grace_period=1, min_samples_required=4, min_time_slice=float("inf")
        ),
    }
    if config.search.stop == "none":
        return FIFOScheduler()
    made: TrialScheduler = kinds[config.search.stop]()
    made.set_search_properties("score", "max")
    for key, (_, outcome) in known.items():
        _recall(made, key, outcome, config)
    return made


class _Known:
    """Of a trial, what schedulers ask for."""

    def __init__(self, trial_id: str) -> None:
        self.trial_id = trial_id


def _recall(made: TrialScheduler, key: str, outcome: Outcome, config: RunConfig) -> None:
    trial: Any = _Known(key)
    made.on_trial_add(None, trial)
    told: dict[str, Any] = {}
    ends = (
        accumulate(doubling(outcome.rounds)) if outcome.taught_auc else range(1, outcome.rounds + 1)
    )
    for number in ends:
        score = outcome.until(number).score(config.search.ranked_by)
        told = {"round": number, "score": score}
        if made.on_trial_result(None, trial, told) == TrialScheduler.STOP:
            break
    if told:
        made.on_trial_complete(None, trial, told)
