"""Many cells side by side as Ray tasks that share their data; what is done is not done again."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import ray

from diet_ray import progress, runtime
from diet_ray.evaluation.cells import Cell, CellResult, read_cell, run_cell
from diet_ray.evaluation.methods import REDUCED, reduced_rows
from diet_ray.evaluation.shared import Shared
from diet_ray.memory import artifact


@dataclass
class _Data:
    """References into the object store: what cells have in common, each made once."""

    shared: dict[int, ray.ObjectRef] = field(default_factory=dict)  # by id of a run
    rows: dict[tuple[object, ...], ray.ObjectRef] = field(default_factory=dict)

    def of(self, cell: Cell) -> tuple[ray.ObjectRef, ray.ObjectRef | None]:
        """The shared data and the reduced set of a cell."""
        run = cell.run
        if id(run) not in self.shared:
            self.shared[id(run)] = ray.put(
                Shared.load(run.reference(), run.blocks, run.config.seed)
            )
        if cell.method not in REDUCED:
            return self.shared[id(run)], None
        key = _rows_key(cell)
        if key not in self.rows:
            task = ray.remote(reduced_rows).options(num_cpus=run.config.threads, max_retries=3)
            self.rows[key] = task.remote(run, cell.method, cell.labels, cell.seed)
        return self.shared[id(run)], self.rows[key]


def _rows_key(cell: Cell) -> tuple[object, ...]:
    """Cells with equal keys train on the same rows; those of S_T are the same for every seed."""
    seed = None if cell.method == "distilled" else cell.seed
    return id(cell.run), cell.method, cell.labels, seed


def run_grid(cells: Sequence[Cell], title: str) -> list[CellResult]:
    """Results of all cells, in their order. Raises ArtifactError for a set that does not fit."""
    for run in {id(c.run): c.run for c in cells if c.method == "distilled"}.values():
        artifact.check_fits(run.distilled, run.blocks.fields, run.config.models.embedding_dim)
    by_key = {cell.key: cell for cell in cells}  # a training that is asked for twice is done once
    results = {key: read_cell(cell) for key, cell in by_key.items()}
    waiting = [cell for key, cell in by_key.items() if results[key] is None]
    waiting.sort(key=lambda cell: tuple(map(str, _rows_key(cell))))
    with progress.phase(title, len(by_key), "trainings") as phase:
        phase.skip(len(by_key) - len(waiting))
        for key, result in _train(waiting, phase):
            results[key] = result
    return [_there(results[cell.key]) for cell in cells]


def _train(waiting: list[Cell], phase: progress.Phase) -> list[tuple[str, CellResult]]:
    data, done = _Data(), []
    running: dict[ray.ObjectRef, Cell] = {}
    left = dict.fromkeys(map(_rows_key, waiting), 0)
    for cell in waiting:
        left[_rows_key(cell)] += 1
    queue = list(reversed(waiting))
    while queue or running:
        while queue and len(running) < queue[-1].run.config.resources.evaluation_tasks:
            cell = queue.pop()
            task = ray.remote(run_cell).options(num_cpus=cell.run.config.threads, max_retries=3)
            running[task.remote(cell, *data.of(cell))] = cell
        finished, _ = ray.wait(list(running), num_returns=1)
        cell = running.pop(finished[0])
        with runtime.plain_errors():
            done.append((cell.key, ray.get(finished[0])))
        left[_rows_key(cell)] -= 1
        if not left[_rows_key(cell)]:
            data.rows.pop(_rows_key(cell), None)  # nobody needs these rows any more
        phase.advance()
    return done


def _there(result: CellResult | None) -> CellResult:
    assert result is not None
    return result


def mean_auc(results: Sequence[CellResult], block: str) -> float:
    """Mean over cells of the AUC on "validation" or "test"."""
    return math.fsum(getattr(result, block)["auc"] for result in results) / len(results)
