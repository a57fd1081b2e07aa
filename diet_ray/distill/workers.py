"""A pool of meta-workers that computes lists of independent tasks and survives losing any of them.

Results come in the order of the tasks, whichever worker computed them. Work goes to workers that
have answered: one that still starts, or that the cluster has no room for, is told of and waited
for while the others work. A task whose worker died is given to another. Ray restarts the dead
worker meanwhile; it gets work again once it answers. An error that is the task's own is raised.

Before each list of tasks the pool takes the size that the cluster has room for, and its workers
leave the nodes that are about to go (`draining.py`). A cluster that can grow has room for more
workers than its nodes have now; those that wait take whatever is free, so some are given up
(`make_room`) before anything else is to start.
"""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import ray
from ray.actor import ActorHandle
from ray.exceptions import ObjectLostError, RayActorError, RayTaskError

from diet_ray import progress, runtime, telemetry
from diet_ray.config import RunConfig
from diet_ray.distill.positions import Positions
from diet_ray.distill.sources import BATCH_ROWS, Source
from diet_ray.distill.worker import MetaWorker
from diet_ray.logs.blocks import Block, Blocks, BlocksError
from diet_ray.memory.files import RowFiles
from diet_ray.running.draining import on_leaving_nodes, start_elsewhere
from diet_ray.running.patience import Patience

MOST_RANGES = 256
"""Into how many ranges of rows a sum is cut at most. A fixed number: more workers change no bit."""
AHEAD_PER_WORKER = 4
"""Tasks of a sum that may be done before their turn; so many summed gradients wait in memory."""
LOSSES_PER_TASK = 5

Task = Callable[[ActorHandle], ray.ObjectRef]


class WorkersLostError(RuntimeError):
    """No meta-worker answers, or they die faster than they come back."""


