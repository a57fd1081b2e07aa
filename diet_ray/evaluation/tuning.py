"""Every method's protocol, chosen on validation, separately and from one list.

Half of what a method seems to win can be another method's undertraining. So before anything is
compared, every (method, labels) trains all candidates under each tried protocol, with seeds of
its own, and keeps the one with the highest mean validation AUC after the subsequent block.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from diet_ray.config import ProtocolConfig
from diet_ray.evaluation.cells import Cell
from diet_ray.evaluation.grid import run_grid
from diet_ray.evaluation.methods import Labels
from diet_ray.evaluation.run import Run

FIRST_SEED = 1_000_000  # judged seeds count from 0

Arm = tuple[str, Labels]
"""A method and its labels."""


@dataclass(frozen=True)
class Tuned:
    """The protocol of every arm, and all that was tried."""

    protocols: dict[Arm, ProtocolConfig]
    tried: pd.DataFrame  # method, labels, the protocol's keys, validation_auc (or NaN), chosen


def tune(run: Run, arms: Sequence[Arm]) -> Tuned:
    """Train under every tried protocol; equal means go to the one that is tried first.

    Where there is one only, there is nothing to choose and nothing is trained.
    """
    protocol, tuning = run.config.evaluation.protocol, run.config.benchmark.tuning
    tried = [protocol.model_copy(update=ProtocolConfig.changes(keys)) for keys in tuning.tried]
    means = np.full((len(arms), len(tried)), np.nan)
    if len(tried) > 1:
        means = _mean_validation_aucs(run, arms, tried)
    best = means.argmax(axis=1)
    lines = [
        {
            "method": method,
            "labels": labels,
            **choice.model_dump(),
            "validation_auc": means[a, c],
            "chosen": bool(c == best[a]),
        }
        for a, (method, labels) in enumerate(arms)
        for c, choice in enumerate(tried)
    ]
    columns = ["method", "labels", *ProtocolConfig.model_fields, "validation_auc", "chosen"]
    return Tuned(
        {arm: tried[best[a]] for a, arm in enumerate(arms)}, pd.DataFrame(lines, columns=columns)
    )


def _mean_validation_aucs(
    run: Run, arms: Sequence[Arm], tried: Sequence[ProtocolConfig]
) -> np.ndarray:
    """Over candidates and seeds, (arms, tried)."""
    candidates, seeds = run.config.evaluation.candidates, run.config.benchmark.tuning.seeds
    cells = [
        Cell(run, *arm, candidate, choice, FIRST_SEED + seed)
        for arm in arms
        for choice in tried
        for candidate in candidates
        for seed in range(seeds)
    ]
    aucs = np.array([r.validation["auc"] for r in run_grid(cells, "Tuning of the protocols")])
    return aucs.reshape(len(arms), len(tried), len(candidates) * seeds).mean(axis=2)
