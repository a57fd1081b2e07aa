"""The check's table: which cells it asks for, and its lines."""

from __future__ import annotations

import math

import pandas as pd
import pytest

from diet_ray import storage
from diet_ray.evaluation import check as check_module
from diet_ray.evaluation.cells import Cell, CellResult
from diet_ray.evaluation.check import COLUMNS, METHODS, as_json, check, render
from tests.evaluation.prepared import Prepared, made_result

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
    table = check(run)
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
    expected = {"split": "test", "distilled": "DIET (paper)", "lines": as_json(table)}
    assert published == expected
    assert list(table.columns) == COLUMNS
    assert list(zip(table["candidate"], table["method"], strict=True)) == [
        (candidate, method) for candidate in ("dcn", "wukong", "mean") for method in METHODS
    ]


def test_the_lines_are_means_and_gaps(prepared: Prepared, asked: list[Cell]) -> None:
    lines = {
        (x["candidate"], x["method"]): x
        for x in as_json(check(prepared.run(evaluation={"seeds": 2})))
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
    lines = as_json(check(run))
    assert {line["candidate"] for line in lines} == {"dcn"}
    assert {line["auc_half_width"] for line in lines} == {None}
    assert {line["recovered_gap"] for line in lines} == {None}
    assert [line["lead"] for line in lines] == pytest.approx([0.05] * len(METHODS))


def test_the_text_shows_every_number_and_says_why_there_is_no_gap() -> None:
    values = ("dcn", "distilled", 0.74, 0.0123, 0.51234, 0.8, 0.05, 0.01, 3)
    line = dict(zip(COLUMNS, values, strict=True))
    without = {**line, "candidate": "wukong", "auc_half_width": None, "recovered_gap": None}
    text = render(pd.DataFrame([line, without]), "random rows").splitlines()
    assert len(text) == 6
    assert text[2].split() == ["dcn", "distilled", "0.7400", "±0.0123", "0.5123", "0.80", "3"]
    assert text[3].split() == ["wukong", "distilled", "0.7400", "0.5123", "-", "3"]
    assert text[4] == "distilled: random rows"
    assert text[5].startswith("No recovered gap for wukong: ")
    assert "wukong +0.0500 ± 0.0100" in text[5]
    assert "No recovered gap" not in render(pd.DataFrame([line]), "random rows")
