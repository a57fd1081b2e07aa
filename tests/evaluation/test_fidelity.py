"""The fidelity study: what its arms train, and its tables from made results."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from diet_ray.config import ArmConfig, ConfigError, CotrainConfig, ProtocolConfig, RunConfig
from diet_ray.evaluation import fidelity
from diet_ray.evaluation.agreement import agreement, compare
from diet_ray.evaluation.cells import Cell
from diet_ray.evaluation.fidelity import (
    TRUTH,
    arm_cells,
    differences_table,
    fidelity_table,
    repetitions_of,
    scores_of,
    settings_of,
    truth_of,
    validate,
)
from diet_ray.evaluation.pairs import pairs_right, significant_pairs
from diet_ray.evaluation.run import Run
from diet_ray.training.reference import reference_uri
from tests.evaluation.made_results import ARMS, REPETITIONS, SEEDS, fidelity_rows, frame, made_row
from tests.evaluation.prepared import RATIO, Prepared
from tests.made import SMALL

SPACE = {"dcn": {"dnn_hidden_units": [[4], [6], [8], [10]]}, "wukong": {"num_layers": [1, 2]}}

TUNED = {
    (method, labels): ProtocolConfig(batch_size=number)
    for number, (method, labels) in enumerate(
        [("full", ""), ("cold", ""), ("warm", ""), ("random", "soft"), ("distilled", "hard")],
        start=1,
    )
}
"""Told apart by their batch size."""


def config_of(prepared: Prepared, **study: Any) -> RunConfig:
    return prepared.config(benchmark={"fidelity": study})


def test_settings_are_drawn_by_turns_and_labelled_within_their_family(prepared: Prepared) -> None:
    settings = settings_of(config_of(prepared, space=SPACE, settings=5))
    assert [network.title for network in settings] == [
        *("dcn-1", "wukong-1", "dcn-2", "wukong-2", "dcn-3"),
    ]
    assert [network.name for network in settings] == ["dcn", "wukong", "dcn", "wukong", "dcn"]
    drawn = [network.parameters.get("dnn_hidden_units") for network in settings[::2]]
    assert all(drawn.count(units) == 1 for units in drawn)
    fewer = settings_of(config_of(prepared, space=SPACE, settings=3))
    assert fewer == settings[:3]


def test_without_a_space_the_candidates_are_the_settings(prepared: Prepared) -> None:
    config = config_of(prepared)
    assert settings_of(config) == config.evaluation.candidates


@pytest.mark.parametrize(
    ("study", "words"),
    [
        (
            {"space": {"dcm": {}}},
            "benchmark.fidelity.space: no network 'dcm'; did you mean 'dcn'",
        ),
        (
            {"arms": [{"method": "prefx"}]},
            "benchmark.fidelity.arms: no method 'prefx'; did you mean 'prefix'",
        ),
        (
            {"arms": [{"method": "warm"}, {"method": "warm", "seeds": 2}]},
            "arms: 'warm' stands there twice; give one of them a label",
        ),
        (
            {"arms": [{"method": "full", "label": TRUTH}]},
            "'truth': full data's trainings are called 'truth'; give it another label",
        ),
        (
            {"arms": [{"method": "warm", "use": "cotrain"}]},
            "'warm co-trained': warm has no reduced set to co-train on",
        ),
        ({"arms": [{"method": "cold", "labels": "hard"}]}, "cold has no reduced set; remove lab"),
        ({"arms": [{"method": "cold", "labels": "taught"}]}, "cold has no reduced set; remove lab"),
        (
            {"arms": [{"method": "random", "labels": "taught", "use": "cotrain"}]},
            "the soft labels of random are the reference's; set labels to soft",
        ),
        ({"arms": [{"method": "distilled", "labels": "taught"}]}, "taught labels are for ranking"),
        ({"arms": [{"method": "prefix", "ratio": 0.1}]}, "ratio belongs to a selection"),
        ({"arms": [{"method": "distilled", "ratio": 0.1}]}, "a distilled set's is memory.ratio"),
        ({"arms": [{"method": "warm", "share": 0.5}]}, "'warm 50%': share belongs to a prefix"),
        (
            {"arms": [{"method": "prefix", "protocol": {"epochs": 2}}]},
            "'prefix epochs=2': protocol: prefix has no warm-up; remove epochs",
        ),
        (
            {"arms": [{"method": "el2n", "use": "cotrain", "seeds": 2, "protocol": {"seeds": 2}}]},
            "seeds=2': seeds stand in the arm and in its protocol; remove one of them",
        ),
        (
            {"arms": [{"method": "warm", "repetitions": 3}]},
            "'warm': 3 repetitions would share 2 references; set benchmark.fidelity.repetitions to",
        ),
        (
            {"arms": [{"method": "cold", "score": "taught", "repetitions": 3}]},
            "'cold by soft labels': 3 repetitions would share 2 references",
        ),
    ],
)  # fmt: skip
def test_what_no_arm_can_be_is_refused(
    prepared: Prepared, study: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        validate(config_of(prepared, **study))


def test_what_an_arm_can_be_is_accepted(prepared: Prepared) -> None:
    validate(prepared.config())
    arms = [
        {"method": "cold", "repetitions": 5},  # needs no reference
        {"method": "warm", "repetitions": 1},
        {"method": "el2n", "ratio": 0.1, "labels": "hard"},
        {"method": "distilled", "labels": "hard", "use": "cotrain", "protocol": {"steps": 2}},
        {"method": "distilled", "labels": "taught", "use": "cotrain"},
        {"method": "random", "use": "cotrain", "seeds": 2, "score": "taught"},
        {"method": "random", "use": "cotrain", "protocol": {"seeds": 2}},
        {"method": "random", "protocol": {"epochs": 2, "batch_size": 8}},
        {"method": "prefix", "share": 0.1, "score": "progressive"},
        {"method": "prefix", "protocol": {"batch_size": 8}},
    ]
    validate(config_of(prepared, arms=arms))


def test_a_repetition_has_a_seed_an_output_and_a_reference_of_its_own(prepared: Prepared) -> None:
    shared = {"folder": str(prepared.folder / "shared")}
    config = prepared.config(reference=shared, benchmark={"fidelity": {"repetitions": 3}})
    found = repetitions_of(config)
    assert found[0] is config
    assert [c.seed for c in found] == [config.seed, config.seed + 1, config.seed + 2]
    assert [c.output for c in found[1:]] == [
        config.place("benchmark", f"repetition-{number}") for number in (2, 3)
    ]
    assert reference_uri(config, 1) == f"{shared['folder']}/t=1"
    for other in found[1:]:
        assert reference_uri(other, 1) == other.place("reference", "t=1")
        tree, expected = other.determining(), config.determining()
        assert tree | {"seed": config.seed} == expected


def runs_of(prepared: Prepared, repetitions: int = 2) -> list[Run]:
    config = config_of(prepared, space=SPACE, repetitions=repetitions)
    return [Run(c, prepared.blocks, f"set {r}") for r, c in enumerate(repetitions_of(config))]


def cells_of(prepared: Prepared, **arm: Any) -> list[tuple[int, Cell]]:
    runs = runs_of(prepared)
    return arm_cells(runs, ArmConfig(**arm), TUNED, settings_of(runs[0].config))


def test_no_seed_is_used_twice(prepared: Prepared) -> None:
    """Not by full data, which counts from 0, and not by two repetitions."""
    cells = cells_of(prepared, method="cold", seeds=3)
    settings = len({cell.candidate.title for _, cell in cells})
    assert settings == 6
    assert len(cells) == 2 * settings * 3
    by_repetition = [{cell.seed for r, cell in cells if r == number} for number in (0, 1)]
    assert [len(seeds) for seeds in by_repetition] == [3, 3]
    assert not by_repetition[0] & by_repetition[1]
    most_of_full_data = 10_000
    assert min(map(min, by_repetition)) > most_of_full_data


def test_all_seeds_of_a_co_training_are_one_cell(prepared: Prepared) -> None:
    for arm in ({"seeds": 3}, {"protocol": {"seeds": 3}}):
        cells = cells_of(prepared, method="random", use="cotrain", **arm)
        settings = {cell.candidate.title for _, cell in cells}
        assert len(settings) == 6
        assert len(cells) == 2 * len(settings)
        trained = [
            {seed for r, cell in cells if r == number for seed in range(cell.seed, cell.seed + 3)}
            for number in (0, 1)
        ]
        assert [len(seeds) for seeds in trained] == [3, 3]
        assert not trained[0] & trained[1]
        assert {cell.protocol.seeds for _, cell in cells} == {3}


@pytest.mark.parametrize("method", ["warm", "random", "distilled"])
def test_what_depends_on_the_reference_has_the_repetitions_own_run(
    prepared: Prepared, method: str
) -> None:
    cells = cells_of(prepared, method=method, labels=labels_of(method))
    for repetition, cell in cells:
        assert cell.run.distilled == f"set {repetition}"
        assert cell.run.config.seed == prepared.config().seed + repetition


def labels_of(method: str) -> str:
    """Those that TUNED has."""
    return "hard" if method == "distilled" else "soft"


@pytest.mark.parametrize("method", ["full", "prefix", "cold"])
def test_what_needs_no_reference_has_the_first_run_in_all_repetitions(
    prepared: Prepared, method: str
) -> None:
    cells = cells_of(prepared, method=method, repetitions=4)
    assert {repetition for repetition, _ in cells} == {0, 1, 2, 3}
    assert {cell.run.distilled for _, cell in cells} == {"set 0"}
    assert len({cell.seed for _, cell in cells}) == 4


def test_an_arm_may_have_fewer_repetitions(prepared: Prepared) -> None:
    cells = cells_of(prepared, method="warm", repetitions=1)
    assert {repetition for repetition, _ in cells} == {0}


def test_a_selections_ratio_changes_its_size_alone(prepared: Prepared) -> None:
    (_, own), (_, larger) = (
        cells_of(prepared, method="random", ratio=ratio)[0] for ratio in (None, 2 * RATIO)
    )
    assert own.run.config.memory.ratio == RATIO
    assert sum(larger.run.selection_sizes()) == 2 * sum(own.run.selection_sizes())
    assert replace(larger.run, config=own.run.config) == own.run


@pytest.mark.parametrize(
    ("arm", "protocol", "labels"),
    [
        ({"method": "warm"}, TUNED["warm", ""], ""),
        ({"method": "random"}, TUNED["random", "soft"], "soft"),
        ({"method": "distilled", "labels": "hard"}, TUNED["distilled", "hard"], "hard"),
        ({"method": "prefix", "share": 0.5}, TUNED["full", ""], ""),
        (
            {"method": "random", "use": "cotrain", "labels": "hard", "protocol": {"steps": 3}},
            CotrainConfig(**SMALL["evaluation"]["cotrain"] | {"steps": 3}),
            "hard",
        ),
        (
            {"method": "random", "use": "cotrain", "seeds": 5},
            CotrainConfig(**SMALL["evaluation"]["cotrain"] | {"seeds": 5}),
            "soft",
        ),
        (
            {"method": "prefix", "protocol": {"batch_size": 7}},
            TUNED["full", ""].model_copy(update={"batch_size": 7}),
            "",
        ),
        (
            {"method": "random", "protocol": {"epochs": 7}},
            TUNED["random", "soft"].model_copy(update={"epochs": 7}),
            "soft",
        ),
    ],
)
def test_an_arm_trains_by_its_tuned_protocol_or_co_trains(
    prepared: Prepared, arm: dict[str, Any], protocol: object, labels: str
) -> None:
    """A prefix is trained as full data is. Keys of its own come on top."""
    for _, cell in cells_of(prepared, **arm):
        assert (cell.protocol, cell.labels) == (protocol, labels)
        assert cell.method == arm["method"]
        assert cell.share == arm.get("share", 1)


def test_the_arms_that_are_tuned(prepared: Prepared) -> None:
    arms = [{"method": "prefix"}, {"method": "random", "use": "cotrain"}, {"method": "el2n"}]
    config = config_of(prepared, arms=arms)
    tuned = [fidelity.arm_of(arm) for arm in fidelity.tuned_arms(config)]
    assert tuned == [("full", ""), ("el2n", "soft")]
    assert not fidelity.needs_distilled(config)
    assert fidelity.needs_distilled(config_of(prepared, arms=[{"method": "distilled"}]))


SETTINGS = ["dcn-0", "dcn-1", "wukong-0"]


def few_rows() -> pd.DataFrame:
    """One arm: two repetitions of two seeds, whose metrics all differ; and two seeds of truth."""
    truth = [
        made_row("fidelity", "full", name, seed, arm=TRUTH, auc=0.7 + place / 10 + seed / 100)
        for (place, name), seed in itertools.product(enumerate(SETTINGS), (0, 1))
    ]
    arm = [
        made_row("fidelity", "random", name, seed, arm="random", repetition=repetition)
        | {
            "validation_auc": 0.5 + place / 10 + repetition / 100 + seed / 1000,
            "validation_logloss": 0.9 - place / 20 + repetition / 50 + seed / 500,
            "progressive_loss": 0.8 - place / 30 + repetition / 70 + seed / 700,
            "taught_auc": 0.6 + place / 40 + repetition / 90 + seed / 900,
        }
        for repetition, (place, name), seed in itertools.product(
            (0, 1), enumerate(SETTINGS), (0, 1)
        )
    ]
    return frame(arm[::-1] + truth[::-1])


@pytest.mark.parametrize(
    ("score", "column", "sign"),
    [
        ("taught", "taught_auc", 1),
        ("auc", "validation_auc", 1),
        ("logloss", "validation_logloss", -1),
        ("progressive", "progressive_loss", -1),
    ],
)
def test_a_score_is_the_mean_over_a_repetitions_seeds(score: Any, column: str, sign: int) -> None:
    rows = few_rows()
    arm = ArmConfig(method="random", score=score, label="random")
    found = scores_of(rows, arm, SETTINGS)
    assert found.shape == (2, len(SETTINGS))
    for repetition, (place, name) in itertools.product((0, 1), enumerate(SETTINGS)):
        mine = rows[
            (rows["arm"] == "random")
            & (rows["repetition"] == repetition)
            & (rows["candidate"] == name)
        ]
        assert len(mine) == 2
        assert found[repetition, place] == pytest.approx(sign * mine[column].mean())
    assert (np.diff(found) > 0).all()  # in all of them, later settings are better


def test_the_truth_is_full_datas_test_auc_by_seed() -> None:
    found = truth_of(few_rows(), SETTINGS)
    assert found == pytest.approx(np.array([[0.7, 0.8, 0.9], [0.71, 0.81, 0.91]]))
    assert truth_of(few_rows(), SETTINGS[::-1]) == pytest.approx(found[:, ::-1])


RESULTS = frame(fidelity_rows())
ALL_SETTINGS = RESULTS[RESULTS["arm"] == TRUTH]["candidate"].unique().tolist()
FAMILIES = np.array([name.partition("-")[0] for name in ALL_SETTINGS])


def by_method(table: pd.DataFrame) -> dict[str, dict[Any, Any]]:
    return {line["method"]: line for line in table.to_dict("records")}


def test_a_line_per_arm_of_what_the_agreement_says() -> None:
    table = fidelity_table(RESULTS, ARMS, None, seed=0)
    assert table["method"].tolist() == [arm.title for arm in ARMS]
    truth = truth_of(RESULTS, ALL_SETTINGS)
    assert truth.shape == (len(SEEDS), len(ALL_SETTINGS))
    for arm in ARMS:
        line = by_method(table)[arm.title]
        whole = agreement(truth, scores_of(RESULTS, arm, ALL_SETTINGS))
        assert {name: line[name] for name in vars(whole)} == pytest.approx(vars(whole))
        assert (line["seeds"], line["repetitions"]) == (arm.seeds or 1, REPETITIONS)
        assert line["spearman_low"] <= line["spearman"] <= line["spearman_high"]
        assert line["pairs"] == 0
    assert by_method(table)["ours"]["spearman"] > by_method(table)["random"]["spearman"]


def test_the_cost_is_one_repetitions_trainings_over_a_full_one() -> None:
    seconds = RESULTS["arm"].map({TRUTH: 8.0, "random": 0.5, "ours": 1.0})
    lines = by_method(fidelity_table(RESULTS.assign(seconds=seconds), ARMS, None, seed=0))
    # Rows: 130 of 1000; two seeds of 140 each.
    assert lines["random"]["cost"] == pytest.approx(0.13)
    assert lines["ours"]["cost"] == pytest.approx(0.28)
    assert lines["random"]["seconds"] == pytest.approx(0.5 / 8)
    assert lines["ours"]["seconds"] == pytest.approx(2 * 1.0 / 8)


def test_a_co_trainings_cell_costs_what_all_its_seeds_do() -> None:
    arm = ArmConfig(method="random", use="cotrain")
    cells = RESULTS["arm"] == "random"
    ours = {"arm": arm.title, "trained_rows": 60.0, "seconds": 0.5, "seeds": 4}
    results = RESULTS.assign(seeds=np.nan).astype({"trained_rows": float})
    for name, value in ours.items():
        results.loc[cells, name] = value
    (line,) = fidelity_table(results, [arm], None, seed=0).to_dict("records")
    assert (line["seeds"], line["repetitions"]) == (4, REPETITIONS)
    assert (line["cost"], line["seconds"]) == (pytest.approx(0.06), pytest.approx(0.5))


PERFECT = [("taught", 1), ("auc", 1), ("logloss", -1), ("progressive", -1)]


@pytest.mark.parametrize(("score", "sign"), PERFECT)
def test_a_perfect_arm_agrees_fully(score: Any, sign: int) -> None:
    """Its score is full data's mean; a loss is the better the smaller it is."""
    means = RESULTS[RESULTS["arm"] == TRUTH].groupby("candidate")["auc"].mean()
    perfect = RESULTS["candidate"].map(means)
    columns = {
        "taught": "taught_auc",
        "auc": "validation_auc",
        "logloss": "validation_logloss",
        "progressive": "progressive_loss",
    }
    results = RESULTS.assign(**{columns[score]: sign * perfect})
    arms = [arm.model_copy(update={"score": score, "label": arm.title}) for arm in ARMS]
    for line in by_method(fidelity_table(results, arms, None, seed=0)).values():
        exact = ("spearman", "kendall", "tau_ap", "corrected", "spearman_low", "spearman_high")
        assert [line[name] for name in exact] == pytest.approx([1] * len(exact))
        assert (line["top1"], line["top3"]) == (0, 0)