class MetaWorkers:
    """The meta-workers of a run, kept over rounds and stages."""

    def __init__(self, config: RunConfig) -> None:
        self._config = config
        resources = config.resources
        self._needs = {"CPU": resources.meta_worker_cpus, "GPU": resources.meta_worker_gpus}
        self._actor = ray.remote(MetaWorker)
        self._numbers = itertools.count()
        self._workers: list[ActorHandle] = []
        # asked whether they are ready, with no answer yet
        self._starting: dict[ray.ObjectRef, ActorHandle] = {}
        self.adapt()

    def adapt(self) -> None:
        """Start what the cluster has room for, give up what there is none for any more, and have
        those on a node that will leave start elsewhere. Only while none of them works."""
        self._resize(runtime.room_for_meta_workers(self._config.resources))

    def make_room(self) -> None:
        """Give up those beside which a scan and the servers find no room on the nodes that are
        there; the next tasks ask for them again. Only while none of them works."""
        now = runtime.room_for_meta_workers_now(self._config.resources)
        self._resize(min(now, len(self._workers)))

    def _resize(self, wanted: int) -> None:
        while len(self._workers) < wanted:
            self._start()
        leaving = on_leaving_nodes(self._workers)
        given_up = self._least_useful(leaving)[: len(self._workers) - wanted]
        moved = [worker for worker in leaving if worker not in given_up]
        for worker in given_up:
            ray.kill(worker)
        start_elsewhere(moved)
        ended = [*given_up, *moved]
        self._workers = [w for w in self._workers if w not in given_up]
        self._starting = {call: w for call, w in self._starting.items() if w not in ended}
        for worker in moved:
            self._wait_for(worker)

    def _least_useful(self, leaving: Sequence[ActorHandle]) -> list[ActorHandle]:
        """All of them: first those that have not answered yet, then those on nodes that leave."""
        calls = [*self._starting]
        silent = ray.wait(calls, num_returns=len(calls), timeout=0)[1] if calls else []
        absent = [self._starting[call] for call in silent]
        return sorted(self._workers, key=lambda w: (w not in absent, w not in leaving))

    def _start(self) -> None:
        worker = self._actor.options(
            name=f"meta-worker-{next(self._numbers)}",
            num_cpus=self._needs["CPU"],
            num_gpus=self._needs["GPU"],
            max_restarts=-1,
        ).remote(self._config)
        self._workers.append(worker)
        self._wait_for(worker)

    def _wait_for(self, worker: ActorHandle) -> None:
        """It gets work when it answers."""
        self._starting[worker.ready.remote()] = worker

    def run(self, tasks: Sequence[Task]) -> list[Any]:
        """The tasks' results, in order. Raises what a task raises, WorkersLostError."""
        return list(self._results(tasks))

    def _results(self, tasks: Sequence[Task], *, bounded: bool = False) -> Iterator[Any]:
        """The same one by one; bounded: no task starts AHEAD_PER_WORKER of each worker before its
        result is due."""
        self.adapt()
        ahead = AHEAD_PER_WORKER * len(self._workers) if bounded else len(tasks)
        waiting = deque(range(len(tasks)))
        idle = deque(w for w in self._workers if w not in self._starting.values())
        running: dict[ray.ObjectRef, tuple[int, ActorHandle]] = {}
        results: dict[int, Any] = {}
        losses, due = [0] * len(tasks), 0
        patience = Patience("meta-workers", "resources.meta_workers", self._needs, WorkersLostError)
        fewest, _ = self._config.resources.range_of_meta_workers
        while due < len(tasks):
            while waiting and idle and waiting[0] < due + ahead:
                number, worker = waiting.popleft(), idle.popleft()
                running[tasks[number](worker)] = (number, worker)
            finished = patience.first(
                [*running, *self._starting],
                missing=max(fewest - len(self._workers) + len(self._starting), 0),
                of=fewest,
                working=bool(running),
            )
            if finished in self._starting:
                worker_back = self._back(finished)
                idle += [worker_back] if worker_back else []
                continue
            number, worker = running.pop(finished)
            try:
                results[number] = ray.get(finished)
                progress.beat()
                idle.append(worker)
                patience.renew()
            except (RayActorError, ObjectLostError) as error:
                if isinstance(error, RayTaskError):
                    raise  # the worker lives; something that the task asked died
                self._wait_for(worker)
                losses[number] += 1
                telemetry.RETRIES.add(1, what="meta-worker task")
                if losses[number] >= len(self._workers) + LOSSES_PER_TASK:
                    raise WorkersLostError(
                        f"a task's worker died {losses[number]} times, last: {error}"
                    ) from None
                waiting.appendleft(number)
            while due in results:
                yield results.pop(due)
                due += 1

    def _back(self, answer: ray.ObjectRef) -> ActorHandle | None:
        """The worker, if its answer says that it is ready; else it is asked again."""
        worker = self._starting.pop(answer)
        try:
            ray.get(answer)
        except RayActorError:
            time.sleep(0.1)  # a call to an actor that is starting fails at once
            self._wait_for(worker)
            return None
        return worker

    def inner_start(self, stage: int, round_number: int) -> np.ndarray:
        """theta_0 of the first proxy for fusion and addressing, (P,) float32."""
        found: np.ndarray = self.run([lambda w: w.inner_start.remote(stage, round_number)])[0]
        return found

    def taught(self, stage: int, ids: np.ndarray) -> np.ndarray:
        """phi_t's logits of ids (m, F), float32 (m, K)."""
        found: np.ndarray = self.run([lambda w: w.taught.remote(stage, ids)])[0]
        return found

    def write_start(
        self,
        stage: int,
        blocks: Blocks,
        previous: RowFiles | None,
        target: RowFiles,
        parts: Sequence[tuple[Positions, np.ndarray]],
    ) -> list[str]:
        """Write all files of a stage's start; parts: positions and row ids that each holds."""
        shared = stage, ray.put(blocks), ray.put(previous), ray.put(target)

        def task(worker: ActorHandle, number: int) -> ray.ObjectRef:
            return worker.write_start.remote(*shared, number, *parts[number])

        return self.run([partial(task, number=number) for number in range(len(parts))])

    def real_rows(
        self, blocks: Blocks, block: Block, row_ids: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """ids (m, F) int32 and labels (m, K) uint8 of the rows with these ids, ascending; every
        fragment that holds some is read once."""
        shared = ray.put(blocks), ray.put(block)
        starts = [fragment.first_row_id for fragment in block.fragments]
        parts = [part for part in np.split(row_ids, np.searchsorted(row_ids, starts)) if len(part)]

        def task(worker: ActorHandle, part: np.ndarray) -> ray.ObjectRef:
            return worker.real_rows.remote(*shared, part)

        found = self.run([partial(task, part=part) for part in parts])
        ids, labels = (np.concatenate(arrays) for arrays in zip(*found, strict=True))
        return ids, labels

    def summed_gradient(
        self, stage: int, source: Source, rows: int, theta: np.ndarray
    ) -> np.ndarray:
        """sum of grad l over all `rows` rows of a source, float32 (P,), added in row order."""
        arguments = stage, ray.put(source), ray.put(theta)

        def task(worker: ActorHandle, part: tuple[int, int]) -> ray.ObjectRef:
            return worker.summed_gradient.remote(*arguments, *part)

        tasks = [partial(task, part=part) for part in _ranges(rows)]
        total = np.zeros(len(theta))
        for part in self._results(tasks, bounded=True):
            total += part
        return total.astype(np.float32)

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
    """At most MOST_RANGES ranges of whole batches, the last one cut."""
    if rows == 0:
        raise BlocksError("a gradient over no rows was asked for")
    length = BATCH_ROWS * -(-rows // (BATCH_ROWS * MOST_RANGES))
    return [(first, min(first + length, rows)) for first in range(0, rows, length)]
