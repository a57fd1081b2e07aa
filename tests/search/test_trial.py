"""What a trial found out: what counts of it, and that a file can hold it."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import pytest

from diet_ray.search.trial import Outcome
from diet_ray.training.metrics import Metrics


def made_metrics(auc: float, logloss: float = 0.5) -> Metrics:
    return Metrics(auc, logloss, {"task_0": auc}, {"task_0": logloss})


def warmed_up() -> Outcome:
    """Of two seeds, three epochs each."""
    aucs = (0.6, 0.7, 0.65), (0.5, 0.55, 0.8)
    epochs = tuple(tuple(made_metrics(auc, 1.2 - auc) for auc in seed) for seed in aucs)
    return Outcome(epochs, (2, 3), dense_parameters=12, trained_rows=80, flop=9.0, seconds=0.5)


def co_trained() -> Outcome:
    """Of two seeds, which are judged once."""
    epochs = (made_metrics(0.6, 0.4),), (made_metrics(0.7, 0.3),)
    return Outcome(epochs, (1, 1), (0.81, 0.82), 12, 80, 9.0, 0.5)


def test_a_candidate_is_judged_by_the_epochs_that_count() -> None:
    assert [metrics.auc for metrics in warmed_up().judged] == [0.7, 0.8]


def test_a_score_is_of_every_seed_and_higher_is_better() -> None:
    assert warmed_up().scores("auc") == [0.7, 0.8]
    assert warmed_up().scores("logloss") == pytest.approx([-0.5, -0.4])
    assert co_trained().scores("auc") == [0.6, 0.7]
    assert co_trained().scores("logloss") == [-0.4, -0.3]
    assert co_trained().scores("taught") == [0.81, 0.82]


@pytest.mark.parametrize("outcome", [warmed_up(), co_trained(), Outcome(error="it broke")])
def test_outcomes_survive_json(outcome: Outcome) -> None:
    assert Outcome.from_json(json.loads(json.dumps(asdict(outcome)))) == outcome


def test_an_outcome_can_be_cut_to_its_first_rounds() -> None:
    whole = replace(warmed_up(), rounds=6)
    for rounds, kept, aucs in ((1, (1,), [0.6]), (3, (2,), [0.7]), (4, (2, 1), [0.7, 0.5])):
        cut = whole.until(rounds)
        assert (cut.rounds, cut.kept) == (rounds, kept)
        assert cut.scores("auc") == aucs
    assert whole.until(6) == whole
    first = replace(co_trained(), rounds=2).until(1)
    assert (first.scores("taught"), first.scores("auc")) == ([0.81], [0.6])


def test_a_failed_trial_has_no_score() -> None:
    assert Outcome(error="it broke").score("taught") is None
    assert co_trained().score("taught") == pytest.approx(0.815)
