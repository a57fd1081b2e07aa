"""The check with which a run ends: candidates under full, warm, random and distilled training.

`evaluation.methods` chooses among them; `[]` switches the check off. All methods under one
protocol, `evaluation.protocol`, but for full data, which may have another
(`evaluation.full_protocol` says why). `jobs/benchmark.py` compares more, with a protocol tuned for
each method.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from html import escape
from typing import Any

import pandas as pd

from diet_ray import storage
from diet_ray.config import RunConfig
from diet_ray.distill.parts import recipe_name
from diet_ray.evaluation import results as tidy
from diet_ray.evaluation.cells import Cell
from diet_ray.evaluation.gap import why_none
from diet_ray.evaluation.grid import run_grid
from diet_ray.evaluation.run import Run
from diet_ray.evaluation.studies import StudyCell, soft
from diet_ray.evaluation.tables import GAP, LEVEL, MEAN, comparison, differences

METHODS = {
    "full": "trained from scratch through the whole log, one epoch; what a set stands in for",
    "warm": "the reference's embedding tables, then one epoch on the newest block; no set",
    "random": "as warm, after a warm-up on as many rows as the set has, drawn at random",
    "distilled": "as warm, after a warm-up on the distilled set",
}
"""What the table says about each."""

GAP_MEANS = "share of full's lead in AUC over warm that a method recovers: warm is 0, full is 1"
NOT_CHECKED = "not checked (evaluation.methods: [])"
COLUMNS = ["candidate", "method", *LEVEL, *GAP, "seeds"]


@dataclass(frozen=True)
class Checked:
    """What a check found out; nothing where it is switched off."""

    lines: pd.DataFrame  # COLUMNS
    verdict: str = ""  # on the distilled set against a random selection, a sentence


def check_cells(run: Run) -> list[StudyCell]:
    """The trainings that the check asks for."""
    evaluation = run.config.evaluation
    return [
        StudyCell("main", Cell(run, *soft(method), candidate, evaluation.protocol_of(method), seed))
        for seed in range(evaluation.seeds)
        for candidate in evaluation.candidates
        for method in evaluation.methods
    ]


def check(run: Run) -> Checked:
    """Run what is missing of the grid; publish the table as ``evaluation/check.json``.

    A line per candidate and method, and per method one for the mean over candidates: COLUMNS.
    """
    cells = check_cells(run)
    if not cells:
        return Checked(pd.DataFrame(columns=COLUMNS))
    found = tidy.frame(cells, run_grid([c.cell for c in cells], "Check of the distilled set"))
    checked = Checked(_in_order(comparison(found)[COLUMNS], run.config), verdict(found))
    content = {
        "split": "test",
        "distilled": recipe_name(run.config),
        "lines": as_json(checked.lines),
        "verdict": checked.verdict,
    }
    storage.write_json(run.config.place("evaluation", "check.json"), content)
    return checked


def _in_order(table: pd.DataFrame, config: RunConfig) -> pd.DataFrame:
    """Candidate by candidate as configured, their mean last."""
    titles = [candidate.title for candidate in config.evaluation.candidates]
    if len(titles) == 1:
        table = table[table["candidate"].isin(titles)]
    by_candidate = pd.Categorical(table["candidate"], [*titles, MEAN])
    return table.iloc[by_candidate.argsort(kind="stable")].reset_index(drop=True)


def verdict(results: pd.DataFrame) -> str:
    """Whether the distilled set beats a random selection beyond noise; empty without both.

    The difference of their AUCs is taken candidate by candidate, averaged over the candidates seed
    by seed, and judged by the t-interval over seeds: candidates of one seed share their random
    rows, so they are no independent draws. results: a row per cell (`results.py`).
    """
    found = differences(results)
    found = found[found["method"] == "random"]
    mean = found[found["candidate"] == MEAN]
    if found.empty:
        return ""
    line = (found if mean.empty else mean).iloc[0]
    over = "one candidate" if mean.empty else f"mean over {len(found) - 1} candidates"
    if math.isnan(line["half_width"]):
        return (
            "One seed cannot tell whether the distilled set beats a random selection of its size "
            f"(AUC {line['difference']:+.4f}, {over}); set evaluation.seeds to 3 or more."
        )
    told = (
        f"AUC {line['difference']:+.4f} ± {line['half_width']:.4f}, {over}, paired over "
        f"{line['seeds']} seeds, 95% interval"
    )
    if abs(line["difference"]) <= line["half_width"]:
        return (
            "The distilled set cannot be told from a random selection of its size "
            f"({told}); more evaluation.seeds would show a smaller difference."
        )
    beats = "beats" if line["difference"] > 0 else "is worse than"
    return f"The distilled set {beats} a random selection of its size beyond noise ({told})."


def as_json(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The table's lines; null for a number that is not defined."""
    return json.loads(table.to_json(orient="records", double_precision=15))


def render(checked: Checked, recipe: str) -> str:
    """The table as text, what its words mean, why a candidate has no gap, and the verdict.

    recipe: what "distilled" stands for (`distill.parts.recipe_name`).
    """
    table = checked.lines
    if table.empty:
        return NOT_CHECKED
    head = f"{'candidate':<12} {'method':<10} {'AUC':>18} {'LogLoss':>8} {'gap':>6} {'seeds':>6}"
    rows = [head, "-" * len(head)]
    for line in table.to_dict(orient="records"):
        width = "" if pd.isna(line["auc_half_width"]) else f" ±{line['auc_half_width']:.4f}"
        gap = "-" if pd.isna(line["recovered_gap"]) else f"{line['recovered_gap']:.2f}"
        auc = f"{line['auc']:.4f}{width}"
        rows.append(
            f"{line['candidate']:<12} {line['method']:<10} {auc:>18} "
            f"{line['logloss']:>8.4f} {gap:>6} {line['seeds']:>6}"
        )
    return "\n".join([*rows, *_notes(checked, recipe)])


def render_html(checked: Checked, recipe: str) -> str:
    """As `render`, as an HTML table."""
    if checked.lines.empty:
        return f"<p>{escape(NOT_CHECKED)}</p>"
    table = checked.lines.to_html(index=False, na_rep="", float_format="{:.4f}".format)
    return table + "".join(f"<p>{escape(note)}</p>" for note in _notes(checked, recipe))


def _notes(checked: Checked, recipe: str) -> list[str]:
    """What words mean, why there is no gap, the verdict."""
    table = checked.lines
    told = [*_legend(table, recipe), _no_gap(table), checked.verdict]
    return [note for note in told if note]


def _legend(table: pd.DataFrame, recipe: str) -> list[str]:
    shown = set(table["method"])
    told = {method: meaning for method, meaning in METHODS.items() if method in shown}
    if "distilled" in told:
        told["distilled"] += f" ({recipe})"
    if table["recovered_gap"].notna().any():
        told["gap"] = GAP_MEANS
    return [f"{word + ':':<10} {meaning}" for word, meaning in told.items()]


def _no_gap(table: pd.DataFrame) -> str:
    missing = [method for method in ("full", "warm") if method not in set(table["method"])]
    if missing:
        return (
            f"No recovered gap: it is a {GAP_MEANS.partition(':')[0]}, and evaluation.methods "
            f"leaves out {' and '.join(missing)}."
        )
    return why_none(table)
