"""The fidelity study: does a cheap score order architectures as full training does?

Protocol: *settings* are architectures, drawn in several sizes from each of several families, so
that the order within and between families both count. The *truth* is full data's test AUC, the
mean over seeds. An *arm* scores every setting cheaply, on validation, by trainings of its own. Its
*repetitions* share nothing with each other nor with full data: other seeds of the candidates, and
another run seed, hence another reference, set and selection. A user makes one such repetition, so
agreement is measured for each and averaged, and its reliability is that of one. Beside it stands
what one repetition costs, all of its seeds together.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from diet_ray.config import (
    ArmConfig,
    ConfigError,
    CotrainConfig,
    NetworkConfig,
    ProtocolConfig,
    RunConfig,
)
from diet_ray.evaluation.agreement import agreement, compare, intervals
from diet_ray.evaluation.cells import Cell
from diet_ray.evaluation.methods import METHODS, REDUCED, REFERENCE_FREE, Labels, check_methods
from diet_ray.evaluation.pairs import SignificantPairs, pairs_right, significant_pairs
from diet_ray.evaluation.run import Run
from diet_ray.models.space import draw

TRUTH = "truth"
"""What the full trainings are called that settle the order."""

FIRST_SEED = 500_000  # of the arms; those of full data count from 0
SEEDS_OF_A_REPETITION = 1_000

Resampled = Mapping[object, np.ndarray]
"""A cell's key to its test AUC on every resample of the users."""


def settings_of(config: RunConfig) -> list[NetworkConfig]:
    """The architectures whose order is asked for: drawn, and called <network>-1, <network>-2.., or
    the candidates. Raises ConfigError."""
    fidelity = config.benchmark.fidelity
    if not fidelity.space:
        return config.evaluation.candidates
    key = "benchmark.fidelity.space"
    count: Counter[str] = Counter()
    labelled = []
    for found in draw(fidelity.space, fidelity.settings, config.seed, key):
        if found.own:
            raise ConfigError(
                f"{key}: {next(iter(found.own))}: the study compares architectures, each with the "
                "protocol of its arm; remove it"
            )
        name = found.network.name
        count[name] += 1
        labelled.append(found.network.model_copy(update={"label": f"{name}-{count[name]}"}))
    return labelled


def validate(config: RunConfig) -> None:
    """What can be known to fail before there are blocks. Raises ConfigError."""
    fidelity = config.benchmark.fidelity
    settings_of(config)
    check_methods([arm.method for arm in fidelity.arms], "benchmark.fidelity.arms", METHODS)
    titles = [arm.title for arm in fidelity.arms]
    for arm in fidelity.arms:
        where = f"benchmark.fidelity.arms: {arm.title!r}"
        if titles.count(arm.title) > 1:
            raise ConfigError(f"{where} stands there twice; give one of them a label")
        for problem in _problems(arm, fidelity.repetitions):
            raise ConfigError(f"{where}: {problem}")


def _problems(arm: ArmConfig, repetitions: int) -> list[str]:
    """Keys that mean nothing to its method and would be passed over in silence, and the like."""
    method, reduced = arm.method, arm.method in REDUCED
    selects = reduced and method != "distilled"
    refers = method not in REFERENCE_FREE or arm.score == "taught"
    asked = arm.repetitions or repetitions
    without_meaning = sorted(set(arm.protocol) - set(ProtocolConfig.ON_REAL_BLOCKS))
    refused = [
        (arm.title == TRUTH, f"full data's trainings are called {TRUTH!r}; give it another label"),
        (arm.use == "cotrain" and not reduced, f"{method} has no reduced set to co-train on"),
        (arm.labels != "soft" and not reduced, f"{method} has no reduced set; remove labels"),
        (
            arm.labels == "taught" and selects,
            f"the soft labels of {method} are the reference's; set labels to soft",
        ),
        (
            arm.labels == "taught" and arm.use != "cotrain",
            "taught labels are for ranking; set use to cotrain, or labels to soft",
        ),
        (
            arm.ratio is not None and not selects,
            "ratio belongs to a selection; a distilled set's is memory.ratio",
        ),
        (arm.share != 1 and method != "prefix", "share belongs to a prefix; remove it"),
        (
            bool(without_meaning) and not reduced,
            f"protocol: {method} has no warm-up; remove {', '.join(without_meaning)}",
        ),
        (
            arm.seeds is not None and "seeds" in arm.protocol,
            "seeds stand in the arm and in its protocol; remove one of them",
        ),
        (
            refers and asked > repetitions,
            f"{asked} repetitions would share {repetitions} references; set "
            "benchmark.fidelity.repetitions to as many, and fewer for other arms",
        ),
    ]
    return [problem for holds, problem in refused if holds]


