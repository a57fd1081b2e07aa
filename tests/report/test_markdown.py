"""The page's tables, cell by cell."""

from __future__ import annotations

import numpy as np
import pandas as pd

from diet_ray.evaluation import tables
from diet_ray.report import markdown
from diet_ray.report.markdown import Section
from tests.evaluation.made_results import (
    PARTS,
    PHASES,
    ablation_rows,
    all_rows,
    frame,
    main_rows,
    ratio_rows,
    transfer_rows,
)


def cells(section: Section, caption: str = "") -> dict[str, dict[str, str]]:
    """A table's text by the first column and the column's name."""
    table = section.tables[caption]
    return {row.pop(table.columns[0]): row for row in table.to_dict("records")}


def test_table_3_lays_methods_against_candidates() -> None:
    (section,) = markdown.comparison(tables.comparison(frame(main_rows())))
    assert section.title == "Table 3: methods compared (reference dcn, 1.5% of the rows)"
    assert section.seeds == "Seeds: 3."
    assert list(section.tables["AUC"]) == ["Method", "dcn", "wukong", "mean"]
    assert list(cells(section, "AUC"))[:3] == ["Full data", "Cold start", "Warm start"]
    distilled = "Distilled, soft labels"
    assert cells(section, "AUC")[distilled]["wukong"] == "0.7500 ± 0.0025"
    assert cells(section, "LogLoss")[distilled]["mean"] == "0.4550"
    assert cells(section, "Recovered gap")[distilled]["dcn"] == "0.80"


def test_what_is_missing_is_a_dash() -> None:
    rows = [r for r in main_rows() if (r["method"], r["candidate"]) != ("warm", "dcn")]
    (section,) = markdown.comparison(tables.comparison(frame(rows)))
    assert cells(section, "AUC")["Warm start"]["dcn"] == "-"
    assert cells(section, "Recovered gap")["Full data"]["dcn"] == "-"


def test_a_note_says_why_there_is_no_gap() -> None:
    rows = [row for row in main_rows() if row["seed"] == 0]
    (section,) = markdown.comparison(tables.comparison(frame(rows)))
    assert cells(section, "Recovered gap")["Full data"]["dcn"] == "-"
    (note,) = section.notes
    assert note.startswith("No recovered gap for dcn, wukong, mean: ")
    (section,) = markdown.comparison(tables.comparison(frame(main_rows())))
    assert section.notes == ()
    every = [*main_rows(), *transfer_rows()]
    table = tables.transfer(frame([row for row in every if row["seed"] == 0]))
    (section,) = markdown.transfer(table)
    assert [note.partition(":")[0] for note in section.notes] == [
        f"No recovered gap for dcn, wukong, mean (reference {name})" for name in ("wukong", "dcn")
    ]


def test_two_ratios_of_one_method_keep_two_lines() -> None:
    more = [r | {"ratio": 0.05} for r in main_rows() if r["method"] == "distilled"]
    (section,) = markdown.comparison(tables.comparison(frame([*main_rows(), *more])))
    assert "Distilled, soft labels, 5%" in cells(section, "AUC")
    assert "1.5%, 5% of the rows" in section.title


def test_one_seed_has_no_half_width() -> None:
    rows = [row for row in main_rows() if row["seed"] == 0]
    table = tables.comparison(frame(rows))
    (section,) = markdown.comparison(table)
    assert cells(section, "AUC")["Full data"]["dcn"] == "0.7490"
    assert section.seeds == "Seeds: 1."
    (section,) = markdown.comparison(table.assign(seeds=[5, *[1] * (len(table) - 1)]))
    assert section.seeds == "Seeds: 1 to 5."


def test_differences_with_and_without_the_bootstrap() -> None:
    table = tables.differences(frame(main_rows()))
    (section,) = markdown.differences(table)
    assert list(section.tables[""]) == ["Against", "Candidate", "Difference ± seeds"]
    bounds = {"rows_low": -0.01, "rows_high": 0.03, "both_low": -0.02, "both_high": 0.04}
    (section,) = markdown.differences(table.assign(**bounds))
    shown = section.tables[""]
    line = shown[shown["Against"] == "Random selection, soft labels"].iloc[0]
    assert line["Candidate"] == "dcn"
    assert line["Difference ± seeds"] == "+0.0200 ± 0.0000"
    assert line["Over rows"] == "[-0.0100, +0.0300]"
    assert line["Over seeds and rows"] == "[-0.0200, +0.0400]"


def test_the_ablation_has_marks_like_the_papers() -> None:
    table = tables.ablation(frame([*main_rows(), *ablation_rows()]), PARTS)
    (section,) = markdown.ablation(table)
    found = cells(section)
    names = ("Fusion", "Target selection", "Memory selection")
    marks = {variant: "".join(line[name] for name in names) for variant, line in found.items()}
    assert marks == {
        "no-fusion": "✗✓✓",
        "no-target-selection": "✓✗✓",
        "none": "✗✗✗",
        "as configured": "✓✓✓",
    }
    assert found["as configured"]["Difference ± seeds"] == "-"
    assert found["no-fusion"]["Difference ± seeds"] == "-0.0020 ± 0.0000"


