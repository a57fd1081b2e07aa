"""A reference's state within a block, so that a killed run need not train the whole block again.

One file beside phi_t's, ``t=<t>/partway.safetensors``, written by one worker (all have the same
state) now and then, and when a node of the training is about to go; read by all when they start,
removed when phi_t is published. When it was written decides no bit: an epoch goes on from it as if
it had never stopped.
"""

from __future__ import annotations

import hashlib
import json
import time
from typing import Any

import numpy as np

from diet_ray import progress, storage, telemetry, tensor_files
from diet_ray.running.draining import leaving_nodes
from diet_ray.training.model import Epoch

KEY = "made_from"
SECONDS_BETWEEN_LOOKS = 2.0
"""For nodes that will leave, mostly half a minute or more later."""


class Partway:
    """The state within the block of one stage, below phi_t's folder `uri`.

    made_from: what phi_t is made from; the state of anything else is not taken up.
    nodes: ids of those that the training runs on.
    """

    def __init__(
        self,
        uri: str,
        made_from: dict[str, Any],
        every_minutes: float,
        nodes: frozenset[str] = frozenset(),
    ) -> None:
        self._uri = storage.join(uri, "partway.safetensors")
        digest = hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).digest()
        self._key = np.frombuffer(digest, dtype=np.uint8)
        self._every, self._saved = 60 * every_minutes, time.monotonic()
        self._staying, self._looked = nodes, time.monotonic()

    def resume(self, epoch: Epoch) -> None:
        """Put a fresh epoch where the file left it, if there is one. Raises StorageError."""
        if not storage.exists(self._uri):
            return
        arrays = tensor_files.read(self._uri)
        if np.array_equal(arrays.pop(KEY), self._key):
            epoch.restore(arrays)
            progress.logger.info("Reference model: goes on after %s rows", f"{epoch.rows:,}")

    def save_if_due(self, epoch: Epoch) -> None:
        """Write the file when the last one is old enough, or when a further node will leave."""
        if time.monotonic() - self._saved >= self._every or self._further_node_leaves():
            tensor_files.write_sealed(self._uri, {**epoch.state(), KEY: self._key})
            self._saved = time.monotonic()
            telemetry.durable()

    def _further_node_leaves(self) -> bool:
        if not self._staying or time.monotonic() - self._looked < SECONDS_BETWEEN_LOOKS:
            return False
        self._looked = time.monotonic()
        leaving = self._staying & leaving_nodes()
        self._staying -= leaving
        if leaving:
            progress.logger.info("Reference model: its state is kept, a node will be gone soon")
        return bool(leaving)

    def remove(self) -> None:
        """The block is done."""
        storage.remove(self._uri)
