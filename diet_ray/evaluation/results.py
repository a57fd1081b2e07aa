"""The tidy table of a benchmark: a row per study and cell (columns: `tables.py`)."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Mapping, Sequence

import numpy as np
import pandas as pd
import pyarrow as pa

from diet_ray import progress, storage
from diet_ray.evaluation.cells import CellResult, read_logits, read_validation_logits
from diet_ray.evaluation.methods import REDUCED, REFERENCE_FREE
from diet_ray.evaluation.run import Run
from diet_ray.evaluation.studies import StudyCell
from diet_ray.logs.blocks import read_block
from diet_ray.training.candidate import best_epoch
from diet_ray.training.metrics import taught_auc
from diet_ray.training.model import predict

COLUMNS = [
    "study",
    "arm",
    "repetition",
    "key",
    "reference",
    "method",
    "labels",
    "use",
    "variant",
    "ratio",
    "candidate",
    "network",
    "parameters",
    "seed",
    "auc",
    "logloss",
    "diverged",
    "validation_auc",
    "validation_logloss",
    "taught_auc",
    "progressive_loss",
    "trained_rows",
    "warm_up_epochs",
    "seconds",
]
"""Those that every table has, even an empty one; then the tasks' metrics and the protocol."""


def frame(cells: Sequence[StudyCell], results: Sequence[CellResult]) -> pd.DataFrame:
    """A row per cell of every study; column `key` names the cell, several studies may share it."""
    taught = _taught_aucs(cells)
    rows = [_row(*line) for line in zip(cells, results, taught, strict=True)]
    return pd.DataFrame(rows) if rows else pd.DataFrame(columns=COLUMNS)


def _taught_aucs(cells: Sequence[StudyCell]) -> list[float]:
    """On validation against the soft labels of the cell's teacher, the mean over its seeds; NaN
    for a cell without one."""
    if not any(c.teacher for c in cells):
        return [math.nan] * len(cells)
    found: list[float] = []
    labels: dict[str, np.ndarray] = {}
    with progress.phase("Scores by the references' soft labels", len(cells), "cells") as phase:
        for c in cells:
            if c.teacher is None:
                found.append(math.nan)
            else:
                uri = c.teacher.reference_uri()
                if uri not in labels:
                    labels[uri] = _soft_labels(c.teacher)
                scores = [taught_auc(mine, labels[uri]) for mine in read_validation_logits(c.cell)]
                found.append(float(np.mean(scores)))
            phase.advance()
    return found


def _soft_labels(run: Run) -> np.ndarray:
    """Of phi_T for the validation block, logits (n, K)."""
    validation = read_block(run.blocks, run.blocks.block("validation"))
    return predict(run.reference().recommender, validation.ids)


def _row(study_cell: StudyCell, result: CellResult, taught: float) -> dict[str, object]:
    cell = study_cell.cell
    config = cell.run.config
    free, reduced = cell.method in REFERENCE_FREE, cell.method in REDUCED
    row: dict[str, object] = {
        "study": study_cell.study,
        "arm": study_cell.arm,
        "repetition": study_cell.repetition,
        "key": cell.key,
        "reference": "" if free else config.reference.network.title,
        "method": cell.method,
        "labels": cell.labels,
        "use": cell.use,
        "variant": cell.run.variant,
        "ratio": config.memory.ratio if reduced else math.nan,
        "candidate": cell.candidate.title,
        "network": cell.candidate.name,
        "parameters": result.dense_parameters,
        "seed": cell.seed,
        "auc": result.test["auc"],
        "logloss": result.test["logloss"],
        "diverged": result.diverged,
        "validation_auc": result.validation["auc"],
        "validation_logloss": result.validation["logloss"],
        "taught_auc": taught,
        "progressive_loss": float(np.mean(result.training_loss[-len(result.training_loss) // 3 :])),
        "trained_rows": cell.trained_rows,
        "warm_up_epochs": best_epoch(result.warm_up_auc),
        "seconds": result.seconds,
    }
    for metric in ("auc", "logloss"):
        for task, value in result.test[f"{metric}_by_task"].items():
            row[f"{metric}_{task}"] = value
    return row | cell.protocol.model_dump()


def write(uri: str, table: pd.DataFrame) -> None:
    """Publish the table as Parquet."""
    storage.write_parquet(uri, pa.Table.from_pandas(table, preserve_index=False))


class CellLogits(Mapping[Hashable, np.ndarray]):
    """Test logits (n, K) of cells by their key, read when they are asked for."""

    def __init__(self, cells: Sequence[StudyCell]) -> None:
        self._cells = {c.cell.key: c.cell for c in cells}

    def __getitem__(self, key: Hashable) -> np.ndarray:
        return read_logits(self._cells[str(key)])

    def __iter__(self) -> Iterator[Hashable]:
        return iter(self._cells)

    def __len__(self) -> int:
        return len(self._cells)
