"""The order of candidates by each score, and what a line tells."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from diet_ray.config import NetworkConfig, Score
from diet_ray.search.leaderboard import Line, leaderboard, render, score_of
from diet_ray.search.trial import Outcome
from diet_ray.training.metrics import Metrics
from tests.made import small_config

FAILED = "failed"


def outcome(*seeds: tuple[float, float], taught: tuple[float, ...] = (), kept: int = 1) -> Outcome:
    """seeds: AUC and LogLoss after the epoch `kept`; the epochs before it are worse."""
    worse = (Metrics(0.1, 9.0, {}, {}),) * (kept - 1)
    epochs = tuple((*worse, Metrics(auc, logloss, {}, {})) for auc, logloss in seeds)
    return Outcome(epochs, (kept,) * len(seeds), taught, 1_000, 0.5)


# Every score has another winner.
OUTCOMES = {
    FAILED: Outcome(error="it broke"),
    "a": outcome((0.6, 0.5), (0.8, 0.7), taught=(0.7, 0.9)),
    "b": outcome((0.9, 0.6), (0.7, 0.6), taught=(0.6, 0.8)),
    "c": outcome((0.6, 0.4), (0.7, 0.4), taught=(0.5, 0.6)),
}


def ranked(outcomes: dict[str, Outcome], score: Score) -> dict[str, Line]:
    named = [(NetworkConfig(name=name), found) for name, found in outcomes.items()]
    return {line.network: line for line in leaderboard(named, score)}


@pytest.mark.parametrize(
    ("score", "order"), [("taught", "abc"), ("auc", "bac"), ("logloss", "cab")]
)
def test_the_higher_score_comes_first_and_the_failed_last(score: Score, order: str) -> None:
    assert list(ranked(OUTCOMES, score)) == [*order, FAILED]


def test_of_equal_scores_the_smaller_logloss_comes_first() -> None:
    equal = {name: outcome((0.7, loss)) for name, loss in (("x", 0.5), ("y", 0.3), ("z", 0.4))}
    assert list(ranked(equal, "auc")) == ["y", "z", "x"]


def test_a_line_tells_the_means_over_seeds() -> None:
    line = ranked(OUTCOMES, "taught")["a"]
    assert (line.score, line.taught_auc) == (pytest.approx(0.8), pytest.approx(0.8))
    assert line.score_deviation == pytest.approx(0.02**0.5)
    assert (line.validation_auc, line.validation_logloss) == (
        pytest.approx(0.7),
        pytest.approx(0.6),
    )
    assert line.epochs is None  # a co-training is judged once
    assert (line.dense_parameters, line.seconds, line.error) == (1_000, 0.5, None)
    assert ranked(OUTCOMES, "logloss")["a"].score == pytest.approx(-0.6)
    failed = ranked(OUTCOMES, "auc")[FAILED]
    assert failed.error == "it broke"
    means = (failed.score, failed.validation_auc, failed.validation_logloss, failed.taught_auc)
    assert means == (None, None, None, None)


def test_a_warm_up_tells_the_epoch_that_was_kept() -> None:
    line = ranked({"x": outcome((0.7, 0.5), kept=3)}, "auc")["x"]
    assert (line.epochs, line.taught_auc, line.score_deviation) == (3, None, None)
    assert line.score == line.validation_auc == 0.7


def test_as_text_every_line_has_what_it_knows() -> None:
    outcomes = OUTCOMES | {"w": outcome((0.55, 0.45), kept=3)}
    lines = ranked(outcomes, "auc")
    head, _, *rows = render(list(lines.values())).splitlines()
    assert head.split() == [
        *("network", "hyper-parameters", "size", "score", "seeds", "AUC", "LogLoss", "epoch"),
        "seconds",
    ]
    told = {row.split()[1]: row.split() for row in rows}
    assert told["b"] == ["1", "b", "-", "1,000", "0.8000", "±0.1414", "0.8000", "0.6000", "0.5"]
    assert told["w"] == ["4", "w", "-", "1,000", "0.5500", "0.5500", "0.4500", "3", "0.5"]
    assert rows[-1].endswith("failed: it broke")


@pytest.mark.parametrize(
    ("search", "score"),
    [
        ({}, "taught"),
        ({"use": "inherit"}, "auc"),
        ({"score": "logloss"}, "logloss"),
        ({"use": "inherit", "score": "logloss"}, "logloss"),
    ],
)
def test_what_ranks_by_default_depends_on_the_use(
    tmp_path: Path, search: dict[str, Any], score: Score
) -> None:
    assert score_of(small_config(str(tmp_path), search=search)) == score
