"""A small run whose distilled set is simply real rows, put there without distillation."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from diet_ray import storage
from diet_ray.config import NetworkConfig, RunConfig
from diet_ray.evaluation.cells import Cell, CellResult, run_cell
from diet_ray.evaluation.methods import REDUCED, Labels, reduced_rows
from diet_ray.evaluation.run import Run
from diet_ray.evaluation.shared import Shared
from diet_ray.logs.blocks import Blocks, read_block
from diet_ray.memory import artifact
from diet_ray.memory.rows import SyntheticRows, unmoved
from diet_ray.training.model import predict
from diet_ray.training.reference import Reference, load_reference, reference_uri
from tests.made import small_config
from tests.sets import publish_set

STAGES = 2
RATIO = 40 / 600  # of two blocks of 300 rows each
DISTILLED_ROWS = 40


@dataclass(frozen=True)
class Prepared:
    """A folder with blocks, phi_1 and phi_2, and the distilled set."""

    folder: Path
    blocks: Blocks

    def config(self, **overrides: Any) -> RunConfig:
        """The run's configuration, or one that differs from it."""
        return config_at(self.folder, **overrides)

    def run(self, **overrides: Any) -> Run:
        """The run of such a configuration."""
        return Run(self.config(**overrides), self.blocks, self.distilled)

    @property
    def distilled(self) -> str:
        return self.config().place("distilled", f"stage={STAGES}")

    @property
    def reference(self) -> Reference:
        """phi_T."""
        return load_reference(reference_uri(self.config(), STAGES))

    def copy(self, folder: Path) -> Prepared:
        """The same elsewhere; only the blocks are shared."""
        shutil.copytree(self.folder, folder, dirs_exist_ok=True)
        return Prepared(folder, self.blocks)


def config_at(folder: Path, **overrides: Any) -> RunConfig:
    memory = {"ratio": RATIO, **overrides.pop("memory", {})}
    return small_config(str(folder), memory=memory, **overrides)


def publish_distilled(
    uri: str, blocks: Blocks, reference: Reference, rows: int = DISTILLED_ROWS, first: int = 0
) -> None:
    """Rows of the history from `first` on, without deltas, with confident labels."""
    history = [read_block(blocks, block) for block in blocks.historical]
    real = type(history[0]).concatenate(history).take(slice(first, first + rows))
    taught = predict(reference.recommender, real.ids)
    synthetic = SyntheticRows(
        anchors=real.ids.astype(np.int32),
        labels=real.labels * 4 - 2,
        taught=taught,
        stages=np.ones(rows, dtype=np.int32),
        source_rows=real.row_ids,
        **unmoved((len(blocks.fields), reference.table.embedding_dim), rows),
    )
    description = artifact.Description(
        stage=STAGES,
        rows=rows,
        fields=blocks.fields,
        tasks=blocks.tasks,
        embedding_dim=reference.table.embedding_dim,
        reference=reference.identity,
        reference_uri=storage.resolve(f"../../reference/t={STAGES}", uri),
        made_from={"memory": {"ratio": 0.1}},
    )
    judged = history[0].take(slice(0, 5))  # rows that no test here asks about
    ranking = artifact.RankingData(judged, taught[:5], of=5, full_rows=900)
    publish_set(uri, synthetic, description, ranking)


def made_cell(
    run: Run,
    method: str,
    seed: int = 0,
    labels: Labels | None = None,
    candidate: NetworkConfig | None = None,
) -> Cell:
    """A cell of the run's own protocol and, if none is named, its first candidate."""
    default: Labels = "soft" if method in REDUCED else ""
    evaluation = run.config.evaluation
    return Cell(
        run,
        method,
        default if labels is None else labels,
        candidate or evaluation.candidates[0],
        evaluation.protocol,
        seed,
    )


def run_here(cell: Cell) -> CellResult:
    """The cell without Ray."""
    run = cell.run
    shared = Shared.load(run.reference(), run.blocks, run.config.seed)
    rows = None
    if cell.method in REDUCED:
        rows = reduced_rows(run, cell.method, cell.labels, cell.seed)
    return run_cell(cell, shared, rows)


def made_result(auc: float, validation_auc: float = 0.5, tasks: Sequence[str] = ()) -> CellResult:
    """A result without a training."""
    test = {
        "auc": auc,
        "logloss": 1.2 - auc,
        "auc_by_task": dict.fromkeys(tasks, auc),
        "logloss_by_task": dict.fromkeys(tasks, 1.2 - auc),
    }
    return CellResult(test, {**test, "auc": validation_auc}, [], [0.6, 0.5], 1_000, 1.5)
