"""AUC and LogLoss, per task and as the mean over tasks (paper, section 5.1.2)."""

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
