"""Which candidate comes next: from a list, or by Optuna's TPE from the scores so far.

Protocol: `next` gives a candidate, or None when there is no other; `tell` says what became of it,
its score (higher is better) or None where it has none. The one who asks takes care that no
candidate is trained twice, and tells the score that is known where one comes again.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, Protocol

import optuna

from diet_ray.config import ConfigError, RunConfig
from diet_ray.config.space import OptionConfig, options_of
from diet_ray.models import space
from diet_ray.models.candidate import Candidate
from diet_ray.progress import logger
from diet_ray.seeds import derive

SPACE = "search.space"

FIRST_AT_RANDOM = 10
"""Candidates that TPE draws at random before it believes in scores."""


class Proposals(Protocol):
    """See the module."""

    def belongs(self, candidate: Candidate) -> bool:
        """Whether it could be proposed."""

    def recall(self, candidate: Candidate, score: float | None) -> None:
        """What an earlier start of the sweep found; `candidate` belongs."""

    def next(self) -> Candidate | None:
        """See the module."""

    def tell(self, candidate: Candidate, score: float | None) -> None:
        """Of a candidate that `next` gave."""


def listed(config: RunConfig) -> list[Candidate]:
    """The candidates that do not depend on scores. Raises ConfigError, also for a bad space."""
    search = config.search
    if search.algorithm == "grid":
        return space.grid(search.space, SPACE)[: search.trials]
    if search.algorithm == "random":
        return space.draw(search.space, search.trials, config.seed, SPACE)
    space.check(search.space, SPACE)
    return []


def proposals(config: RunConfig) -> Proposals:
    """As `search.algorithm` says. Raises ConfigError for a bad space."""
    found = listed(config)
    return Guided(config) if config.search.algorithm == "tpe" else Listed(found)


class Listed:
    """A list that scores do not change."""

    def __init__(self, candidates: Sequence[Candidate]) -> None:
        self._left = iter(candidates)
        self._identities = {candidate.identity() for candidate in candidates}

    def belongs(self, candidate: Candidate) -> bool:
        return candidate.identity() in self._identities

    def recall(self, candidate: Candidate, score: float | None) -> None:
        """Changes nothing."""

    def next(self) -> Candidate | None:
        return next(self._left, None)

    def tell(self, candidate: Candidate, score: float | None) -> None:
        """Changes nothing."""


class Guided:
    """Optuna's TPE over networks, hyper-parameters and their conditions.

    Which candidate it proposes depends on the scores that are there by then, hence on how trials
    overlapped: unlike a list it is no function of the seed alone, unless trials run one by one.
    """

    def __init__(self, config: RunConfig) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
        self._networks = options_of(config.search.space)
        sampler = optuna.samplers.TPESampler(
            n_startup_trials=FIRST_AT_RANDOM,
            group=True,
            multivariate=True,
            constant_liar=True,
            seed=derive(config.seed, "tpe") % 2**32,
        )
        self._study = optuna.create_study(direction="maximize", sampler=sampler)
        self._asked: dict[str, list[optuna.Trial]] = {}

    def belongs(self, candidate: Candidate) -> bool:
        options = self._networks.get(candidate.network.name)
        return options is not None and all(
            name in options and _holds(options[name], value)
            for name, value in candidate.values.items()
        )

    def recall(self, candidate: Candidate, score: float | None) -> None:
        name, options = candidate.network.name, self._networks[candidate.network.name]
        told = {f"{name}.{k}": _place(options[k], v) for k, v in candidate.values.items()}
        self._study.enqueue_trial({"network": name, **told})
        proposed = self.next()
        if proposed is not None:
            self.tell(proposed, score)

    def next(self) -> Candidate | None:
        for _ in range(space.TRIES):
            trial = self._study.ask()
            try:
                found = self._suggested(trial)
            except ConfigError as error:  # values that are valid, but not together
                logger.debug("not a candidate: %s", error)
                self._study.tell(trial, state=optuna.trial.TrialState.FAIL)
                continue
            self._asked.setdefault(found.identity(), []).append(trial)
            return found
        return None

    def tell(self, candidate: Candidate, score: float | None) -> None:
        trial = self._asked[candidate.identity()].pop()
        if score is None:
            self._study.tell(trial, state=optuna.trial.TrialState.FAIL)
        else:
            self._study.tell(trial, score)

    def _suggested(self, trial: optuna.Trial) -> Candidate:
        name = str(trial.suggest_categorical("network", list(self._networks)))
        values: dict[str, Any] = {}
        for parameter, option in self._networks[name].items():
            if option.holds(values):
                values[parameter] = _suggest(trial, f"{name}.{parameter}", option)
        return space.candidate(name, values, f"{SPACE}.{name}")


def _suggest(trial: optuna.Trial, name: str, option: OptionConfig) -> Any:
    if option.choice is not None:
        return option.choice[trial.suggest_categorical(name, range(len(option.choice)))]
    if option.integer is not None:
        return trial.suggest_int(name, *option.integer, log=option.log)
    low, high = option.bounds
    return trial.suggest_float(name, low, high, log=option.log)


def _place(option: OptionConfig, value: Any) -> Any:
    """A choice is known to the study by its number: lists are no values of Optuna's."""
    return value if option.choice is None else option.choice.index(value)


def _holds(option: OptionConfig, value: Any) -> bool:
    if option.choice is not None:
        return value in option.choice
    low, high = option.bounds
    return not isinstance(value, list | str) and low <= value <= high