def test_the_ratios_begin_with_full_data() -> None:
    table = tables.ratios(frame([*main_rows(), *ratio_rows()]))
    (section,) = markdown.ratios(table, ["figure-3"])
    assert list(cells(section, "AUC"))[:2] == ["Full data", "0.1%, distilled by dcn"]
    assert cells(section, "Recovered gap")["1.5%, distilled by dcn"]["dcn"] == "0.80"
    assert section.pictures == ("figure-3",)


def test_the_transfer_has_a_line_per_reference() -> None:
    table = tables.transfer(frame([*main_rows(), *transfer_rows()]))
    (section,) = markdown.transfer(table)
    assert set(cells(section, "AUC")) == {
        "Full data",
        "1.5%, distilled by dcn",
        "1.5%, distilled by wukong",
    }
    assert list(section.tables["AUC"]) == ["Set", "dcn", "wukong", "mean"]


def test_costs_are_seconds_and_gigabytes() -> None:
    (section,) = markdown.costs(tables.costs(PHASES))
    line = section.tables[""].iloc[1].tolist()
    assert line == ["H200", "distillation", "30.0", "24.80"]


def test_an_empty_table_has_no_section() -> None:
    rows = frame(all_rows())
    undistilled = rows[rows["method"].isin(["full", "warm"])]
    assert markdown.transfer(tables.transfer(undistilled)) == []
    none = rows[:0]
    assert markdown.comparison(tables.comparison(none)) == []
    assert markdown.differences(tables.differences(none)) == []
    assert markdown.ablation(tables.ablation(none, PARTS)) == []
    assert markdown.ratios(tables.ratios(none), []) == []
    assert markdown.transfer(tables.transfer(none)) == []
    assert markdown.costs(tables.costs(PHASES[:0])) == []


def test_a_page_has_headings_readings_pictures_and_tables() -> None:
    table = pd.DataFrame({"Method": ["full"], "AUC": ["0.70"]})
    section = Section(
        "A table", "Read it so.", {"AUC": table}, "Seeds: 3.", ("figure-9",), ("A note.",)
    )
    lines = markdown.page("Benchmark", [section], ["ratio", "transfer"]).splitlines()
    assert [line for line in lines if line] == [
        "# Benchmark",
        "Left out, since the results have no rows of it: ratio, transfer.",
        "## A table",
        "Read it so. Seeds: 3.",
        "![A table](figure-9.png)",
        "[The same as SVG](figure-9.svg)",
        "**AUC**",
        "| Method   | AUC   |",
        "|:---------|:------|",
        "| full     | 0.70  |",
        "A note.",
    ]
    assert "Left out" not in markdown.page("Benchmark", [section], [])
    lines = markdown.page("Benchmark", [], [], "random rows").splitlines()
    assert lines == ["# Benchmark", "", "*Distilled* stands for: random rows."]


def test_protocols_tell_what_was_tried_and_chosen() -> None:
    keys = {"batch_size": 512, "learning_rate": 0.001}
    tried = [("full", "", np.nan, 0.7), ("full", "", np.nan, 0.75), ("random", "hard", 8, np.nan)]
    lines = [
        {"method": method, "labels": labels, **keys, "epochs": epochs, "validation_auc": auc}
        for method, labels, epochs, auc in tried
    ]
    edge = ["", "batch_size,learning_rate", ""]
    table = pd.DataFrame(lines).assign(chosen=[False, True, True], edge=edge)
    (section,) = markdown.protocols(table)
    assert section.title == "Protocols"
    shown = section.tables[""]
    assert list(shown) == ["Method", *keys, "epochs", "Validation AUC", "Chosen"]
    assert shown["Method"].tolist() == ["Full data"] * 2 + ["Random selection, hard labels"]
    assert shown["Validation AUC"].tolist() == ["0.7000", "0.7500", "-"]
    assert shown["Chosen"].tolist() == ["", "yes", "yes"]
    assert shown["batch_size"].tolist() == ["512", "512†", "512"]
    assert shown["learning_rate"].tolist() == ["0.001", "0.001†", "0.001"]
    assert shown["epochs"].tolist() == ["-", "-", "8"]
    assert len(section.notes) == 1
    assert section.notes[0].startswith("† The smallest or the largest value tried")


def test_without_an_edge_there_is_no_footnote() -> None:
    line = {"method": "full", "labels": "", "batch_size": 8, "validation_auc": 0.7}
    (section,) = markdown.protocols(pd.DataFrame([{**line, "chosen": True, "edge": ""}]))
    assert section.notes == ()
    assert "†" not in markdown.page("Benchmark", [section], [])


def test_no_protocols_no_section() -> None:
    assert markdown.protocols(pd.DataFrame()) == []
