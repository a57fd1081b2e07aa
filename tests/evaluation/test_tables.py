"""The paper's tables from made results, against numbers worked out by hand."""

from __future__ import annotations

from functools import partial

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from diet_ray.distill.parts import Parts
from diet_ray.evaluation.statistics import over_rows, over_seeds_and_rows, resampled_aucs
from diet_ray.evaluation.tables import (
    MARKS,
    MEAN,
    SUMMARY,
    ablation,
    comparison,
    costs,
    differences,
    ratios,
    summary,
    transfer,
)
from tests.evaluation.made_results import (
    CANDIDATES,
    PARTS,
    PHASES,
    SEEDS,
    ablation_rows,
    all_rows,
    frame,
    made_logits,
    made_row,
    main_rows,
    ratio_rows,
    transfer_rows,
)

HALF_WIDTH = stats.t.ppf(0.975, 2) * 0.001 / np.sqrt(3)  # of three seeds a thousandth apart


def line(table: pd.DataFrame, **values: object) -> pd.Series:
    found = table[np.logical_and.reduce([table[k] == v for k, v in values.items()])]
    assert len(found) == 1, f"{values}: {len(found)} rows"
    return found.iloc[0]


def test_table_3_has_methods_in_order_candidates_and_their_mean() -> None:
    table = comparison(frame(main_rows()[::-1]))
    assert list(table) == SUMMARY
    methods = table[["method", "labels"]].drop_duplicates().itertuples(index=False, name=None)
    assert list(methods) == [
        *[("full", ""), ("cold", ""), ("warm", "")],
        *[("random", "soft"), ("random", "hard"), ("distilled", "soft"), ("distilled", "hard")],
    ]
    assert set(table["candidate"]) == {*CANDIDATES, MEAN}
    assert set(table["reference"]) == {"dcn"}
    assert set(table["seeds"]) == {3}


def test_a_line_of_table_3() -> None:
    found = line(
        comparison(frame(main_rows())), method="distilled", labels="soft", candidate="wukong"
    )
    assert found["auc"] == pytest.approx(0.75)
    assert found["auc_half_width"] == pytest.approx(HALF_WIDTH)
    assert found["logloss"] == pytest.approx(1.2 - 0.75)
    assert found["recovered_gap"] == pytest.approx(0.8)
    assert found["network"] == "wukong"


def test_the_mean_over_candidates_is_taken_seed_by_seed() -> None:
    """Candidates whose seeds pull against each other have a mean without any spread."""
    rows = [
        made_row("main", "full", candidate, seed, auc=0.7 + sign * seed / 100)
        for candidate, sign in (("dcn", 1), ("wukong", -1))
        for seed in SEEDS
    ]
    found = line(summary(frame(rows)), candidate=MEAN)
    assert (found["auc"], found["auc_half_width"]) == pytest.approx((0.7, 0))


def test_there_is_no_mean_of_a_part_of_the_candidates() -> None:
    rows = [r for r in main_rows() if (r["method"], r["candidate"]) != ("random", "dcn")]
    table = comparison(frame(rows))
    assert set(table[table["method"] == "random"]["candidate"]) == {"wukong"}
    assert set(table[table["method"] == "full"]["candidate"]) == {*CANDIDATES, MEAN}


def test_the_gap_is_against_the_warm_start_of_the_same_reference() -> None:
    other = [
        r | {"reference": "wukong", "auc": r["auc"] - (0.05 if r["method"] == "warm" else 0)}
        for r in main_rows()
        if r["method"] not in ("full", "cold")
    ]
    table = comparison(frame(main_rows() + other))
    gaps = {
        reference: line(
            table, reference=reference, method="random", labels="soft", candidate="dcn"
        )["recovered_gap"]
        for reference in ("dcn", "wukong")
    }
    assert gaps == {"dcn": pytest.approx(0.02 / 0.05), "wukong": pytest.approx(0.07 / 0.10)}


def test_a_lead_that_is_not_clear_of_zero_has_no_gap() -> None:
    """WuKong's warm start moves against full data from seed to seed; DCN's keeps its distance."""
    rows = [
        row | {"auc": 0.74 - 0.03 * row["seed"]}
        if (row["method"], row["candidate"]) == ("warm", "wukong")
        else row
        for row in main_rows()
    ]
    table = comparison(frame(rows))
    wukong = line(table, method="random", labels="soft", candidate="wukong")
    differences = [0.759 - 0.74, 0.760 - 0.71, 0.761 - 0.68]
    expected = np.mean(differences), stats.t.ppf(0.975, 2) * stats.sem(differences)
    assert (wukong["lead"], wukong["lead_half_width"]) == pytest.approx(expected)
    assert np.isnan(wukong["recovered_gap"])
    dcn = line(table, method="random", labels="soft", candidate="dcn")
    assert (dcn["recovered_gap"], dcn["lead"]) == pytest.approx((0.4, 0.05))


def test_one_seed_has_no_gap() -> None:
    table = comparison(frame([row for row in main_rows() if row["seed"] == 0]))
    assert table["recovered_gap"].isna().all()
    assert table["lead"].tolist() == pytest.approx([0.05] * len(table))


def test_without_warm_start_there_is_no_gap() -> None:
    rows = [row for row in main_rows() if row["method"] != "warm"]
    assert comparison(frame(rows))["recovered_gap"].isna().all()