def repetitions_of(config: RunConfig) -> list[RunConfig]:
    """The run's own configuration, and those of the other repetitions: other run seeds, each with
    a reference and a distilled set of its own below the benchmark's folder."""
    found = [config]
    for number in range(2, config.benchmark.fidelity.repetitions + 1):
        tree = config.model_dump(mode="json")
        tree["seed"] = config.seed + number - 1
        tree["output"] = config.place("benchmark", f"repetition-{number}")
        tree["reference"]["folder"] = None
        found.append(RunConfig.model_validate(tree))
    return found


def needs_distilled(config: RunConfig) -> bool:
    """Whether an arm is about the distilled set."""
    return any(arm.method == "distilled" for arm in config.benchmark.fidelity.arms)


def protocol_of(
    config: RunConfig,
    arm: ArmConfig,
    tuned: Mapping[tuple[str, Labels], ProtocolConfig],
) -> ProtocolConfig | CotrainConfig:
    """How an arm trains; a prefix as full data does, but for the keys that it changes."""
    if arm.use != "cotrain":
        return tuned[arm_of(arm)].changed(dict(arm.protocol))
    seeds = {} if arm.seeds is None else {"seeds": arm.seeds}
    return config.evaluation.cotrain.model_copy(update={**arm.protocol, **seeds})


def tuned_arms(config: RunConfig) -> list[ArmConfig]:
    """Those that train by a tuned protocol."""
    return [arm for arm in config.benchmark.fidelity.arms if arm.use != "cotrain"]


def arm_of(arm: ArmConfig) -> tuple[str, Labels]:
    """The method and labels whose tuned protocol it takes."""
    method = "full" if arm.method == "prefix" else arm.method
    return method, arm.labels if method in REDUCED else ""


def arm_cells(
    runs: Sequence[Run],
    arm: ArmConfig,
    tuned: Mapping[tuple[str, Labels], ProtocolConfig],
    settings: Sequence[NetworkConfig],
) -> list[tuple[int, Cell]]:
    """(repetition, cell) of one arm; runs: one for each repetition, the run's own first, which is
    that of all repetitions where nothing depends on a reference. All seeds of a co-training are
    one cell."""
    config = runs[0].config
    count = arm.repetitions or len(runs)
    protocol = protocol_of(config, arm, tuned)
    labels: Labels = arm.labels if arm.method in REDUCED else ""
    cells = 1 if arm.use == "cotrain" else arm.seeds or 1
    found = []
    for repetition in range(count):
        run = runs[0] if arm.method in REFERENCE_FREE else runs[repetition]
        if arm.ratio is not None:
            run = run.at_ratio(arm.ratio)
        first = FIRST_SEED + repetition * SEEDS_OF_A_REPETITION
        found += [
            (repetition, Cell(run, arm.method, labels, network, protocol, seed, arm.share))
            for network in settings
            for seed in range(first, first + cells)
        ]
    return found


def scores_of(rows: pd.DataFrame, arm: ArmConfig, settings: Sequence[str]) -> np.ndarray:
    """An arm's score of every setting, higher is better: float (repetitions, n settings).

    rows: of the study, from `results.py`. The mean over a repetition's seeds.
    """
    mine = rows[rows["arm"] == arm.title]
    column = {
        "taught": mine["taught_auc"],
        "auc": mine["validation_auc"],
        "logloss": -mine["validation_logloss"],
        "progressive": -mine["progressive_loss"],
    }[arm.score]
    table = mine.assign(score=column).pivot_table(
        index="repetition", columns="candidate", values="score", aggfunc="mean"
    )
    return table[list(settings)].to_numpy()


