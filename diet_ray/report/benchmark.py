"""The benchmark's page: ``benchmark.md`` and its pictures, in one folder.

Protocol: pictures first, the page last, so whoever finds the page finds what it links to.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping

import numpy as np
import pandas as pd

from diet_ray import storage
from diet_ray.distill.parts import Parts
from diet_ray.evaluation import tables
from diet_ray.evaluation.agreement import FEWEST_SETTINGS
from diet_ray.evaluation.statistics import resampled_aucs
from diet_ray.report import agreement, figures, markdown

PAGE = "benchmark.md"
RESAMPLES = 500
NO_PARTS: Mapping[str, Parts] = {}


def publish(
    folder: str,
    results: pd.DataFrame,
    logits: Mapping[Hashable, np.ndarray] | None = None,
    labels: np.ndarray | None = None,
    phases: pd.DataFrame | None = None,
    tried: pd.DataFrame | None = None,
    parts: Mapping[str, Parts] = NO_PARTS,
    recipe: str = "",
    resamples: int = RESAMPLES,
    seed: int = 0,
    groups: np.ndarray | None = None,
    fidelity: tuple[pd.DataFrame, pd.DataFrame] | None = None,
) -> str:
    """Write the page and its pictures below a folder (any URI); returns the page's URI.

    results: a row per cell, indexed by the cell's key (columns: `evaluation.tables`).
    logits, labels: test logits (n, K) by cell, of studies main and ablation at least, and the
    test labels (n, K); without them the differences have no interval over rows.
    phases: for Table 5, see `tables.costs`. tried: see `markdown.protocols`. parts: of all the
    ablation's variants, see `tables.ablation`. recipe: what the distilled set is called. groups:
    the user of every test row, integers (n,); then the intervals over rows resample users, each
    with all its rows. fidelity: `evaluation.fidelity.fidelity_table` and `differences_table`.
    """
    resampled = None
    if logits is not None and labels is not None:
        cells = results.index[results["study"].isin(["main", "ablation"])]
        resampled = resampled_aucs(logits, cells, labels, resamples, seed, groups)
    drawn = markdown.ROWS if groups is None else markdown.USERS
    ratios = tables.ratios(results)
    by_study = {
        "fidelity": _fidelity(folder, fidelity),
        "main": [
            *markdown.comparison(tables.comparison(results)),
            *markdown.differences(tables.differences(results, resampled, seed), drawn),
        ],
        "ablation": markdown.ablation(tables.ablation(results, parts, resampled, seed), drawn),
        "ratio": markdown.ratios(ratios, _ratio_pictures(folder, ratios, recipe)),
        "transfer": markdown.transfer(tables.transfer(results)),
        "cost": [] if phases is None else markdown.costs(tables.costs(phases)),
    }
    left_out = [study for study, sections in by_study.items() if not sections]
    sections = [section for found in by_study.values() for section in found]
    if tried is not None:
        sections += markdown.protocols(tried)
    page = storage.join(folder, PAGE)
    text = markdown.page("Benchmark", sections, left_out, recipe)
    storage.write_bytes(page, text.encode())
    return page


def _fidelity(
    folder: str, found: tuple[pd.DataFrame, pd.DataFrame] | None
) -> list[markdown.Section]:
    """Figure 1 and its tables; where there are too few settings, the sentence that says so."""
    if found is None or found[0].empty:
        return []
    table, differences = found
    if table["settings"].max() < FEWEST_SETTINGS:
        return agreement.agreement(table, [])
    figures.publish(figures.agreement_figure(table), folder, "figure-1")
    return [
        *agreement.agreement(table, ["figure-1"]),
        *agreement.differences(differences, table["method"].iloc[-1]),
    ]


def _ratio_pictures(folder: str, ratios: pd.DataFrame, recipe: str) -> list[str]:
    if not (ratios["method"] == "distilled").any():
        return []
    figures.publish(figures.ratio_figure(ratios, recipe), folder, "figure-3")
    return ["figure-3"]
