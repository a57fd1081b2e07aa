"""The choice of protocols, with trainings whose result is known."""

from __future__ import annotations

from typing import Any

import pytest

from diet_ray.config import ProtocolConfig
from diet_ray.evaluation import tuning
from diet_ray.evaluation.cells import Cell, CellResult
from diet_ray.evaluation.tuning import COLUMNS, Arm, Tuned, edges, protocols_tried, tune
from tests.evaluation.prepared import Prepared, made_result

ARMS: list[Arm] = [("full", ""), ("random", "soft"), ("random", "hard"), ("distilled", "soft")]
TRIED: list[dict[str, Any]] = [{}, {"learning_rate": 0.5}, {"epochs": 7, "batch_size": 8}]
WITHOUT_WARM_UP: list[dict[str, Any]] = [{}, {"learning_rate": 0.5}, {"batch_size": 8}]

# Arm to the validation AUC of the tried protocols, for the first and the second candidate.
FOUND = {
    ("full", ""): ([0.6, 0.7, 0.5], [0.6, 0.6, 0.6]),
    ("random", "soft"): ([0.9, 0.1, 0.5], [0.1, 0.7, 0.6]),
    ("random", "hard"): ([0.5, 0.5, 0.5], [0.6, 0.6, 0.6]),
    ("distilled", "soft"): ([0.1, 0.4, 0.5], [0.1, 0.6, 0.5]),
}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Cell]:
    cells: list[Cell] = []

    def number(cell: Cell) -> int:
        own = cell.run.config.evaluation.protocol
        tried = WITHOUT_WARM_UP if cell.method == "full" else TRIED
        choices = [own.model_copy(update=keys) for keys in tried]
        return choices.index(cell.protocol)

    def grid(waiting: list[Cell], _: str) -> list[CellResult]:
        cells.extend(waiting)
        found = []
        for cell in waiting:
            candidate = cell.run.config.evaluation.candidates.index(cell.candidate)
            auc = FOUND[cell.method, cell.labels][candidate][number(cell)]
            shift = 0.01 * (cell.seed % 2) - 0.005
            found.append(made_result(0.99 - auc, validation_auc=auc + shift))
        return found

    monkeypatch.setattr(tuning, "run_grid", grid)
    return cells


def tuned(prepared: Prepared) -> Tuned:
    return tune(prepared.run(benchmark={"tuning": {"tried": TRIED, "seeds": 2}}), ARMS)


def test_the_best_mean_wins_and_of_equal_ones_the_first(
    prepared: Prepared, asked: list[Cell]
) -> None:
    own = prepared.config().evaluation.protocol
    second, third = (own.model_copy(update=keys) for keys in TRIED[1:])
    assert tuned(prepared).protocols == {
        ("full", ""): second,
        ("random", "soft"): third,
        ("random", "hard"): own,
        ("distilled", "soft"): second,
    }


def test_arms_with_a_warm_up_try_the_same_list_with_seeds_that_are_not_judged(
    prepared: Prepared, asked: list[Cell]
) -> None:
    tuned(prepared)
    by_arm = {
        arm: [(c.protocol, c.candidate.title, c.seed) for c in asked if (c.method, c.labels) == arm]
        for arm in ARMS
    }
    full, *others = by_arm.values()
    assert all(cells == others[0] for cells in others)
    assert len(set(map(repr, others[0]))) == len(set(map(repr, full))) == 3 * 2 * 2
    assert {protocol.epochs for protocol, *_ in full} == {2}
    assert min(cell.seed for cell in asked) > max(prepared.config().benchmark.seeds, 10_000)


def test_all_that_was_tried_is_told(prepared: Prepared, asked: list[Cell]) -> None:
    table = tuned(prepared).tried
    assert list(table.columns) == COLUMNS
    assert len(table) == len(ARMS) * len(TRIED)
    assert table["chosen"].sum() == len(ARMS)
    full, random = table[table["method"] == "full"], table[table["labels"] == "soft"][:3]
    assert full["validation_auc"].tolist() == pytest.approx([0.6, 0.65, 0.55])
    assert full["learning_rate"].tolist() == [0.01, 0.5, 0.01]
    assert full["epochs"].isna().all()
    assert random["epochs"].tolist() == [2, 2, 7]


