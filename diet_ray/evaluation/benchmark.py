"""Everything that a benchmark trains: tuned protocols, studies, costs; from one distilled run.

Protocol: `validate` and `check_sizes` refuse what would fail hours later. The run's own reference
and distilled set exist. Protocols are tuned first (`tuning.py`), then the studies' other sets are
distilled, then all their cells are trained side by side. Every cell, reference, stage and
selection is kept under a name or key of its own, so a benchmark that was killed goes on where it
was; the Parquet files are written at the end, and only costs are measured anew.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from diet_ray import progress
from diet_ray.config import ConfigError, NetworkConfig, RunConfig
from diet_ray.distill import stream
from diet_ray.distill.boundary import memory_sizes
from diet_ray.distill.proxy import proxy_networks
from diet_ray.evaluation import fidelity
from diet_ray.evaluation import results as tidy
from diet_ray.evaluation.costs import measure_costs
from diet_ray.evaluation.grid import run_grid
from diet_ray.evaluation.methods import check_methods
from diet_ray.evaluation.run import Run
from diet_ray.evaluation.statistics import resampled_aucs
from diet_ray.evaluation.studies import (
    Studies,
    all_arms,
    derived,
    soft,
    variations,
)
from diet_ray.evaluation.tuning import tune
from diet_ray.logs.blocks import Blocks, Rows, read_block
from diet_ray.models.registry import parameters_of
from diet_ray.training import reference

RESAMPLES = 1_000  # of the test users, for the pairs that full data tells apart


@dataclass(frozen=True)
class Benchmark:
    """What was found out."""

    results: pd.DataFrame  # a row per study and cell (`results.py`)
    tried: pd.DataFrame  # protocols, `tuning.py`
    logits: Mapping[object, np.ndarray]  # of the test block by the cells' keys
    labels: np.ndarray  # (n, K), of the test block
    costs: pd.DataFrame | None  # `costs.py`
    users: np.ndarray | None  # (n,), the user of every test row; None where no field names it
    fidelity: tuple[pd.DataFrame, pd.DataFrame] | None  # agreement, differences (`fidelity.py`)


def validate(config: RunConfig) -> None:
    """What can be known to fail before there are blocks. Raises ConfigError."""
    benchmark = config.benchmark
    check_methods(benchmark.methods)
    for key in ("studies", "methods", "labels", "ratios"):
        _check_once(f"benchmark.{key}", getattr(benchmark, key))
    fidelity.validate(config)
    for network in benchmark.references:
        parameters_of(network)
    _check_references(config.reference.network, benchmark.references)
    by_output: dict[str, tuple[RunConfig, str]] = {}
    for variation in variations(config):
        varied = derived(config, variation)
        if variation.study == "ablation" and varied == config:
            raise ConfigError(
                f"benchmark.ablations.{variation.variant}: every key already has that value in "
                "this recipe, which would be compared with itself; change another key or remove it"
            )
        made = varied, "" if varied == config else variation.variant
        if by_output.setdefault(varied.output, made) != made:
            raise ConfigError(
                f"benchmark: two sets would lie in {varied.output}; rename one of the ablations, "
                "references or labels"
            )
        for network in proxy_networks(varied):
            parameters_of(network)


def _check_once(what: str, values: Sequence[object]) -> None:
    for value in values:
        if values.count(value) > 1:
            raise ConfigError(f"{what}: {value!r} stands there twice; remove or rename one")


def _check_references(own: NetworkConfig, others: Sequence[NetworkConfig]) -> None:
    for network in others:
        if network.title == own.title and not network.same_as(own):
            raise ConfigError(
                f"benchmark.references: {network.title!r} is also what reference.network is "
                "called; give one of them a label"
            )


def check_sizes(config: RunConfig, blocks: Blocks) -> None:
    """Whether every set that the studies distil takes rows of every block, and what lies in its
    place already is of the same settings. Raises ConfigError, CheckpointError, ArtifactError."""
    if config.benchmark.user_field not in (None, *blocks.fields):
        raise ConfigError(
            f"benchmark.user_field: {config.benchmark.user_field!r} is no field of {blocks.uri}; "
            f"name one of {', '.join(blocks.fields)}, or leave it out"
        )
    for variation in variations(config):
        varied = derived(config, variation)
        try:
            memory_sizes(varied, blocks)
        except ConfigError as error:
            raise ConfigError(f"benchmark: the set {variation.name!r}: {error}") from None
        if reference.published_stages(varied, blocks) == len(blocks.historical):
            stream.published_stages(varied, blocks)


def run_benchmark(run: Run) -> Benchmark:
    """Train and judge what is missing; publish ``benchmark/results.parquet`` and its like."""
    config, blocks = run.config, run.blocks
    tuned = tune(run, all_arms(config))
    tidy.write(config.place("benchmark", "tuning.parquet"), tuned.tried)
    cells = Studies(run, tuned).cells()
    found = run_grid([c.cell for c in cells], "Benchmark")
    results = tidy.frame(cells, found)
    tidy.write(config.place("benchmark", "results.parquet"), results)
    costs = None
    if "cost" in config.benchmark.studies:
        costs = measure_costs(run, *(tuned.protocols[soft(m)] for m in ("full", "distilled")))
        tidy.write(config.place("benchmark", "costs.parquet"), costs)
    test = read_block(blocks, blocks.block("test"))
    users, logits = users_of(config, blocks, test), tidy.CellLogits(cells)
    tables = None
    if "fidelity" in config.benchmark.studies:
        tables = _fidelity_tables(config, results.set_index("key"), logits, test.labels, users)
    return Benchmark(results, tuned.tried, logits, test.labels, costs, users, tables)


def users_of(config: RunConfig, blocks: Blocks, test: Rows) -> np.ndarray | None:
    """The user of every test row, int64 (n,); users that no training block has (id 0) cannot be
    told apart, so each of their rows counts as a user."""
    field = config.benchmark.user_field
    if field is None:
        return None
    ids = test.ids[:, blocks.fields.index(field)]
    return np.where(ids > 0, ids, ids.max() + 1 + np.arange(len(ids)))


def _fidelity_tables(
    config: RunConfig,
    results: pd.DataFrame,
    logits: Mapping[object, np.ndarray],
    labels: np.ndarray,
    users: np.ndarray | None,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    study, seed = config.benchmark.fidelity, config.seed
    with progress.phase("Significant pairs: full data on resamples of the test users", long=True):
        truth = results.index[results["arm"] == fidelity.TRUTH]
        resampled = resampled_aucs(logits, truth, labels, RESAMPLES, seed, users)
    return (
        fidelity.fidelity_table(results, study.arms, resampled, seed),
        fidelity.differences_table(results, study.arms, study.arms[-1].title, seed),
    )
