"""The memory of one stage, spread over server actors, seen as one.

A :class:`MemoryClient` is what meta-workers get: pull and push. The driver's
:class:`MemoryCoordinator` also starts the servers, decides a step's clipping, commits, makes
steps durable, rolls back when a server was lost, and has servers leave nodes that are about to go.
"""

from __future__ import annotations

import itertools
import math
import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import ray
from ray.actor import ActorHandle
from ray.exceptions import ObjectLostError, RayActorError

from diet_ray import progress, telemetry
from diet_ray.config import OuterConfig, ResourcesConfig
from diet_ray.memory.durable import DurableStep, durable_steps, publish_step, read_step
from diet_ray.memory.files import RowFiles
from diet_ray.memory.rows import SyntheticRows
from diet_ray.memory.server import MemoryServer, StaleServerError
from diet_ray.memory.update import Clipping, RowGradients
from diet_ray.running.draining import on_leaving_nodes, start_elsewhere
from diet_ray.running.patience import Patience

WASTE = 2
"""A durable step saves all that was learned once the saved changes hold more than so many times
the rows on which something is learned: saving stays cheap, and so does reading it back."""


class ServerLostError(RuntimeError):
    """A server died, is starting again, or is back at an earlier step; roll back and repeat.

    An error of its own, since in a meta-worker Ray's errors about a lost server look like those
    that the driver gets about a lost meta-worker.
    """


def _ask(calls: list[ray.ObjectRef]) -> list[Any]:
    """The servers' answers. Raises ServerLostError."""
    try:
        return ray.get(calls)
    except (RayActorError, ObjectLostError, StaleServerError) as error:
        raise ServerLostError(str(error)) from None


@dataclass(frozen=True)
class MemoryClient:
    """Handles of the servers and the rows that each holds; travels to workers by pickling.

    Every call raises ServerLostError if a server cannot answer for the step that it names.
    """

    servers: tuple[ActorHandle, ...]
    bounds: tuple[int, ...]  # server i holds rows bounds[i]..bounds[i + 1]

    def __len__(self) -> int:
        return self.bounds[-1]

    def pull(self, step: int, rows: np.ndarray) -> SyntheticRows:
        """The rows at (m,), ascending; at least one."""
        with telemetry.PULL.timed():
            asked = [server.pull.remote(step, rows[part]) for server, part in self._split(rows)]
            parts = _ask(asked)
        return SyntheticRows.concatenate(parts)

    def push(self, step: int, shard: int, gradients: RowGradients | None) -> None:
        """One logical shard's gradients, each row to the server that holds it; None of a shard that
        is not finite, to all."""
        if gradients is None:
            _ask([server.push.remote(step, shard, None) for server in self.servers])
            return
        with telemetry.PUSH.timed():
            parts = self._split(gradients.rows, empty=True)
            _ask([server.push.remote(step, shard, gradients.take(part)) for server, part in parts])

    def _split(self, rows: np.ndarray, empty: bool = False) -> list[tuple[ActorHandle, slice]]:
        cuts = np.searchsorted(rows, self.bounds)
        parts = [slice(int(low), int(high)) for low, high in itertools.pairwise(cuts)]
        pairs = zip(self.servers, parts, strict=True)
        return [(s, part) for s, part in pairs if empty or part.stop > part.start]