def test_a_choice_at_an_edge_is_marked(prepared: Prepared, asked: list[Cell]) -> None:
    table = tuned(prepared).tried
    chosen = table[table["chosen"]].set_index(["method", "labels"])["edge"].to_dict()
    assert (
        chosen
        == {  # two values of each key were tried, so every choice is at their edge
            ("full", ""): "batch_size,learning_rate",
            **dict.fromkeys(ARMS[1:], "batch_size,learning_rate,epochs"),
        }
    )
    assert set(table[~table["chosen"]]["edge"]) == {""}


@pytest.mark.parametrize(
    ("chosen", "found"),
    [
        ((8, 0.01), ["batch_size"]),
        ((16, 0.01), []),
        ((16, 0.1), ["learning_rate"]),
        ((32, 0.001), ["batch_size", "learning_rate"]),
    ],
)
def test_an_edge_is_the_smallest_or_the_largest_value_of_a_key(
    chosen: tuple[int, float], found: list[str]
) -> None:
    tried = [
        ProtocolConfig(batch_size=batch, learning_rate=rate)
        for batch in (8, 16, 32)
        for rate in (0.1, 0.001, 0.01)
    ]
    batch_size, learning_rate = chosen
    protocol = ProtocolConfig(batch_size=batch_size, learning_rate=learning_rate)
    assert edges(tried, protocol) == found


def test_a_method_without_a_warm_up_tries_every_pair_once_or_a_list_of_its_own(
    prepared: Prepared,
) -> None:
    own = prepared.config().evaluation.protocol
    tried = [{"epochs": 7}, {"learning_rate": 0.5}, {"learning_rate": 0.5, "epochs": 7}]
    config = prepared.config(benchmark={"tuning": {"tried": tried}})
    quick = own.model_copy(update={"learning_rate": 0.5})
    for method in ("full", "cold", "warm"):
        assert protocols_tried(config, method) == [own, quick]
    assert len(protocols_tried(config, "random")) == 3
    given = {"tried": tried, "tried_without_warm_up": [{"learning_rate": 0.5}]}
    config = prepared.config(benchmark={"tuning": given})
    assert protocols_tried(config, "cold") == [quick]
    assert len(protocols_tried(config, "distilled")) == 3


def test_full_data_tries_in_the_place_of_its_own_protocol(prepared: Prepared) -> None:
    tuning = {"tried": [{}, {"learning_rate": 0.5}]}
    evaluation = {"full_protocol": {"batch_size": 8}}
    config = prepared.config(evaluation=evaluation, benchmark={"tuning": tuning})
    assert [p.batch_size for p in protocols_tried(config, "full")] == [8, 8]
    assert [p.batch_size for p in protocols_tried(config, "warm")] == [64, 64]


@pytest.mark.parametrize("arms", [ARMS, []])
def test_one_protocol_is_no_choice(prepared: Prepared, asked: list[Cell], arms: list[Arm]) -> None:
    keys = {"learning_rate": 0.5}
    run = prepared.run(benchmark={"tuning": {"tried": [keys]}})
    found = tune(run, arms)
    expected = run.config.evaluation.protocol.model_copy(update=keys)
    assert found.protocols == dict.fromkeys(arms, expected)
    assert asked == []
    assert found.tried["chosen"].tolist() == [True] * len(arms)
    assert found.tried["validation_auc"].isna().all()


def test_nothing_to_tune_trains_nothing(prepared: Prepared, asked: list[Cell]) -> None:
    run = prepared.run(benchmark={"tuning": {"tried": TRIED}})
    assert tune(run, []).protocols == {}
    assert asked == []
