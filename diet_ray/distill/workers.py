"""A pool of meta-workers that computes lists of independent tasks and survives losing any of them.

Results come back in the order of the tasks, whichever worker computed them. A task whose worker
died is given to another; the dead worker is restarted by Ray meanwhile. An error that is the
task's own is raised.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import ray
from ray.actor import ActorHandle
from ray.exceptions import RayActorError

from diet_ray.config import RunConfig
from diet_ray.distill.worker import MetaWorker, Source
from diet_ray.logs.blocks import BlocksError

ROWS_PER_TASK = 4_096
LOSSES_PER_TASK = 5

Task = Callable[[ActorHandle], ray.ObjectRef]


class MetaWorkers:
    """The meta-workers of a run, kept over rounds and stages."""

    def __init__(self, config: RunConfig) -> None:
        resources = config.resources
        actor = ray.remote(MetaWorker)
        self._workers = [
            actor.options(
                name=f"meta-worker-{number}",
                num_cpus=resources.meta_worker_cpus,
                num_gpus=resources.meta_worker_gpus,
                max_restarts=-1,
            ).remote(config)
            for number in range(resources.meta_workers)
        ]

    def run(self, tasks: Sequence[Task]) -> list[Any]:
        """The tasks' results, in order. Raises what a task raises."""
        waiting = deque(range(len(tasks)))
        idle = deque(self._workers)
        running: dict[ray.ObjectRef, tuple[int, ActorHandle]] = {}
        results: dict[int, Any] = {}
        losses = [0] * len(tasks)
        while len(results) < len(tasks):
            while waiting and idle:
                number, worker = waiting.popleft(), idle.popleft()
                running[tasks[number](worker)] = (number, worker)
            finished, _ = ray.wait(list(running), num_returns=1)
            number, worker = running.pop(finished[0])
            idle.append(worker)
            try:
                results[number] = ray.get(finished[0])
            except RayActorError:
                losses[number] += 1
                if losses[number] >= LOSSES_PER_TASK:
                    raise
                waiting.appendleft(number)
        return [results[number] for number in range(len(tasks))]

    def summed_gradient(
        self, stage: int, source: Source, rows: int, theta: np.ndarray
    ) -> np.ndarray:
        """sum of grad l over all `rows` rows of a source, float32 (P,), added in row order."""
        arguments = stage, ray.put(source), ray.put(theta)

        def task(worker: ActorHandle, part: tuple[int, int]) -> ray.ObjectRef:
            return worker.summed_gradient.remote(*arguments, *part)

        parts = self.run([partial(task, part=part) for part in _ranges(rows)])
        return np.sum(parts, axis=0).astype(np.float32)

    def alignments(
        self, stage: int, source: Source, rows: int, theta: np.ndarray, direction: np.ndarray
    ) -> np.ndarray:
        """<direction, grad l> of every row of a source, float32 (rows,)."""
        arguments = stage, ray.put(source), ray.put(theta), ray.put(direction)

        def task(worker: ActorHandle, part: tuple[int, int]) -> ray.ObjectRef:
            return worker.alignments.remote(*arguments, *part)

        return np.concatenate(self.run([partial(task, part=part) for part in _ranges(rows)]))

    def meta_gradients(self, round_task: ray.ObjectRef, step: int, shards: int) -> list[float]:
        """Every logical shard of an outer step, computed and pushed; returns their outer losses."""

        def task(worker: ActorHandle, shard: int) -> ray.ObjectRef:
            return worker.meta_gradient.remote(round_task, step, shard)

        return self.run([partial(task, shard=shard) for shard in range(shards)])

    def close(self) -> None:
        """End the workers."""
        for worker in self._workers:
            ray.kill(worker)


def _ranges(rows: int) -> list[tuple[int, int]]:
    if rows == 0:
        raise BlocksError("a gradient over no rows was asked for")
    return [(first, min(first + ROWS_PER_TASK, rows)) for first in range(0, rows, ROWS_PER_TASK)]