def test_pairs_are_those_that_full_data_tells_apart() -> None:
    truth_rows = RESULTS[RESULTS["arm"] == TRUTH]
    random = np.random.default_rng(1)
    noise = random.normal(scale=0.001, size=400)
    resampled = {key: auc + noise for key, auc in truth_rows["auc"].items()}
    lines = by_method(fidelity_table(RESULTS, ARMS, resampled, seed=3))
    truth = truth_of(RESULTS, ALL_SETTINGS)
    found = significant_pairs(truth, truth[:, :, None] + noise, 3)
    assert 0 < len(found.better) < len(ALL_SETTINGS) * (len(ALL_SETTINGS) - 1) / 2
    for arm in ARMS:
        expected = vars(pairs_right(found, scores_of(RESULTS, arm, ALL_SETTINGS), FAMILIES))
        assert {name: lines[arm.title][name] for name in expected} == expected


def test_the_tables_do_not_depend_on_the_order_of_the_rows_of_an_arm() -> None:
    truth, others = (RESULTS[(RESULTS["arm"] == TRUTH) == is_truth] for is_truth in (True, False))
    turned = pd.concat([truth, others[::-1]])
    pd.testing.assert_frame_equal(
        fidelity_table(turned, ARMS, None, seed=0), fidelity_table(RESULTS, ARMS, None, seed=0)
    )


