"""AUC and LogLoss, per task and as the mean over tasks (paper, section 5.1.2).

Rows can also judge by the reference's soft labels in the place of their own (`taught_auc`). A row
of a rare task says next to nothing by its label, a zero nearly always, but much by its soft
label: on the same rows the order of candidates comes out with far less noise (RESULTS.md).

A model of which some logit is not a finite number has diverged. That is a result, too: it counts
as one that answers one half to every row, which gives AUC .5 and LogLoss log 2.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from diet_ray.logs.blocks import Blocks, BlocksError

LOSS_OF_ONE_HALF = math.log(2)
"""LogLoss of the probability one half, whatever the labels."""


@dataclass(frozen=True)
class Metrics:
    """Of one model on one block."""

    auc: float  # mean over tasks
    logloss: float  # mean over tasks
    auc_by_task: dict[str, float]
    logloss_by_task: dict[str, float]
    diverged: bool = False  # the model, or one of those that the means are of


def answers(logits: np.ndarray) -> np.ndarray:
    """A model's logits (n, K), or zeros in their place if it has diverged."""
    return logits if np.isfinite(logits).all() else np.zeros_like(logits)


def measure(logits: np.ndarray, labels: np.ndarray, tasks: Sequence[str]) -> Metrics:
    """logits (n, K) against labels (n, K) of 0 and 1; each task must hold both."""
    z = answers(logits).astype(np.float64)
    aucs = dict(zip(tasks, _aucs(z, labels.astype(np.float64)), strict=True))
    each = np.maximum(z, 0) + np.log1p(np.exp(-np.abs(z))) - labels * z  # log(1 + e^z) - y z
    losses = dict(zip(tasks, each.mean(axis=0).tolist(), strict=True))
    return Metrics(
        auc=float(np.mean(list(aucs.values()))),
        logloss=float(np.mean(list(losses.values()))),
        auc_by_task=aucs,
        logloss_by_task=losses,
        diverged=not np.isfinite(logits).all(),
    )


def mean_metrics(parts: Sequence[Metrics]) -> Metrics:
    """Of several models on the same rows: the mean of every number."""
    tasks = list(parts[0].auc_by_task)
    return Metrics(
        auc=float(np.mean([part.auc for part in parts])),
        logloss=float(np.mean([part.logloss for part in parts])),
        auc_by_task={t: float(np.mean([part.auc_by_task[t] for part in parts])) for t in tasks},
        logloss_by_task={
            t: float(np.mean([part.logloss_by_task[t] for part in parts])) for t in tasks
        },
        diverged=any(part.diverged for part in parts),
    )


def taught_auc(logits: np.ndarray, taught: np.ndarray) -> float:
    """AUC against soft labels, the mean over tasks: logits (n, K), taught (n, K), logits too.

    Every row counts as a one with the probability that it was taught and as a zero with the rest;
    so it is the expected AUC over labels drawn from them, up to terms of 1 / n.
    """
    ones = 1 / (1 + np.exp(-taught.astype(np.float64)))
    return float(np.mean(_aucs(answers(logits), ones)))


def _aucs(scores: np.ndarray, ones: np.ndarray) -> list[float]:
    """By task, the share of pairs of a one and a zero in the right order, ties counted half.

    scores (n, K); ones float64 (n, K) in [0, 1]: how much of a row is a one, the rest is a zero.
    """
    found = []
    for mine, weights in zip(scores.T, ones.T, strict=True):
        order = np.argsort(mine, kind="stable")  # else equal scores may add up in any order
        rising = mine[order]
        starts = np.flatnonzero(np.append(True, rising[1:] != rising[:-1]))  # of equal scores
        of_ones = np.add.reduceat(weights[order], starts)
        of_zeros = np.add.reduceat(1 - weights[order], starts)
        below = np.cumsum(of_zeros) - of_zeros / 2
        # not a product of BLAS, whose sum depends on its number of threads
        found.append(float((of_ones * below).sum() / (of_ones.sum() * of_zeros.sum())))
    return found


def check_measurable(blocks: Blocks) -> None:
    """AUC needs ones and zeros of every task in validation and test. Raises BlocksError."""
    for block in blocks.blocks:
        if block.role not in ("validation", "test"):
            continue
        for task, rate in block.label_rates.items():
            if rate in (0.0, 1.0):
                raise BlocksError(
                    f"{blocks.uri}: block {block.name}: all labels of task {task} are {rate:.0f}, "
                    f"so its AUC is undefined; lengthen logs.intervals.{block.name} or leave "
                    "the task out of logs.tasks"
                )
