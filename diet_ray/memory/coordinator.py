"""The memory of one stage, spread over server actors, seen as one.

A :class:`MemoryClient` is what meta-workers get: pull and push. The driver's
:class:`MemoryCoordinator` also starts the servers, decides a step's clipping, commits, makes
steps durable, and rolls back when a server was lost.
"""

from __future__ import annotations

import itertools
import math
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import ray
from ray.actor import ActorHandle
from ray.exceptions import ObjectLostError, RayActorError

from diet_ray import storage
from diet_ray.config import OuterConfig, ResourcesConfig
from diet_ray.memory.rows import SyntheticRows
from diet_ray.memory.server import (
    MemoryServer,
    StaleServerError,
    durable_steps,
    step_uri,
    write_rows,
)
from diet_ray.memory.update import Clipping, Learned, RowGradients

RESTART_PATIENCE_SECONDS = 120.0


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

    def pull(self, step: int, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Embeddings (m, F, d) and labels (m, K) of rows (m,), ascending."""
        parts = _ask([server.pull.remote(step, rows[part]) for server, part in self._split(rows)])
        return tuple(np.concatenate(arrays) for arrays in zip(*parts, strict=True))  # type: ignore[return-value]

    def push(self, step: int, shard: int, gradients: RowGradients) -> None:
        """One logical shard's gradients, each row to the server that holds it."""
        _ask(
            [
                server.push.remote(
                    step,
                    shard,
                    RowGradients(
                        gradients.rows[part], gradients.embeddings[part], gradients.labels[part]
                    ),
                )
                for server, part in self._split(gradients.rows, empty=True)
            ]
        )

    def _split(self, rows: np.ndarray, empty: bool = False) -> list[tuple[ActorHandle, slice]]:
        cuts = np.searchsorted(rows, self.bounds)
        parts = [slice(int(low), int(high)) for low, high in itertools.pairwise(cuts)]
        pairs = zip(self.servers, parts, strict=True)
        return [(s, part) for s, part in pairs if empty or part.stop > part.start]


class MemoryCoordinator:
    """The driver's side of one stage's memory; its calls raise ServerLostError.

    folder: where the stage's durable steps lie; :func:`start_state` has put step 0 there.
    unit: the reference table's standard deviation, in which steps on embeddings are stated.
    """

    def __init__(
        self, folder: str, rows: int, resources: ResourcesConfig, unit: float, name: str
    ) -> None:
        self._folder, self._unit = folder, unit
        self.step, self._clipping = 0, Clipping()
        servers = min(resources.memory_servers, rows)
        bounds = [round(rows * i / servers) for i in range(servers + 1)]
        actor = ray.remote(MemoryServer)
        self.client = MemoryClient(
            tuple(
                actor.options(
                    name=f"{name}-{i}", num_cpus=resources.memory_server_cpus, max_restarts=-1
                ).remote(folder, low, high)
                for i, (low, high) in enumerate(itertools.pairwise(bounds))
            ),
            tuple(bounds),
        )
        self.rollback()

    def pull_all(self) -> tuple[np.ndarray, np.ndarray]:
        """Embeddings and labels of the whole memory as it is now."""
        return self.client.pull(self.step, np.arange(len(self.client)))

    def commit(self, shards: int, outer: OuterConfig, factor: float) -> float:
        """Apply the current step's shards; returns the norm of their mean before clipping.

        factor: the schedule's, of both step sizes. The norm is summed over rows in their order,
        wherever they are held.
        """
        parts = _ask(
            [s.squared_norms.remote(self.step, shards, self._unit) for s in self.client.servers]
        )
        norm = math.sqrt(float(np.concatenate(parts).sum()))
        scale, clipping = self._clipping.step(norm, outer)
        embedding_step = outer.embedding_step * self._unit * factor
        label_step = outer.label_step * factor
        _ask(
            [
                s.commit.remote(self.step, scale, embedding_step, label_step)
                for s in self.client.servers
            ]
        )
        self.step, self._clipping = self.step + 1, clipping
        return norm

    def make_durable(self) -> None:
        """Save the current step; of the earlier ones the last is kept.

        A server that starts again meanwhile may have found that one to be the last.
        """
        files = _ask([s.save.remote(self.step) for s in self.client.servers])
        _write_manifest(self._folder, self.step, files, self._clipping)
        for step in durable_steps(self._folder)[:-2]:
            storage.remove(step_uri(self._folder, step))

    def rollback(self) -> None:
        """Bring every server to the last durable step, waiting for those that restart."""
        deadline = time.monotonic() + RESTART_PATIENCE_SECONDS
        step = durable_steps(self._folder)[-1]
        while True:
            try:
                _ask([s.restore.remote(step) for s in self.client.servers])
                break
            except ServerLostError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)
        manifest = storage.read_json(storage.join(step_uri(self._folder, step), "manifest.json"))
        mean = manifest["mean_norm"]
        self.step, self._clipping = step, Clipping(math.nan if mean is None else mean)

    def close(self) -> None:
        """End the servers."""
        for server in self.client.servers:
            ray.kill(server)


def start_state(folder: str, rows: SyntheticRows) -> None:
    """Save a stage's start as its durable step 0."""
    learned = {
        "embeddings": Learned.start(rows.embeddings),
        "labels": Learned.start(rows.labels),
    }
    name = write_rows(folder, 0, 0, learned)
    _write_manifest(folder, 0, [name], Clipping())


def _write_manifest(folder: str, step: int, files: list[str], clipping: Clipping) -> None:
    mean = None if math.isnan(clipping.mean_norm) else clipping.mean_norm
    uri = storage.join(step_uri(folder, step), "manifest.json")
    storage.write_json(uri, {"step": step, "files": files, "mean_norm": mean})
