"""The page and its pictures, in a folder."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd

from diet_ray.evaluation import tables
from diet_ray.evaluation.fidelity import differences_table, fidelity_table
from diet_ray.evaluation.statistics import resampled_aucs
from diet_ray.report import benchmark
from tests.evaluation.made_results import (
    ARMS,
    PARTS,
    PHASES,
    TEST_ROWS,
    all_rows,
    fidelity_rows,
    frame,
    made_logits,
    main_rows,
)


def fidelity_tables(results: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    return (
        fidelity_table(results, ARMS, None, seed=0),
        differences_table(results, ARMS, ARMS[-1].title, seed=0),
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
            fidelity=fidelity_tables(results),
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
    assert text.count("\n## ") == 8
    for shown in (text, (tmp_path / "one" / "figure-3.svg").read_text()):
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


def test_figure_1_has_every_arm_and_its_differences_below(tmp_path: Path) -> None:
    results = frame(fidelity_rows())
    found = fidelity_tables(results)
    text = Path(benchmark.publish(str(tmp_path), results, fidelity=found)).read_text()
    assert re.findall(r"^## (\w+)", text, re.MULTILINE) == ["Figure", "Agreement"]
    assert text.index("| ours") < text.index("Spearman of *ours*")
    svg = (tmp_path / "figure-1.svg").read_text()
    assert "ours" in svg
    assert "Random selection" in svg


def test_of_too_few_settings_no_correlation_is_shown(tmp_path: Path) -> None:
    results = frame(fidelity_rows(settings=3))
    found = fidelity_tables(results)
    text = Path(benchmark.publish(str(tmp_path), results, fidelity=found)).read_text()
    assert "(under 8): Random selection (6), ours (6)." in text
    assert text.count("\n## ") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["benchmark.md"]


def test_protocols_come_last_and_are_no_study(tmp_path: Path) -> None:
    line = {"method": "full", "labels": "", "epochs": 8, "validation_auc": 0.7, "chosen": True}
    line |= {"edge": ""}
    tried = pd.DataFrame([line])
    text = Path(benchmark.publish(str(tmp_path), frame(main_rows()), tried=tried)).read_text()
    assert re.findall(r"^## (\w+)", text, re.MULTILINE)[-1] == "Protocols"
    assert "no rows of it: fidelity, ablation, ratio, transfer, cost." in text
