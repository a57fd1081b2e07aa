"""The fidelity study laid out: tables of `evaluation.fidelity` become sections of the page.

Over fewer than FEWEST_SETTINGS settings an arm's numbers say next to nothing: a sentence names it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from diet_ray.evaluation.agreement import FEWEST_SETTINGS
from diet_ray.report.figures import method_name
from diet_ray.report.markdown import NONE, Section, fixed


def agreement(table: pd.DataFrame, pictures: Sequence[str]) -> list[Section]:
    """Does a cheap method order settings as full training does? A line per arm.

    table: method, score (what the method's settings are ordered by), seeds and repetitions,
    settings, cost (rows trained over those of one full training), seconds (over those of one full
    training), spearman_low, spearman_high, pairs (significant ones), pairs_right, within_right,
    between_right (of pairs within and between families), and by their
    names in `evaluation.agreement.Agreement` spearman, reliability_scores, corrected, kendall,
    tau_ap, top1, top1_deviations, top3 and top3_deviations. NaN where undefined.
    """
    if table.empty:
        return []
    reading = (
        "How full data's test AUC orders settings (mean over seeds) against how a method does: the "
        "mean over its repetitions, of which each has seeds, a reference and a set of its own. "
        "Cost is the rows trained for one setting, all seeds of a repetition together, and time "
        "is seconds, both over one full training's. Spearman has a 95% interval over settings, "
        "drawn within families; repeatability is that of two repetitions with each other; "
        "corrected is what Spearman would be without the noise on either side; "
        "tau-AP weighs the top most. Regret is the AUC lost by taking the method's best setting, "
        "or the truly best of its three best, in brackets the same in seed deviations of full "
        "data. Last comes the share of pairs ordered right among those whose difference under full "
        "data is significant (5% false discoveries): of all, within and between families."
    )
    few = table[table["settings"] < FEWEST_SETTINGS]
    if len(few):
        named = [
            f"{method_name(line['method'], '')} ({line['settings']})"
            for line in few.to_dict("records")
        ]
        reading += (
            f" Too few settings to tell an order (under {FEWEST_SETTINGS}): {', '.join(named)}."
        )
    lines = table[table["settings"] >= FEWEST_SETTINGS].to_dict("records")
    shown = {"": pd.DataFrame([_line(line) for line in lines])} if lines else {}
    title = "Figure 1: does a cheap method order settings as full training does?"
    return [Section(title, reading, shown, pictures=tuple(pictures))]


def differences(table: pd.DataFrame, ours: str) -> list[Section]:
    """Spearman of the arm `ours` less that of every other: method, difference, low, high, clear."""
    if table.empty:
        return []
    shown = pd.DataFrame(
        {
            "Other": [method_name(name, "") for name in table["method"]],
            "Difference": [_difference(line) for line in table.to_dict("records")],
            "Clear of zero": ["yes" if clear else "no" for clear in table["clear"]],
        }
    )
    reading = (
        f"Spearman of *{method_name(ours, '')}* with full data, less that of each other arm, with "
        "its 95% interval on the same resamples of the settings."
    )
    return [Section("Agreement against every other arm", reading, {"": shown})]


def _line(line: Mapping[Any, Any]) -> dict[str, str]:
    pairs = int(line["pairs"])
    return {
        "Method": method_name(line["method"], ""),
        "Score": line["score"],
        "Seeds": str(line["seeds"]),
        "Repetitions": str(line["repetitions"]),
        "Settings": str(line["settings"]),
        "Cost": _percent(line["cost"]),
        "Time": _percent(line["seconds"]),
        "Spearman": _correlation(line["spearman"])
        + _bounds(line["spearman_low"], line["spearman_high"], ".2f"),
        "Repeatability": _correlation(line["reliability_scores"]),
        "Corrected": _correlation(line["corrected"]),
        "Kendall": _correlation(line["kendall"]),
        "tau-AP": _correlation(line["tau_ap"]),
        "Top-1 regret": _regret(line["top1"], line["top1_deviations"]),
        "Top-3 regret": _regret(line["top3"], line["top3_deviations"]),
        "Significant pairs right": f"{_percent(line['pairs_right'])} of {pairs}" if pairs else NONE,
        "Within families": _percent(line["within_right"]),
        "Between": _percent(line["between_right"]),
    }


def _difference(line: Mapping[Any, Any]) -> str:
    if pd.isna(line["difference"]):
        return NONE
    return f"{line['difference']:+.2f}" + _bounds(line["low"], line["high"], "+.2f")


def _bounds(low: float, high: float, form: str) -> str:
    return "" if pd.isna(low) else f" [{low:{form}}, {high:{form}}]"


def _correlation(value: float) -> str:
    return NONE if pd.isna(value) else f"{value:.3f}"


def _percent(ratio: float) -> str:
    return NONE if pd.isna(ratio) else f"{100 * ratio:.3g}%"


def _regret(auc: float, deviations: float) -> str:
    return fixed(auc) + ("" if pd.isna(deviations) else f" ({deviations:.1f})")