def truth_of(rows: pd.DataFrame, settings: Sequence[str]) -> np.ndarray:
    """Full data's test AUC: float (seeds, n settings)."""
    mine = rows[rows["arm"] == TRUTH]
    return mine.pivot(index="seed", columns="candidate", values="auc")[list(settings)].to_numpy()


def fidelity_table(
    results: pd.DataFrame,
    arms: Sequence[ArmConfig],
    resampled: Resampled | None,
    seed: int,
) -> pd.DataFrame:
    """A line per arm: what `report.markdown.agreement` lays out.

    results: a row per cell, indexed by its key. resampled: of the truth's cells. Empty if the
    study was not run.
    """
    rows = results[results["study"] == "fidelity"]
    truth_rows = rows[rows["arm"] == TRUTH]
    if truth_rows.empty:
        return pd.DataFrame()
    settings, families = _settings_and_families(truth_rows)
    truth = truth_of(rows, settings)
    found = None if resampled is None else _pairs(truth_rows, truth, settings, resampled, seed)
    full_rows, full_seconds = truth_rows["trained_rows"].mean(), truth_rows["seconds"].mean()
    lines = []
    for arm in arms:
        mine = rows[rows["arm"] == arm.title]
        if mine.empty:
            continue
        scores = scores_of(rows, arm, settings)
        cells = len(mine) / len(scores) / len(settings)
        lines.append(
            {
                "method": arm.title,
                "score": arm.score,
                "seeds": int(mine["seeds"].iloc[0]) if arm.use == "cotrain" else round(cells),
                "repetitions": len(scores),
                "cost": cells * mine["trained_rows"].mean() / full_rows,
                "seconds": cells * mine["seconds"].mean() / full_seconds,
                **_measures(truth, scores, families, seed),
                **_right(found, scores, families),
            }
        )
    return pd.DataFrame(lines)


def _settings_and_families(truth_rows: pd.DataFrame) -> tuple[list[str], np.ndarray]:
    """The settings in the order of the study, and the network of each, str (n,)."""
    first = truth_rows.drop_duplicates("candidate")
    return first["candidate"].tolist(), first["network"].to_numpy(dtype=str)


def _measures(
    truth: np.ndarray, scores: np.ndarray, families: np.ndarray, seed: int
) -> dict[str, float]:
    whole, bounds = vars(agreement(truth, scores)), intervals(truth, scores, families, seed)
    for name in ("spearman", "corrected"):
        whole |= {f"{name}_low": bounds[name].low, f"{name}_high": bounds[name].high}
    return whole


def _right(
    found: SignificantPairs | None, scores: np.ndarray, families: np.ndarray
) -> dict[str, float]:
    if found is None:
        parts = ("pairs_right", "within_right", "between_right")
        return {"pairs": 0, **dict.fromkeys(parts, math.nan)}
    return vars(pairs_right(found, scores, families))


def _pairs(
    rows: pd.DataFrame,
    truth: np.ndarray,
    settings: Sequence[str],
    resampled: Resampled,
    seed: int,
) -> SignificantPairs:
    keys = rows.reset_index().pivot(index="seed", columns="candidate", values="key")
    aucs = [[resampled[key] for key in line] for line in keys[list(settings)].to_numpy()]
    return significant_pairs(truth, np.array(aucs), seed)


def differences_table(
    results: pd.DataFrame, arms: Sequence[ArmConfig], first: str, seed: int
) -> pd.DataFrame:
    """Spearman of the arm called `first` less that of every other, on the same resamples of the
    settings: method, difference, low, high, clear."""
    rows = results[results["study"] == "fidelity"]
    truth_rows = rows[rows["arm"] == TRUTH]
    by_title = {arm.title: arm for arm in arms if (rows["arm"] == arm.title).any()}
    if truth_rows.empty or first not in by_title:
        return pd.DataFrame()
    settings, families = _settings_and_families(truth_rows)
    truth = truth_of(rows, settings)
    ours = scores_of(rows, by_title[first], settings)
    lines = []
    for title, arm in by_title.items():
        if title != first:
            found = compare(truth, ours, scores_of(rows, arm, settings), families, seed)
            bounds = {"low": found.interval.low, "high": found.interval.high}
            line = {"method": title, "difference": found.difference, **bounds}
            lines.append(line | {"clear": found.clear})
    return pd.DataFrame(lines)
