"""The check with which a run ends: candidates under full, warm, random and distilled training.

All methods under one protocol, `evaluation.protocol`, but for full data, which may have another
(`evaluation.full_protocol` says why). `jobs/benchmark.py` compares more, with a protocol tuned for
each method.
"""

from __future__ import annotations

import json
from typing import Any

import pandas as pd

from diet_ray import storage
from diet_ray.distill.parts import recipe_name
from diet_ray.evaluation import results as tidy
from diet_ray.evaluation.cells import Cell
from diet_ray.evaluation.gap import why_none
from diet_ray.evaluation.grid import run_grid
from diet_ray.evaluation.run import Run
from diet_ray.evaluation.studies import StudyCell, soft
from diet_ray.evaluation.tables import GAP, LEVEL, comparison

METHODS = ("full", "warm", "random", "distilled")
COLUMNS = ["candidate", "method", *LEVEL, *GAP, "seeds"]


def check(run: Run) -> pd.DataFrame:
    """Run what is missing of the grid; publish the table as ``evaluation/check.json``.

    A line per candidate and method, and per method one for the mean over candidates: COLUMNS.
    """
    evaluation = run.config.evaluation
    cells = [
        StudyCell("main", Cell(run, *soft(method), candidate, evaluation.protocol_of(method), seed))
        for seed in range(evaluation.seeds)
        for candidate in evaluation.candidates
        for method in METHODS
    ]
    found = run_grid([c.cell for c in cells], "Check of the distilled set")
    table = comparison(tidy.frame(cells, found))[COLUMNS]
    titles = [candidate.title for candidate in evaluation.candidates]
    if len(titles) == 1:
        table = table[table["candidate"].isin(titles)]
    by_candidate = pd.Categorical(table["candidate"], [*titles, "mean"])
    table = table.iloc[by_candidate.argsort(kind="stable")].reset_index(drop=True)
    uri = run.config.place("evaluation", "check.json")
    storage.write_json(
        uri, {"split": "test", "distilled": recipe_name(run.config), "lines": as_json(table)}
    )
    return table


def as_json(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The table's lines; null for a number that is not defined."""
    return json.loads(table.to_json(orient="records", double_precision=15))


def render(table: pd.DataFrame, recipe: str) -> str:
    """The table as text; below it what "distilled" stands for (`distill.parts.recipe_name`), and
    why a candidate has no gap."""
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
    return "\n".join(filter(None, [*rows, f"distilled: {recipe}", why_none(table)]))
