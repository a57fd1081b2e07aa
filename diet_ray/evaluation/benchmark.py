"""Everything that a benchmark trains: tuned protocols, studies, costs; from one distilled run.

Protocol: the run's own reference and distilled set exist. Protocols are tuned first (`tuning.py`),
then the studies' other sets are distilled, then all their cells are trained side by side. Every
cell, reference, stage and selection is kept under a name or key of its own, so a benchmark that
was killed goes on where it was; the Parquet files are written at the end.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from diet_ray.config import RunConfig
from diet_ray.evaluation import results as tidy
from diet_ray.evaluation.costs import measure_costs
from diet_ray.evaluation.grid import run_grid
from diet_ray.evaluation.methods import check_methods
from diet_ray.evaluation.run import Run
from diet_ray.evaluation.studies import Studies, arms_of, soft
from diet_ray.evaluation.tuning import tune
from diet_ray.logs.blocks import read_block
from diet_ray.models.registry import parameters_of


@dataclass(frozen=True)
class Benchmark:
    """What was found out."""

    results: pd.DataFrame  # a row per study and cell (`results.py`)
    tried: pd.DataFrame  # protocols, `tuning.py`
    logits: Mapping[object, np.ndarray]  # of the test block by the cells' keys
    labels: np.ndarray  # (n, K), of the test block
    costs: pd.DataFrame | None  # `costs.py`


def validate(config: RunConfig) -> None:
    """What can be known to fail before work starts. Raises ConfigError."""
    benchmark = config.benchmark
    check_methods(benchmark.methods)
    for network in (*benchmark.settings, *benchmark.references):
        parameters_of(network)


def run_benchmark(run: Run) -> Benchmark:
    """Train and judge what is missing; publish ``benchmark/results.parquet`` and its like."""
    config, blocks = run.config, run.blocks
    small_studies = [soft(method) for method in ("full", "warm", "random", "distilled")]
    arms = list(dict.fromkeys([*arms_of(config, config.benchmark.methods), *small_studies]))
    tuned = tune(run, arms)
    tidy.write(config.place("benchmark", "tuning.parquet"), tuned.tried)
    cells = Studies(run, tuned).cells()
    found = run_grid([c.cell for c in cells], "Benchmark")
    results = tidy.frame(cells, found)
    tidy.write(config.place("benchmark", "results.parquet"), results)
    costs = measure_costs(run) if "cost" in config.benchmark.studies else None
    if costs is not None:
        tidy.write(config.place("benchmark", "costs.parquet"), costs)
    test = read_block(blocks, blocks.block("test"))
    return Benchmark(results, tuned.tried, tidy.TestLogits(cells), test.labels, costs)
