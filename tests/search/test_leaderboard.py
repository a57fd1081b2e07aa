"""The order of candidates by each score, and what a line tells."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest

from diet_ray import storage
from diet_ray.config import NetworkConfig, Score
from diet_ray.models.candidate import Candidate
from diet_ray.search.leaderboard import (
    LINE_WIDTH,
    Line,
    as_frame,
    as_table,
    leaderboard,
    render,
    render_html,
)
from diet_ray.search.trial import Outcome
from diet_ray.training.metrics import LOSS_OF_ONE_HALF, Metrics
from tests.made import small_config
from tests.tables import cells

FAILED = "failed"
FULL_ROWS = 20_000


def outcome(*seeds: tuple[float, float], taught: tuple[float, ...] = (), kept: int = 1) -> Outcome:
    """seeds: AUC and LogLoss after the epoch `kept`; the epochs before it are worse."""
    worse = (Metrics(0.1, 9.0, {}, {}),) * (kept - 1)
    epochs = tuple((*worse, Metrics(auc, logloss, {}, {})) for auc, logloss in seeds)
    rows = 300 * len(seeds)
    return Outcome(epochs, (kept,) * len(seeds), taught, 1_000, rows, 24_680.0, 0.5)


# Every score has another winner.
OUTCOMES = {
    FAILED: Outcome(error="it broke"),
    "a": outcome((0.6, 0.5), (0.8, 0.7), taught=(0.7, 0.9)),
    "b": outcome((0.9, 0.6), (0.7, 0.6), taught=(0.6, 0.8)),
    "c": outcome((0.6, 0.4), (0.7, 0.4), taught=(0.5, 0.6)),
}


def ranked(outcomes: dict[str, Outcome], score: Score) -> dict[str, Line]:
    named = [(Candidate(NetworkConfig(name=name)), found) for name, found in outcomes.items()]
    return {line.network: line for line in leaderboard(named, score, FULL_ROWS)}


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


def test_the_stopped_come_after_those_that_were_seen_through() -> None:
    """By their own scores, even if those are higher."""
    seeds = {"through": (0.6, 0.61, 0.62), "better": (0.7, 0.71, 0.7)}
    stopped = {"lucky": (0.9,), "low": (0.5, 0.51)}
    outcomes = {
        name: replace(outcome(*((auc, 0.5) for auc in aucs)), stopped=name in stopped)
        for name, aucs in (stopped | seeds).items()
    }
    lines = ranked(outcomes | {FAILED: OUTCOMES[FAILED]}, "auc")
    assert list(lines) == ["better", "through", "lucky", "low", FAILED]
    assert [line.stopped for line in lines.values()] == [False, False, True, True, False]
    assert [line.seeds for line in lines.values()] == [3, 3, 1, 2, 0]
    assert [line.places for line in lines.values()] == [(1, 1), (2, 2), (3, 3), (4, 4), None]


def test_a_candidate_that_diverged_is_marked() -> None:
    gone = Metrics(0.5, LOSS_OF_ONE_HALF, {}, {}, diverged=True)
    broken = replace(outcome((0.8, 0.5), (0.5, 0.7)), epochs=((gone,), (gone,)))
    lines = ranked({"a": OUTCOMES["a"], "b": broken}, "auc")
    assert (lines["a"].diverged, lines["b"].diverged) == (0, 2)
    assert lines["b"].score == 0.5
    text = render([*lines.values()])
    assert " 2! " in text
    assert "!: a training of it diverged" in text
    assert "diverged" not in render([lines["a"]])


def test_places_tell_who_is_not_distinguishable() -> None:
    aucs = {"a": (0.80, 0.82), "b": (0.801, 0.818), "c": (0.6, 0.62), "d": (0.602, 0.619)}
    lines = ranked({name: outcome(*((x, 0.5) for x in own)) for name, own in aucs.items()}, "auc")
    assert {name: line.places for name, line in lines.items()} == {
        "a": (1, 2),
        "b": (1, 2),
        "c": (3, 4),
        "d": (3, 4),
    }
    one_each = {"x": outcome((0.7, 0.5)), "y": outcome((0.6, 0.5))}
    assert [line.places for line in ranked(one_each, "auc").values()] == [None, None]


def test_a_line_knows_its_candidate_and_what_it_cost() -> None:
    tried = Candidate(NetworkConfig(name="dcn", parameters={"x": 1}), 8, 0.002)
    (line,) = leaderboard([(tried, OUTCOMES["a"])], "auc", FULL_ROWS)
    assert line.candidate == tried
    assert (line.flop, line.trained_rows, line.seeds) == (24_680.0, 600, 2)
    assert line.cost == pytest.approx(600 / FULL_ROWS)
    assert line.hyper_parameters == {"x": 1, "embedding_dim": 8, "learning_rate": 0.002}
    (of_unknown,) = leaderboard([(tried, OUTCOMES["a"])], "auc", None)
    (untold,) = leaderboard([(tried, replace(OUTCOMES["a"], trained_rows=0))], "auc", FULL_ROWS)
    assert (of_unknown.cost, untold.cost) == (None, None)


def test_as_text_every_line_has_what_it_knows() -> None:
    outcomes = OUTCOMES | {"w": outcome((0.55, 0.45), (0.57, 0.45), kept=3)}
    outcomes["stopped"] = replace(outcome((0.9, 0.4)), stopped=True)
    lines = ranked(outcomes, "auc")
    head, _, *rows = render(list(lines.values())).splitlines()
    assert head.split() == [
        *("like", "network", "hyper-parameters", "size", "FLOP/row", "score", "spread", "AUC"),
        *("LogLoss", "seeds", "cost", "seconds"),
    ]
    told = {row.split()[2]: row.split() for row in rows[:-3]}
    numbers = ["1k", "24.7k", "0.8000", "±0.1414", "0.8000", "0.6000", "2", "3%", "0.5"]
    assert told["b"] == ["1", "1-4", "b", "-", *numbers]
    assert told["stopped"][-6:] == ["0.9000", "0.9000", "0.4000", "1*", "1.5%", "0.5"]
    assert rows[-3].endswith("failed: it broke")
    assert rows[-2].startswith("like: places from which noise over the seeds does not tell it")
    assert rows[-1].startswith("*: stopped early, so it stands after those that were judged by all")
    one_each = render(list(ranked({"x": outcome((0.7, 0.5))}, "auc").values()))
    assert "like:" not in one_each
    assert one_each.endswith("nothing tells noise from order: give them more seeds.")


def test_a_notebook_shows_the_same_as_a_table() -> None:
    lines = list(ranked(OUTCOMES, "auc").values())
    html = render_html(lines)
    head, *rows = cells(html)
    text = render(lines).splitlines()
    assert head == ["place", *text[0].split(), "failed"]
    for row, told in zip(rows, text[2:], strict=False):
        shown = [cell for cell in row if cell]
        assert shown == told.replace("failed: ", "").split(maxsplit=len(shown) - 1)
    for note in text[2 + len(lines) :]:
        assert f"<p>{escape(note)}</p>" in html


def test_long_hyper_parameters_go_on_below() -> None:
    """A value is never cut; what a network's others do not have is told too."""
    tried = [
        Candidate(NetworkConfig(name="wukong", parameters={f"parameter_{i}": i}), i, 0.1 * i)
        for i in range(1, 3)
    ]
    many = {f"parameter_{i}": [128, 64] for i in range(12)}
    tried.append(Candidate(NetworkConfig(name="dcn", parameters=many)))
    lines = leaderboard([(c, OUTCOMES["a"]) for c in tried], "auc", FULL_ROWS)
    text = render(lines)
    assert max(map(len, text.splitlines()[:-1])) <= LINE_WIDTH
    for words in ("parameter_1=1 embedding_dim=1 learning_rate=0.1", "parameter_11=128,64"):
        assert words in text


def test_the_lines_are_a_flat_table(tmp_path: Path) -> None:
    lines = list(ranked(OUTCOMES, "auc").values())
    lines[0] = replace(lines[0], parameters={"units": [8, 4], "depth": 2}, embedding_dim=8)
    storage.write_parquet(str(tmp_path / "lines.parquet"), as_table(lines))
    rows = pq.read_table(tmp_path / "lines.parquet").to_pylist()
    assert [row["place"] for row in rows] == [1, 2, 3, None]
    for row, line in zip(rows, lines, strict=True):
        assert json.loads(row["parameters"]) == line.parameters
        assert (row["first_like_place"], row["last_like_place"]) == (line.places or (None, None))
        plain = asdict(line).keys() - {"parameters", "places"}
        assert {name: row[name] for name in plain} == {n: getattr(line, n) for n in plain}
    frame = as_frame(lines)
    assert frame["place"].tolist() == [1, 2, 3, pd.NA]
    assert frame["score"][:3].tolist() == [line.score for line in lines[:3]]
    nothing_known = as_table(lines[-1:])
    assert nothing_known.schema == as_table(lines).schema


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
    assert small_config(str(tmp_path), search=search).search.ranked_by == score
