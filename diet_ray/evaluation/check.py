"""The check with which a run ends: candidates under full, warm, random and distilled training."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from scipy import stats

from diet_ray import storage
from diet_ray.config import RunConfig
from diet_ray.evaluation.cells import Cell, CellResult
from diet_ray.evaluation.grid import run_grid
from diet_ray.evaluation.methods import METHODS
from diet_ray.logs.blocks import Blocks


@dataclass(frozen=True)
class Line:
    """One line of the table: a candidate under a method, on the test block."""

    candidate: str
    method: str
    auc: float
    auc_half_width: float | None  # of the 95% t-interval over seeds; None with one seed
    logloss: float
    recovered_gap: float | None  # None where full is not above warm
    seeds: int


def check(config: RunConfig, blocks: Blocks, distilled: str) -> list[Line]:
    """Run what is missing of the grid; publish the table as ``evaluation/check.json``."""
    evaluation = config.evaluation
    cells = [
        Cell(method, candidate.title, seed)
        for seed in range(evaluation.seeds)
        for candidate in evaluation.candidates
        for method in METHODS
    ]
    results = run_grid(config, blocks, distilled, cells)
    lines = table([candidate.title for candidate in evaluation.candidates], results)
    uri = config.place("evaluation", "check.json")
    storage.write_json(uri, {"split": "test", "lines": [asdict(line) for line in lines]})
    return lines


def table(candidates: Sequence[str], results: Mapping[Cell, CellResult]) -> list[Line]:
    """A line per candidate and method, and per method one for the mean over candidates."""
    by_name: dict[tuple[str, str], list[CellResult]] = {}
    for cell, result in results.items():
        by_name.setdefault((cell.candidate, cell.method), []).append(result)
    lines = []
    for candidate in candidates:
        aucs = {m: [r.test["auc"] for r in by_name[candidate, m]] for m in METHODS}
        losses = {m: [r.test["logloss"] for r in by_name[candidate, m]] for m in METHODS}
        lines += _lines(candidate, aucs, losses)
    if len(candidates) > 1:
        lines += _lines(
            "mean", _over_candidates(by_name, "auc"), _over_candidates(by_name, "logloss")
        )
    return lines


def _over_candidates(
    by_name: Mapping[tuple[str, str], list[CellResult]], metric: str
) -> dict[str, list[float]]:
    """For every method the mean over candidates, seed by seed."""
    means = {}
    for method in METHODS:
        values = [[r.test[metric] for r in by_name[key]] for key in by_name if key[1] == method]
        means[method] = [float(v) for v in np.mean(values, axis=0)]
    return means


def _lines(
    candidate: str, aucs: dict[str, list[float]], losses: dict[str, list[float]]
) -> list[Line]:
    full, warm = float(np.mean(aucs["full"])), float(np.mean(aucs["warm"]))
    return [
        Line(
            candidate=candidate,
            method=method,
            auc=float(np.mean(aucs[method])),
            auc_half_width=_half_width(aucs[method]),
            logloss=float(np.mean(losses[method])),
            recovered_gap=recovered_gap(float(np.mean(aucs[method])), warm, full),
            seeds=len(aucs[method]),
        )
        for method in METHODS
    ]


def recovered_gap(auc: float, warm: float, full: float) -> float | None:
    """(auc - warm) / (full - warm); None if full data is not better than a warm start."""
    return (auc - warm) / (full - warm) if full > warm else None


def _half_width(values: Sequence[float]) -> float | None:
    if len(values) < 2:
        return None
    error = float(np.std(values, ddof=1)) / math.sqrt(len(values))
    return float(stats.t.ppf(0.975, len(values) - 1)) * error


def render(lines: Sequence[Line]) -> str:
    """The table as text."""
    head = f"{'candidate':<12} {'method':<10} {'AUC':>18} {'LogLoss':>8} {'gap':>6} {'seeds':>6}"
    rows = [head, "-" * len(head)]
    for line in lines:
        width = "" if line.auc_half_width is None else f" ±{line.auc_half_width:.4f}"
        gap = "-" if line.recovered_gap is None else f"{line.recovered_gap:.2f}"
        rows.append(
            f"{line.candidate:<12} {line.method:<10} {f'{line.auc:.4f}{width}':>18} "
            f"{line.logloss:>8.4f} {gap:>6} {line.seeds:>6}"
        )
    return "\n".join(rows)
