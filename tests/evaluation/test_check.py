"""The check's table: which cells it asks for, and its lines."""

from __future__ import annotations

import math
from html import escape

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from diet_ray import storage
from diet_ray.evaluation import check as check_module
from diet_ray.evaluation.cells import Cell, CellResult
from diet_ray.evaluation.check import (
    COLUMNS,
    METHODS,
    Checked,
    as_json,
    check,
    render,
    render_html,
    verdict,
)
from tests.evaluation.prepared import Prepared, made_result
from tests.tables import cells

LEVELS = {"full": 0.75, "warm": 0.70, "random": 0.72, "distilled": 0.74}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Cell]:
    """The cells that a check asks for; each gets its method's level, shifted by its seed."""
    cells: list[Cell] = []

    def grid(waiting: list[Cell], _: str) -> list[CellResult]:
        cells.extend(waiting)
        shift = {"dcn": 0.0, "wukong": 0.01}
        return [
            made_result(LEVELS[c.method] + c.seed / 100 + shift[c.candidate.name]) for c in waiting
        ]

    monkeypatch.setattr(check_module, "run_grid", grid)
    return cells


def test_the_check_asks_for_every_cell_and_publishes_its_lines(
    prepared: Prepared, asked: list[Cell]
) -> None:
    run = prepared.run(evaluation={"seeds": 2, "full_protocol": {"batch_size": 8}})
    checked = check(run)
    table = checked.lines
    assert {(c.method, c.labels, c.candidate.title, c.seed) for c in asked} == {
        (method, "" if method in ("full", "warm") else "soft", candidate, seed)
        for method in METHODS
        for candidate in ("dcn", "wukong")
        for seed in (0, 1)
    }
    assert len(asked) == 16
    own = run.config.evaluation.protocol
    protocols = {"full": own.model_copy(update={"batch_size": 8})}
    assert all(cell.protocol == protocols.get(cell.method, own) for cell in asked)
    published = storage.read_json(run.config.place("evaluation", "check.json"))
    assert published == {
        "split": "test",
        "distilled": "DIET (paper)",
        "lines": as_json(table),
        "verdict": checked.verdict,
    }
    assert list(table.columns) == COLUMNS
    assert list(zip(table["candidate"], table["method"], strict=True)) == [
        (candidate, method) for candidate in ("dcn", "wukong", "mean") for method in METHODS
    ]


def test_the_lines_are_means_and_gaps(prepared: Prepared, asked: list[Cell]) -> None:
    lines = {
        (x["candidate"], x["method"]): x
        for x in as_json(check(prepared.run(evaluation={"seeds": 2})).lines)
    }
    assert lines["dcn", "distilled"]["auc"] == pytest.approx(0.745)
    assert lines["mean", "distilled"]["auc"] == pytest.approx(0.75)
    assert lines["mean", "full"]["logloss"] == pytest.approx(1.2 - 0.76)
    for candidate in ("dcn", "wukong", "mean"):
        gaps = [lines[candidate, method]["recovered_gap"] for method in METHODS]
        assert gaps == pytest.approx([1, 0, 0.4, 0.8])
    half_width = 12.706 * 0.01 / math.sqrt(2) / math.sqrt(2)  # t of one degree of freedom
    assert lines["dcn", "full"]["auc_half_width"] == pytest.approx(half_width, rel=1e-4)


def test_one_candidate_needs_no_mean_and_one_seed_has_no_interval(
    prepared: Prepared, asked: list[Cell]
) -> None:
    (only, _) = prepared.config().evaluation.candidates
    run = prepared.run(evaluation={"candidates": [only.model_dump()]})
    lines = as_json(check(run).lines)
    assert {line["candidate"] for line in lines} == {"dcn"}
    assert {line["auc_half_width"] for line in lines} == {None}
    assert {line["recovered_gap"] for line in lines} == {None}
    assert [line["lead"] for line in lines] == pytest.approx([0.05] * len(METHODS))


def test_a_check_that_is_switched_off_trains_nothing(prepared: Prepared, asked: list[Cell]) -> None:
    checked = check(prepared.run(evaluation={"methods": []}))
    assert (asked, len(checked.lines), checked.verdict) == ([], 0, "")
    assert as_json(checked.lines) == []
    assert render(checked, "random rows") == "not checked (evaluation.methods: [])"
    assert render_html(checked, "random rows") == "<p>not checked (evaluation.methods: [])</p>"


