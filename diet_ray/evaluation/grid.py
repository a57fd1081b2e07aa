"""Many cells side by side as Ray tasks; those that are done are not done again."""

from __future__ import annotations

from collections.abc import Sequence

import ray

from diet_ray import progress, runtime
from diet_ray.config import RunConfig
from diet_ray.evaluation.cells import Cell, CellResult, cell_key, read_cell, run_cell
from diet_ray.logs.blocks import Blocks
from diet_ray.memory import artifact


def run_grid(
    config: RunConfig, blocks: Blocks, distilled: str, cells: Sequence[Cell]
) -> dict[Cell, CellResult]:
    """Results of all cells, in the order of `cells`.

    Raises ArtifactError if the candidates cannot train on the distilled set.
    """
    artifact.check_fits(distilled, blocks.fields, config.models.embedding_dim)
    keys = {cell: cell_key(config, blocks, distilled, cell) for cell in cells}
    results = {cell: read_cell(config, cell, keys[cell]) for cell in cells}
    waiting = [cell for cell, result in results.items() if result is None]
    task = ray.remote(run_cell).options(num_cpus=config.threads, max_retries=3)
    running: dict[ray.ObjectRef, Cell] = {}
    with progress.phase("Check of the distilled set", len(cells), "trainings") as phase:
        phase.skip(len(cells) - len(waiting))
        while waiting or running:
            while waiting and len(running) < config.resources.evaluation_tasks:
                cell = waiting.pop(0)
                running[task.remote(config, blocks, distilled, cell, keys[cell])] = cell
            finished, _ = ray.wait(list(running), num_returns=1)
            with runtime.plain_errors():
                results[running.pop(finished[0])] = ray.get(finished[0])
            phase.advance()
    return {cell: result for cell, result in results.items() if result is not None}
