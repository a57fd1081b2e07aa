"""The fidelity study's sections, cell by cell."""

from __future__ import annotations

import numpy as np
import pandas as pd

from diet_ray.evaluation.agreement import FEWEST_SETTINGS
from diet_ray.report.agreement import agreement, differences
from diet_ray.report.markdown import Section

LINE = {
    "method": "random",
    "score": "auc",
    "seeds": 3,
    "repetitions": 2,
    "settings": 23,
    "cost": 0.0234,
    "seconds": 0.0412,
    "spearman": 0.8612,
    "spearman_low": 0.712,
    "spearman_high": 0.94,
    "reliability_scores": 0.877,
    "corrected": 0.93,
    "kendall": 0.7,
    "tau_ap": 0.66,
    "top1": 0.0012,
    "top1_deviations": 0.84,
    "top3": 0.0,
    "top3_deviations": 0.0,
    "pairs": 132,
    "pairs_right": 0.9545,
    "within_right": 0.801,
    "between_right": 0.99,
}


def cells(section: Section) -> dict[str, dict[str, str]]:
    """The table's text by the first column and the column's name."""
    table = section.tables[""]
    return {row.pop(table.columns[0]): row for row in table.to_dict("records")}


def test_the_agreement_is_beside_its_cost() -> None:
    (section,) = agreement(pd.DataFrame([LINE]), ["figure-1"])
    assert section.pictures == ("figure-1",)
    assert "Too few settings" not in section.reading
    assert cells(section)["Random selection"] == {
        "Score": "auc",
        "Seeds": "3",
        "Repetitions": "2",
        "Settings": "23",
        "Cost": "2.34%",
        "Time": "4.12%",
        "Spearman": "0.861 [0.71, 0.94]",
        "Repeatability": "0.877",
        "Corrected": "0.930",
        "Kendall": "0.700",
        "tau-AP": "0.660",
        "Top-1 regret": "0.0012 (0.8)",
        "Top-3 regret": "0.0000 (0.0)",
        "Significant pairs right": "95.5% of 132",
        "Within families": "80.1%",
        "Between": "99%",
    }


def test_what_an_agreement_lacks_is_left_out() -> None:
    bounds, shares = ("spearman_low", "spearman_high"), ("pairs_right", "within_right")
    others = ("between_right", "reliability_scores", "corrected", "top1_deviations", "seconds")
    none = LINE | dict.fromkeys((*bounds, *shares, *others), np.nan) | {"pairs": 0}
    (section,) = agreement(pd.DataFrame([none]), [])
    line = cells(section)["Random selection"]
    assert (line["Spearman"], line["Top-1 regret"]) == ("0.861", "0.0012")
    empty = ("Time", "Repeatability", "Corrected", "Within families", "Between")
    assert {line[name] for name in (*empty, "Significant pairs right")} == {"-"}
    assert agreement(pd.DataFrame(), []) == []


def test_too_few_settings_have_a_sentence_instead_of_numbers() -> None:
    few = LINE | {"method": "cold", "settings": FEWEST_SETTINGS - 1}
    sentence = f"Too few settings to tell an order (under {FEWEST_SETTINGS}): Cold start (7)."
    (section,) = agreement(pd.DataFrame([LINE, few]), [])
    assert list(cells(section)) == ["Random selection"]
    assert section.reading.endswith(sentence)
    (section,) = agreement(pd.DataFrame([few]), [])
    assert section.tables == {}
    assert section.reading.endswith(sentence)


def test_every_other_arm_has_its_difference() -> None:
    table = pd.DataFrame(
        [
            {"method": "cold", "difference": 0.214, "low": 0.05, "high": 0.4, "clear": True},
            {"method": "mine", "difference": -0.02, "low": -0.1, "high": 0.07, "clear": False},
            {"method": "alone", "difference": 0.1, "low": np.nan, "high": np.nan, "clear": False},
            {"method": "flat", "difference": np.nan, "low": np.nan, "high": 0.1, "clear": False},
        ]
    )
    (section,) = differences(table, "distilled")
    assert section.reading.startswith("Spearman of *Distilled* with full data, less that of each")
    assert cells(section) == {
        "Cold start": {"Difference": "+0.21 [+0.05, +0.40]", "Clear of zero": "yes"},
        "mine": {"Difference": "-0.02 [-0.10, +0.07]", "Clear of zero": "no"},
        "alone": {"Difference": "+0.10", "Clear of zero": "no"},
        "flat": {"Difference": "-", "Clear of zero": "no"},
    }
    assert differences(pd.DataFrame(), "distilled") == []