@pytest.mark.parametrize(
    ("methods", "left_out"),
    [
        (["warm", "random", "distilled"], "full"),
        (["full"], "warm"),
        (["distilled", "random"], "full and warm"),
    ],
)
def test_a_check_without_full_data_or_warm_start_has_no_gap_and_says_why(
    prepared: Prepared, asked: list[Cell], methods: list[str], left_out: str
) -> None:
    checked = check(prepared.run(evaluation={"methods": methods, "seeds": 2}))
    assert {cell.method for cell in asked} == set(methods)
    assert checked.lines["recovered_gap"].isna().all()
    text = render(checked, "random rows")
    assert f"and evaluation.methods leaves out {left_out}." in text
    for method, meaning in METHODS.items():
        assert (f"{meaning}" in text) == (method in methods)


def results(differences: dict[str, list[float]]) -> pd.DataFrame:
    """Cells of both methods, their AUC apart by `differences`: candidate to values by seed."""
    lines = [
        {
            "study": "main",
            "reference": "dcn",
            "method": method,
            "labels": "soft",
            "variant": "",
            "ratio": 0.015,
            "candidate": candidate,
            "network": candidate,
            "seed": seed,
            "auc": 0.7 + seed / 10 + (value if method == "distilled" else 0),
            "logloss": 0.5,
        }
        for candidate, values in differences.items()
        for seed, value in enumerate(values)
        for method in ("random", "distilled")
    ]
    return pd.DataFrame(lines)


@pytest.mark.parametrize(
    ("differences", "begins"),
    [
        ({"dcn": [0.02, 0.021, 0.022]}, "The distilled set beats a random selection of its size"),
        ({"dcn": [-0.02, -0.021, -0.022]}, "The distilled set is worse than a random selection"),
        ({"dcn": [0.02, -0.021, 0.022]}, "The distilled set cannot be told from a random selec"),
        (
            {"dcn": [0.02]},
            "One seed cannot tell whether the distilled set beats a random selection",
        ),
        # Each candidate's differences are noisy, their mean over candidates is not.
        (
            {"dcn": [0.01, 0.03, 0.02], "wukong": [0.03, 0.011, 0.02]},
            "The distilled set beats a random selection of its size beyond noise",
        ),
    ],
)
def test_the_verdict_is_that_of_a_paired_t_test(
    differences: dict[str, list[float]], begins: str
) -> None:
    text = verdict(results(differences))
    assert text.startswith(begins)
    means = np.mean(list(differences.values()), axis=0)
    assert f"AUC {means.mean():+.4f}" in text
    assert ("mean over 2 candidates" if len(differences) == 2 else "one candidate") in text
    if len(means) > 1:
        clear = stats.ttest_1samp(means, 0).pvalue < 0.05
        assert clear == ("beyond noise" in text)
        assert f"paired over {len(means)} seeds" in text


def test_there_is_no_verdict_without_both() -> None:
    both = results({"dcn": [0.02, 0.03]})
    assert verdict(both[both["method"] == "distilled"]) == ""


def test_the_text_shows_every_number_and_says_why_there_is_no_gap() -> None:
    values = ("dcn", "distilled", 0.74, 0.0123, 0.51234, 0.8, 0.05, 0.01, 3)
    line = dict(zip(COLUMNS, values, strict=True))
    without = {**line, "candidate": "wukong", "auc_half_width": None, "recovered_gap": None}
    others = [{**without, "method": method} for method in ("full", "warm")]
    text = render(Checked(pd.DataFrame([line, without, *others]), "A verdict."), "random rows")
    lines = text.splitlines()
    assert lines[2].split() == ["dcn", "distilled", "0.7400", "±0.0123", "0.5123", "0.80", "3"]
    assert lines[3].split() == ["wukong", "distilled", "0.7400", "0.5123", "-", "3"]
    assert [word.partition(":")[0] for word in lines[6:10]] == ["full", "warm", "distilled", "gap"]
    assert lines[8].endswith("(random rows)")
    assert lines[10].startswith("No recovered gap for wukong: ")
    assert "wukong +0.0500 ± 0.0100" in lines[10]
    assert lines[11:] == ["A verdict."]


def test_a_notebook_shows_the_same_as_a_table() -> None:
    nan = math.nan
    values = ("a<b", "distilled", 0.74, nan, 0.51234, nan, nan, nan, 1)
    checked = Checked(pd.DataFrame([dict(zip(COLUMNS, values, strict=True))]), "A verdict.")
    html = render_html(checked, "random rows")
    assert cells(html) == [COLUMNS, ["a<b", "distilled", "0.7400", "", "0.5123", "", "", "", "1"]]
    for note in render(checked, "random rows").splitlines()[3:]:
        assert f"<p>{escape(note)}</p>" in html
