"""Every method's protocol, chosen on validation, separately.

Half of what a method seems to win can be another method's undertraining. So before anything is
compared, every (method, labels) trains all candidates under each tried protocol, with seeds of
its own, and keeps the one with the highest mean validation AUC after the subsequent block.
Methods with a reduced set try one list, those without a warm-up another. A choice at an edge of
what was tried is marked: a better one may lie beyond it, and the list should go on there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from diet_ray.config import ProtocolConfig, RunConfig
from diet_ray.evaluation.cells import Cell
from diet_ray.evaluation.grid import run_grid
from diet_ray.evaluation.methods import REDUCED, Labels
from diet_ray.evaluation.run import Run

FIRST_SEED = 1_000_000  # judged seeds count from 0

Arm = tuple[str, Labels]
"""A method and its labels."""


@dataclass(frozen=True)
class Tuned:
    """The protocol of every arm, and all that was tried."""

    protocols: dict[Arm, ProtocolConfig]
    tried: pd.DataFrame  # COLUMNS


COLUMNS = ["method", "labels", *ProtocolConfig.model_fields, "validation_auc", "chosen", "edge"]
"""Of the table of what was tried: a protocol's keys are NaN where they mean nothing to the method,
validation_auc where nothing was trained; edge: keys that `edges` names, on the chosen line."""


def tune(run: Run, arms: Sequence[Arm]) -> Tuned:
    """Train under every tried protocol; equal means go to the one that is tried first.

    Where there is one only, there is nothing to choose and nothing is trained.
    """
    tried = {arm: protocols_tried(run.config, arm[0]) for arm in arms}
    means = _mean_validation_aucs(run, tried)
    best = {arm: int(np.argmax(means[arm])) for arm in arms}
    lines = [
        {
            "method": method,
            "labels": labels,
            **choice.model_dump(include=keys_of(method)),
            "validation_auc": means[method, labels][c],
            "chosen": c == best[method, labels],
            "edge": ",".join(edges(choices, choice)) if c == best[method, labels] else "",
        }
        for (method, labels), choices in tried.items()
        for c, choice in enumerate(choices)
    ]
    protocols = {arm: tried[arm][best[arm]] for arm in arms}
    return Tuned(protocols, pd.DataFrame(lines, columns=COLUMNS))


def keys_of(method: str) -> set[str]:
    """The keys of a protocol that mean something to a method."""
    return set(ProtocolConfig.model_fields if method in REDUCED else ProtocolConfig.ON_REAL_BLOCKS)


def protocols_tried(config: RunConfig, method: str) -> list[ProtocolConfig]:
    """In their order, each once."""
    own, tuning = config.evaluation.protocol_of(method), config.benchmark.tuning
    found: list[ProtocolConfig] = []
    for keys in tuning.of(warms_up=method in REDUCED):
        protocol = own.changed(keys)
        if protocol not in found:
            found.append(protocol)
    return found


def edges(tried: Sequence[ProtocolConfig], chosen: ProtocolConfig) -> list[str]:
    """Keys that vary over what was tried and whose smallest or largest value was chosen.

    With two values either one is an edge. All of `tried` has to mean something to the method.
    """
    found = []
    for key in ProtocolConfig.model_fields:
        values = {getattr(protocol, key) for protocol in tried}
        if len(values) > 1 and getattr(chosen, key) in (min(values), max(values)):
            found.append(key)
    return found


def tuning_cells(run: Run, arms: Sequence[Arm]) -> dict[tuple[Arm, int], list[Cell]]:
    """What is trained for every arm and number of a tried protocol, where there is a choice."""
    candidates, seeds = run.config.evaluation.candidates, run.config.benchmark.tuning.seeds
    tried = {arm: protocols_tried(run.config, arm[0]) for arm in arms}
    return {
        (arm, number): [
            Cell(run, *arm, candidate, choice, FIRST_SEED + seed)
            for candidate in candidates
            for seed in range(seeds)
        ]
        for arm, choices in tried.items()
        for number, choice in enumerate(choices)
        if len(choices) > 1
    }


def _mean_validation_aucs(
    run: Run, tried: Mapping[Arm, Sequence[ProtocolConfig]]
) -> dict[Arm, list[float]]:
    """Of every arm and protocol, over candidates and seeds; NaN for an arm without a choice."""
    cells = tuning_cells(run, list(tried))
    flat = [cell for group in cells.values() for cell in group]
    found = run_grid(flat, "Tuning of the protocols") if flat else []
    aucs = iter([result.validation["auc"] for result in found])
    means = {name: float(np.mean([next(aucs) for _ in group])) for name, group in cells.items()}
    return {
        arm: [means.get((arm, number), math.nan) for number in range(len(choices))]
        for arm, choices in tried.items()
    }