def test_differences_are_of_one_arm_against_every_other() -> None:
    table = differences_table(RESULTS, ARMS, "ours", seed=5)
    assert table["method"].tolist() == ["random"]
    random, ours = (scores_of(RESULTS, arm, ALL_SETTINGS) for arm in ARMS)
    found = compare(truth_of(RESULTS, ALL_SETTINGS), ours, random, FAMILIES, 5)
    line = table.iloc[0]
    assert line["difference"] == pytest.approx(found.difference)
    assert (line["low"], line["high"]) == (found.interval.low, found.interval.high)
    assert bool(line["clear"]) == found.clear
    turned = differences_table(RESULTS, ARMS, "random", seed=5).iloc[0]
    assert (turned["method"], turned["difference"]) == ("ours", pytest.approx(-found.difference))


def test_what_was_not_trained_is_not_shown() -> None:
    arms = [*ARMS, ArmConfig(method="warm")]
    assert fidelity_table(RESULTS, arms, None, seed=0)["method"].tolist() == ["random", "ours"]
    assert differences_table(RESULTS, arms, "ours", seed=0)["method"].tolist() == ["random"]
    assert differences_table(RESULTS, arms, "warm", seed=0).empty
    for rows in (RESULTS[:0], frame([made_row("main", "full", "dcn", 0)])):
        assert fidelity_table(rows, ARMS, None, seed=0).empty
        assert differences_table(rows, ARMS, "ours", seed=0).empty
