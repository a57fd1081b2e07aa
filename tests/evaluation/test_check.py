"""The table of the check, worked out by hand."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from diet_ray import storage
from diet_ray.evaluation import check as check_module
from diet_ray.evaluation.cells import Cell, CellResult
from diet_ray.evaluation.check import Line, check, recovered_gap, render, table
from diet_ray.evaluation.methods import METHODS
from diet_ray.logs.blocks import Blocks
from tests.made import made_blocks, small_config

# candidate -> method -> test AUC per seed
AUCS = {
    "dcn": {
        "full": [0.74, 0.76, 0.75],
        "warm": [0.70, 0.71, 0.69],
        "random": [0.72, 0.73, 0.71],
        "distilled": [0.75, 0.74, 0.73],
    },
    "wukong": {
        "full": [0.80, 0.70, 0.75],
        "warm": [0.75, 0.76, 0.74],
        "random": [0.76, 0.77, 0.75],
        "distilled": [0.78, 0.78, 0.78],
    },
}


def results(seeds: int = 3) -> dict[Cell, CellResult]:
    return {
        Cell(method, candidate, seed): CellResult(
            "key", {"auc": AUCS[candidate][method][seed], "logloss": 0.5 + seed / 10}, []
        )
        for seed in range(seeds)
        for candidate in AUCS
        for method in METHODS
    }


def line(lines: list[Line], candidate: str, method: str) -> Line:
    (found,) = [x for x in lines if (x.candidate, x.method) == (candidate, method)]
    return found


def test_a_line_per_candidate_and_method_and_the_mean() -> None:
    lines = table(list(AUCS), results())
    names = [(x.candidate, x.method) for x in lines]
    assert names == [(c, m) for c in ("dcn", "wukong", "mean") for m in METHODS]
    assert {x.seeds for x in lines} == {3}
    assert all(x.logloss == pytest.approx(0.6) for x in lines)


def test_the_recovered_gap_is_that_of_the_means() -> None:
    lines = table(list(AUCS), results())
    assert line(lines, "dcn", "full").recovered_gap == pytest.approx(1)
    assert line(lines, "dcn", "warm").recovered_gap == pytest.approx(0)
    assert line(lines, "dcn", "random").recovered_gap == pytest.approx(0.02 / 0.05)
    assert line(lines, "dcn", "distilled").recovered_gap == pytest.approx(0.04 / 0.05)


def test_no_gap_where_full_data_is_not_better_than_a_warm_start() -> None:
    lines = table(list(AUCS), results())
    assert {line(lines, "wukong", m).recovered_gap for m in METHODS} == {None}
    assert recovered_gap(0.7, warm=0.71, full=0.70) is None


@given(st.floats(0.5, 0.7), st.floats(0.01, 0.2), st.floats(-1, 2))
def test_the_gap_is_a_share_of_the_way_from_warm_to_full(
    warm: float, width: float, share: float
) -> None:
    found = recovered_gap(warm + share * width, warm, warm + width)
    assert found == pytest.approx(share, abs=1e-9)


def test_the_mean_over_candidates_is_taken_seed_by_seed() -> None:
    found = line(table(list(AUCS), results()), "mean", "full")
    by_seed = [0.77, 0.73, 0.75]
    assert found.auc == pytest.approx(0.75)
    low, high = stats.t.interval(0.95, 2, loc=0.75, scale=stats.sem(by_seed))
    assert found.auc_half_width == pytest.approx((high - low) / 2)


@pytest.mark.parametrize("method", METHODS)
def test_the_half_width_is_scipys(method: str) -> None:
    found = line(table(list(AUCS), results()), "dcn", method)
    values = AUCS["dcn"][method]
    low, high = stats.t.interval(0.95, 2, loc=found.auc, scale=stats.sem(values))
    assert found.auc_half_width == pytest.approx((high - low) / 2)


def test_one_seed_has_no_interval() -> None:
    assert {x.auc_half_width for x in table(list(AUCS), results(seeds=1))} == {None}


def test_one_candidate_needs_no_mean() -> None:
    only = {cell: result for cell, result in results().items() if cell.candidate == "dcn"}
    assert {x.candidate for x in table(["dcn"], only)} == {"dcn"}


def test_the_text_shows_every_number_and_a_dash_for_none() -> None:
    text = render(table(list(AUCS), results())).splitlines()
    assert len(text) == 2 + 3 * len(METHODS)
    dcn = next(row for row in text if row.startswith("dcn") and "distilled" in row)
    assert "0.7400 ±" in dcn
    assert dcn.split()[-2:] == ["0.80", "3"]
    wukong = next(row for row in text if row.startswith("wukong") and "random" in row)
    assert wukong.split()[-2:] == ["-", "3"]


def test_the_check_asks_for_every_cell_and_publishes_its_lines(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path_factory.mktemp("check")
    config = small_config(str(folder / "run"), evaluation={"seeds": 2})
    asked: list[Cell] = []

    def grid(_config: object, _blocks: Blocks, _uri: str, cells: list[Cell]) -> object:
        asked.extend(cells)
        return {cell: results()[cell] for cell in cells}

    monkeypatch.setattr(check_module, "run_grid", grid)
    lines = check(config, made_blocks(str(folder / "blocks"), rows=20), "distilled")
    assert len(set(asked)) == len(asked) == 2 * 2 * len(METHODS)
    published = storage.read_json(config.place("evaluation", "check.json"))
    assert published["split"] == "test"
    assert [Line(**content) for content in published["lines"]] == lines
    assert all(math.isfinite(x.auc) and x.seeds == 2 for x in lines)