class MemoryCoordinator:
    """The driver's side of one stage's memory; its calls raise ServerLostError.

    A server that does not start, or start again, since the cluster has no room for it yet, is
    waited for as `patience.py` says; what is missing is told meanwhile.

    folder: where the stage's durable steps lie; :func:`start_steps` has put step 0 there.
    start: the stage's rows before its first step; each server holds whole files of them.
    unit: the reference table's standard deviation, in which steps on embeddings are stated; None
    where embeddings are not learned.
    """

    def __init__(
        self,
        folder: str,
        start: RowFiles,
        resources: ResourcesConfig,
        unit: float | None,
        name: str,
    ) -> None:
        self._folder, self._unit = folder, unit
        self._needs = {"CPU": resources.memory_server_cpus}
        self.step, self._clipping = 0, Clipping()
        self.dropped = 0  # shards that were not finite, of all steps so far
        self._durable = DurableStep(0, {})
        self._touched = self._saved_rows = 0  # rows that learn, and rows in the durable files
        servers = min(resources.memory_servers, start.count)
        cuts = [round(start.count * i / servers) for i in range(servers + 1)]
        actor = ray.remote(MemoryServer)
        self.client = MemoryClient(
            tuple(
                actor.options(
                    name=f"{name}-{i}",
                    num_cpus=resources.memory_server_cpus,
                    label_selector=resources.memory_server_labels or None,
                    max_restarts=-1,
                ).remote(folder, start, range(low, high), unit is not None)
                for i, (low, high) in enumerate(itertools.pairwise(cuts))
            ),
            (*(start.bounds(cut)[0] for cut in cuts[:-1]), start.rows),
        )
        self.rollback()

    def commit(self, shards: int, outer: OuterConfig, factor: float, dropped: int = 0) -> float:
        """Apply the current step's shards; returns the norm of their mean before clipping.

        factor: the schedule's, of both step sizes; dropped: how many of the shards were not finite.
        The norm is summed over rows in their order, wherever they are held.
        """
        unit = self._unit or 1.0  # without embeddings it scales nothing
        parts = self._ask_all("squared_norms", shards, unit)
        norm = math.sqrt(float(np.concatenate(parts).sum()))
        scale, clipping = self._clipping.step(norm, outer)
        steps = outer.embedding_step * unit * factor, outer.label_step * factor
        self._ask_all("commit", scale, *steps)
        self.step, self._clipping = self.step + 1, clipping
        self.dropped += dropped
        return norm

    def make_durable(self) -> None:
        """Save the current step: what changed since the last one, or all that was learned."""
        whole = self._saved_rows > WASTE * self._touched
        saved = self._ask_all("save", whole=whole)
        files = {} if whole else dict(self._durable.files)
        for part in saved:
            files |= part.files
        self._durable = DurableStep(self.step, files, self._clipping.norms, self.dropped)
        publish_step(self._folder, self._durable)
        telemetry.durable()
        self._touched = sum(s.touched for s in saved)
        self._saved_rows = sum(s.rows for s in saved) + (0 if whole else self._saved_rows)

    def rollback(self) -> None:
        """Bring every server to the last durable step, waiting for those that restart."""
        self._durable = read_step(self._folder, durable_steps(self._folder)[-1])
        patience = Patience(
            "memory servers", "resources.memory_servers", self._needs, ServerLostError
        )
        servers = self.client.servers
        waiting = {server.restore.remote(self._durable.step): server for server in servers}
        while waiting:
            answer = patience.first([*waiting], missing=len(waiting), of=len(servers))
            server = waiting.pop(answer)
            try:
                _ask([answer])
                patience.renew()
            except ServerLostError:
                time.sleep(0.1)  # a call to an actor that starts again fails at once
                waiting[server.restore.remote(self._durable.step)] = server
        self.step, self._clipping = self._durable.step, Clipping(self._durable.norms)
        self.dropped = self._durable.dropped
        # how much the files hold is not known: the next durable step saves everything
        self._touched, self._saved_rows = 0, len(self._durable.files)

    def leave_nodes(self) -> None:
        """Have the servers on nodes that will be gone soon start elsewhere, at the current step."""
        leaving = on_leaving_nodes(self.client.servers)
        if not leaving:
            return
        if self._durable.step < self.step:
            self.make_durable()
        progress.logger.info(
            "%d of %d memory servers leave nodes that will be gone soon",
            len(leaving),
            len(self.client.servers),
        )
        start_elsewhere(leaving)
        self.rollback()

    def write(self, target: RowFiles) -> RowFiles:
        """Write the memory as it is now, every server its own files; returns them with their
        checksums."""
        found: dict[int, str] = {}
        for part in self._ask_all("write", target):
            found |= part
        return replace(target, checksums=tuple(found[number] for number in range(target.count)))

    def holds(self, ids: np.ndarray) -> np.ndarray:
        """Which of the ids (m, F) some row's anchor has, (m, F) bool."""
        found: np.ndarray = np.logical_or.reduce(self._ask_all("holds", ids))
        return found

    def close(self) -> None:
        """End the servers."""
        for server in self.client.servers:
            ray.kill(server)

    def _ask_all(self, call: str, *arguments: Any, **named: Any) -> list[Any]:
        """Every server's answer to a call about the current step. Raises ServerLostError."""
        servers = self.client.servers
        return _ask([getattr(s, call).remote(self.step, *arguments, **named) for s in servers])


def start_steps(folder: str) -> None:
    """Make a stage's start its durable step 0."""
    publish_step(folder, DurableStep(0, {}))