def test_a_seed_that_is_there_twice_is_an_error() -> None:
    rows = [*main_rows(), made_row("main", "distilled", "dcn", 0, ratio=0.05)]
    assert len(comparison(frame(rows)))  # two ratios are two lines
    with pytest.raises(ValueError, match=r"'dcn' under method 'distilled'.*seed 0"):
        ablation(frame([*rows, *ablation_rows()]), PARTS)


def test_differences_are_paired_and_name_the_other_method() -> None:
    table = differences(frame(main_rows()))
    assert not ((table["method"] == "distilled") & (table["labels"] == "soft")).any()
    random = line(table, method="random", labels="soft", candidate="dcn")
    assert (random["difference"], random["half_width"]) == pytest.approx((0.02, 0))
    mean = line(table, method="distilled", labels="hard", candidate=MEAN)
    assert mean["difference"] == pytest.approx(0.745 - 0.711)
    assert table["rows_low"].isna().all()


def test_differences_pair_only_the_seeds_of_both() -> None:
    rows = [*main_rows(), made_row("main", "distilled", "dcn", 3, auc=0.99)]
    found = line(differences(frame(rows)), method="random", labels="soft", candidate="dcn")
    assert (found["seeds"], found["difference"]) == (3, pytest.approx(0.02))


def test_differences_with_the_bootstrap() -> None:
    results = frame(main_rows())
    resampled = resampled_aucs(*_given(results), resamples=40, seed=7)
    table = differences(results, resampled, seed=7)

    def cell(method: str, candidate: str, seed: int) -> str:
        row = (results["method"] == method) & (results["labels"] == "soft")
        row &= (results["candidate"] == candidate) & (results["seed"] == seed)
        return results.index[row].item()

    values = np.array(
        [
            np.mean(
                [resampled[cell("distilled", c, s)] - resampled[cell("random", c, s)]
                 for c in CANDIDATES],
                axis=0,
            )
            for s in SEEDS
        ]
    )  # fmt: skip
    found = line(table, method="random", labels="soft", candidate=MEAN)
    rows, both = over_rows(values), over_seeds_and_rows(values, 7)
    assert (found["rows_low"], found["rows_high"]) == pytest.approx((rows.low, rows.high))
    assert (found["both_low"], found["both_high"]) == pytest.approx((both.low, both.high))
    assert (table["rows_low"] <= table["rows_high"]).all()


def _given(results: pd.DataFrame) -> tuple:
    logits, labels = made_logits(results)
    return logits, results.index, labels


def test_the_ablation_borrows_the_complete_method_from_main() -> None:
    table = ablation(frame([*main_rows(), *ablation_rows()]), PARTS)
    assert table["variant"].tolist() == ["no-fusion", "no-target-selection", "none", ""]
    assert set(table["candidate"]) == {"dcn"}
    fusion = line(table, variant="no-fusion")
    marks = fusion[["fusion", "target_selection", "memory_selection"]].tolist()
    assert marks == [False, True, True]
    # Main's seeds lie at -.001, 0, .001, those of the ablation at 0, .001, .002.
    assert fusion["difference"] == pytest.approx(-0.003 + 0.001)
    complete = line(table, variant="")
    assert complete["fusion"]
    assert complete["difference"] == 0
    assert complete["auc"] == pytest.approx(0.74)


def test_the_marks_of_an_ablation_are_what_is_said_of_it() -> None:
    odd = Parts(fusion=True, target_selection=False, memory_selection=False)
    rows = frame([*main_rows(), made_row("ablation", "distilled", "dcn", 0, variant="odd")])
    table = ablation(rows, {"odd": odd, "": Parts(False, False, False)})
    assert table["variant"].tolist() == ["odd", ""]
    assert table[MARKS].to_numpy().tolist() == [[True, False, False], [False] * 3]
    with pytest.raises(ValueError, match=r"variant 'odd' is no ablation of .* \(no-fusion, no-"):
        ablation(rows, PARTS)


def test_the_transfer_holds_every_reference() -> None:
    table = transfer(frame([*main_rows(), *transfer_rows()]))
    assert set(table["reference"]) == {"dcn", "wukong"}
    assert set(table["method"]) == {"full", "warm", "distilled"}
    assert not (table["labels"] == "hard").any()
    found = line(table, reference="wukong", method="distilled", candidate=MEAN)
    assert found["recovered_gap"] == pytest.approx(0.8)


def test_the_ratios_rise_and_hold_mains_own() -> None:
    table = ratios(frame([*main_rows(), *ratio_rows()]))
    distilled = table[table["method"] == "distilled"]
    for reference in ("dcn", "wukong"):
        found = distilled[distilled["reference"] == reference]["ratio"].tolist()
        assert found == [0.001, 0.015, 0.05]
    assert set(distilled["candidate"]) == {"dcn"}
    assert line(table, reference="dcn", method="full")["auc"] == pytest.approx(0.75)


def test_costs_take_the_mean_time_and_the_highest_peak() -> None:
    twice = pd.concat([PHASES, PHASES.assign(seconds_per_epoch=60.0, peak_bytes=5e9)])
    found = line(costs(twice), phase="full training")
    assert (found["seconds_per_epoch"], found["peak_gb"]) == (90, 5)
    assert line(costs(twice), phase="distillation")["peak_gb"] == 24.8


@pytest.mark.parametrize(
    "table",
    [
        comparison,
        differences,
        partial(ablation, parts=PARTS),
        transfer,
        ratios,
    ],
)
def test_without_rows_a_table_is_empty_but_has_its_columns(table: object) -> None:
    whole = frame(all_rows())
    assert callable(table)
    found = table(whole[:0])
    assert len(found) == 0
    assert list(found) == list(table(whole))
