"""A pool of meta-workers that computes lists of independent tasks and survives losing any of them.

Results come back in the order of the tasks, whichever worker computed them. A task whose worker
died is given to another. Ray restarts the dead worker meanwhile; it gets work again once it
answers. An error that is the task's own is raised.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import ray
from ray.actor import ActorHandle
from ray.exceptions import ObjectLostError, RayActorError, RayTaskError

from diet_ray.config import RunConfig
from diet_ray.distill.worker import MetaWorker, Source
from diet_ray.logs.blocks import BlocksError

ROWS_PER_TASK = 4_096
LOSSES_PER_TASK = 5
RESTART_PATIENCE_SECONDS = 600.0

Task = Callable[[ActorHandle], ray.ObjectRef]


class WorkersLostError(RuntimeError):
    """Meta-workers die faster than they come back."""


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
        self._restarting: dict[ray.ObjectRef, ActorHandle] = {}  # asked whether they are ready

    def run(self, tasks: Sequence[Task]) -> list[Any]:
        """The tasks' results, in order. Raises what a task raises, WorkersLostError."""
        waiting = deque(range(len(tasks)))
        idle = deque(w for w in self._workers if w not in self._restarting.values())
        running: dict[ray.ObjectRef, tuple[int, ActorHandle]] = {}
        results: dict[int, Any] = {}
        losses = [0] * len(tasks)
        while len(results) < len(tasks):
            while waiting and idle:
                number, worker = waiting.popleft(), idle.popleft()
                running[tasks[number](worker)] = (number, worker)
            if not running:
                idle.append(self._wait_for_a_worker())
                continue
            finished, _ = ray.wait([*running, *self._restarting], num_returns=1)
            if finished[0] in self._restarting:
                back = self._back(finished[0])
                idle += [back] if back else []
                continue
            number, worker = running.pop(finished[0])
            try:
                results[number] = ray.get(finished[0])
                idle.append(worker)
            except (RayActorError, ObjectLostError) as error:
                if isinstance(error, RayTaskError):
                    raise  # the worker lives; something that the task asked died
                self._restarting[worker.ready.remote()] = worker
                losses[number] += 1
                if losses[number] == len(self._workers) + LOSSES_PER_TASK:
                    raise WorkersLostError(
                        f"a task's worker died {losses[number]} times, last: {error}"
                    ) from None
                waiting.appendleft(number)
        return [results[number] for number in range(len(tasks))]

    def _wait_for_a_worker(self) -> ActorHandle:
        deadline = time.monotonic() + RESTART_PATIENCE_SECONDS
        while time.monotonic() < deadline:
            answered, _ = ray.wait(list(self._restarting), num_returns=1, timeout=1)
            worker = self._back(answered[0]) if answered else None
            if worker:
                return worker
        raise WorkersLostError(
            f"no meta-worker came back within {RESTART_PATIENCE_SECONDS:.0f} seconds"
        )

    def _back(self, answer: ray.ObjectRef) -> ActorHandle | None:
        """The worker, if its answer says that it is ready; else it is asked again."""
        worker = self._restarting.pop(answer)
        try:
            ray.get(answer)
        except RayActorError:
            time.sleep(0.1)  # a call to an actor that is starting fails at once
            self._restarting[worker.ready.remote()] = worker
            return None
        return worker

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
