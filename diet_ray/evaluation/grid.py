"""Many cells side by side as Ray tasks that share their data; what is done is not done again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import ray

from diet_ray import progress, runtime
from diet_ray.evaluation.cells import Cell, CellResult, read_cell, run_cell
from diet_ray.evaluation.methods import REDUCED, reduced_rows
from diet_ray.evaluation.run import Run
from diet_ray.evaluation.selection import DRAWN
from diet_ray.evaluation.shared import Shared
from diet_ray.memory import artifact


@dataclass
class _Data:
    """References into the object store: what cells have in common, each made once."""

    shared: dict[tuple[object, ...], ray.ObjectRef] = field(default_factory=dict)
    rows: dict[tuple[object, ...], ray.ObjectRef] = field(default_factory=dict)

    def of(self, cell: Cell) -> tuple[ray.ObjectRef, ray.ObjectRef | None]:
        """The shared data and the reduced set of a cell."""
        shared, rows = self._shared(cell.run), None
        if cell.method in REDUCED:
            rows = self._rows(cell)
        return shared, rows

    def _shared(self, run: Run) -> ray.ObjectRef:
        key = run.blocks.uri, run.reference_identity, run.config.seed
        if key not in self.shared:
            loaded = Shared.load(run.reference(), run.blocks, run.config.seed)
            self.shared[key] = ray.put(loaded)
        return self.shared[key]

    def _rows(self, cell: Cell) -> ray.ObjectRef:
        key, config = _rows_key(cell), cell.run.config
        if key not in self.rows:
            # The scan behind EL2N has workers of its own; a task that held CPUs while it waits for
            # them could take the last ones.
            cpus = 0 if cell.method == "el2n" else config.threads
            task = ray.remote(reduced_rows).options(num_cpus=cpus, max_retries=3)
            self.rows[key] = task.remote(cell.run, cell.method, cell.labels, cell.seed)
        return self.rows[key]


def _rows_key(cell: Cell) -> tuple[object, ...]:
    """Cells with equal keys train on the same rows; not all methods have others for each seed."""
    seed = cell.seed if cell.method in DRAWN else None
    return id(cell.run), cell.method, cell.labels, seed


def run_grid(cells: Sequence[Cell], title: str) -> list[CellResult]:
    """Results of all cells, in their order. Raises ArtifactError for a set that does not fit."""
    for run in {id(c.run): c.run for c in cells if c.method == "distilled"}.values():
        artifact.check_fits(run.distilled, run.blocks.fields, run.config.models.embedding_dim)
    by_key = {cell.key: cell for cell in cells}  # a training that is asked for twice is done once
    kept = {key: read_cell(cell) for key, cell in by_key.items()}
    results = {key: result for key, result in kept.items() if result is not None}
    waiting = [cell for key, cell in by_key.items() if key not in results]
    waiting.sort(key=lambda cell: tuple(map(str, _rows_key(cell))))
    with progress.phase(title, len(by_key), "trainings", long=True) as phase:
        phase.skip(len(by_key) - len(waiting))
        results |= _train(waiting, phase)
    return [results[cell.key] for cell in cells]


def _train(waiting: list[Cell], phase: progress.Phase) -> dict[str, CellResult]:
    data, done = _Data(), dict[str, CellResult]()
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
            result = done[cell.key] = ray.get(finished[0])
        if result.diverged:
            progress.logger.warning(
                "%s, method %s, seed %d: its training diverged; it counts as a model that answers "
                "one half to every row",
                cell.candidate.title,
                cell.method,
                cell.seed,
            )
        left[_rows_key(cell)] -= 1
        if not left[_rows_key(cell)]:
            data.rows.pop(_rows_key(cell), None)  # nobody needs these rows any more
        phase.advance()
    return done
