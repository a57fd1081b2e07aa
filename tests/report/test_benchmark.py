"""The page and its pictures, in a folder."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from diet_ray.evaluation import tables
from diet_ray.evaluation.statistics import resampled_aucs
from diet_ray.report import benchmark
from tests.evaluation.made_results import (
    PARTS,
    PHASES,
    TEST_ROWS,
    all_rows,
    fidelity_rows,
    frame,
    made_logits,
    main_rows,
)


def test_the_page_links_to_what_is_there_and_is_the_same_each_time(tmp_path: Path) -> None:
    results = frame(all_rows())
    logits, labels = made_logits(results)
    for folder in ("one", "two"):
        page = benchmark.publish(
            str(tmp_path / folder),
            results,
            logits,
            labels,
            PHASES,
            parts=PARTS,
            recipe="one row in all",
            resamples=20,
            seed=4,
        )
        assert page == str(tmp_path / folder / "benchmark.md")
    text = Path(page).read_text()
    linked = set(re.findall(r"\(([^()]*\.(?:png|svg))\)", text))
    assert linked == {"figure-1.png", "figure-1.svg", "figure-3.png", "figure-3.svg"}
    files = {path.name for path in (tmp_path / "one").iterdir()}
    assert files == {*linked, "benchmark.md"}
    for name in files:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    assert "Left out" not in text
    assert text.count("\n## ") == 7
    for shown in (text, *(path.read_text() for path in (tmp_path / "one").glob("*.svg"))):
        assert "one row in all" in shown

    cells = results.index[results["study"] == "main"]
    resampled = resampled_aucs(logits, cells, labels, 20, 4)
    line = tables.differences(results, resampled, 4).iloc[0]
    assert f"[{line['rows_low']:+.4f}, {line['rows_high']:+.4f}]" in text


def test_studies_without_rows_are_left_out_and_named(tmp_path: Path) -> None:
    text = Path(benchmark.publish(str(tmp_path), frame(main_rows()))).read_text()
    assert "no rows of it: fidelity, ablation, ratio, transfer, cost." in text
    assert re.findall(r"^## (\w+)", text, re.MULTILINE) == ["Table", "Distilled"]
    assert "Over rows" not in text
    assert [path.name for path in tmp_path.iterdir()] == ["benchmark.md"]


def test_logits_of_other_studies_are_not_needed(tmp_path: Path) -> None:
    results = frame([*main_rows(), *fidelity_rows()])
    logits, labels = made_logits(results[results["study"] == "main"])
    text = Path(
        benchmark.publish(str(tmp_path), results, logits, labels, resamples=5)
    ).read_text()  # fmt: skip
    assert "Over seeds and rows" in text
    assert "bootstrap of test rows" in text


def test_users_are_resampled_whole_and_the_page_says_so(tmp_path: Path) -> None:
    results = frame(main_rows())
    logits, labels = made_logits(results)
    users = np.arange(TEST_ROWS) // 5
    page = benchmark.publish(str(tmp_path), results, logits, labels, resamples=20, groups=users)
    text = Path(page).read_text()
    resampled = resampled_aucs(logits, results.index, labels, 20, 0, users)
    line = tables.differences(results, resampled, 0).iloc[0]
    assert f"[{line['rows_low']:+.4f}, {line['rows_high']:+.4f}]" in text
    assert "bootstrap of test users" in text


@pytest.mark.parametrize("references", [("dcn",), ("dcn", "wukong")])
def test_every_reference_has_its_figure_1(references: tuple[str, ...], tmp_path: Path) -> None:
    rows = [
        row | ({"reference": reference} if row["method"] != "full" else {})
        for reference in references
        for row in fidelity_rows()
        if row["method"] != "full" or reference == "dcn"
    ]
    benchmark.publish(str(tmp_path), frame(rows))
    names = sorted(path.stem for path in tmp_path.glob("*.png"))
    assert names == ["figure-1", "figure-1-2"][: len(references)]


def test_protocols_come_last_and_are_no_study(tmp_path: Path) -> None:
    line = {"method": "full", "labels": "", "epochs": 8, "validation_auc": 0.7, "chosen": True}
    line |= {"edge": ""}
    tried = pd.DataFrame([line])
    text = Path(benchmark.publish(str(tmp_path), frame(main_rows()), tried=tried)).read_text()
    assert re.findall(r"^## (\w+)", text, re.MULTILINE)[-1] == "Protocols"
    assert "no rows of it: fidelity, ablation, ratio, transfer, cost." in text
