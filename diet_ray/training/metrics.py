"""AUC and LogLoss, per task and as the mean over tasks (paper, section 5.1.2).

Rows can also judge by the reference's soft labels in the place of their own (`taught_auc`). A row
of a rare task says next to nothing by its label, a zero nearly always, but much by its soft
label: on the same rows the order of candidates comes out with far less noise (RESULTS.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.metrics import log_loss, roc_auc_score

from diet_ray.logs.blocks import Blocks, BlocksError


@dataclass(frozen=True)
class Metrics:
    """Of one model on one block."""

    auc: float  # mean over tasks
    logloss: float  # mean over tasks
    auc_by_task: dict[str, float]
    logloss_by_task: dict[str, float]


def measure(logits: np.ndarray, labels: np.ndarray, tasks: Sequence[str]) -> Metrics:
    """logits (n, K) against labels (n, K) of 0 and 1; each task must hold both."""
    probabilities = 1 / (1 + np.exp(-logits.astype(np.float64)))
    aucs, losses = {}, {}
    for k, task in enumerate(tasks):
        aucs[task] = float(roc_auc_score(labels[:, k], logits[:, k]))
        losses[task] = float(log_loss(labels[:, k], probabilities[:, k], labels=[0, 1]))
    return Metrics(
        auc=float(np.mean(list(aucs.values()))),
        logloss=float(np.mean(list(losses.values()))),
        auc_by_task=aucs,
        logloss_by_task=losses,
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
    )


def taught_auc(logits: np.ndarray, taught: np.ndarray) -> float:
    """AUC against soft labels, the mean over tasks: logits (n, K), taught (n, K), logits too.

    Every row counts as a one with the probability that it was taught and as a zero with the rest;
    so it is the expected AUC over labels drawn from them, up to terms of 1 / n.
    """
    teacher = 1 / (1 + np.exp(-taught.astype(np.float64)))
    outcomes = np.repeat([1, 0], len(logits))
    return float(
        np.mean(
            [
                roc_auc_score(outcomes, np.tile(mine, 2), sample_weight=np.append(ones, 1 - ones))
                for mine, ones in zip(logits.T, teacher.T, strict=True)
            ]
        )
    )


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
