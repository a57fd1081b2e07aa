"""A reference's state within a block, so that a killed run need not train the whole block again.

One file beside phi_t's, ``t=<t>/partway.safetensors``, written now and then by one worker (all
have the same state), read by all when they start, removed when phi_t is published. When it was
written decides no bit: an epoch goes on from it as if it had never stopped.
"""

from __future__ import annotations

import hashlib
import json
import time
from typing import Any

import numpy as np

from diet_ray import progress, storage, telemetry
from diet_ray.training.model import Epoch

KEY = "made_from"


class Partway:
    """The state within the block of one stage, below phi_t's folder `uri`.

    made_from: what phi_t is made from; the state of anything else is not taken up.
    """

    def __init__(self, uri: str, made_from: dict[str, Any], every_minutes: float) -> None:
        self._uri = storage.join(uri, "partway.safetensors")
        digest = hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).digest()
        self._key = np.frombuffer(digest, dtype=np.uint8)
        self._every, self._saved = 60 * every_minutes, time.monotonic()

    def resume(self, epoch: Epoch) -> None:
        """Put a fresh epoch where the file left it, if there is one. Raises StorageError."""
        if not storage.exists(self._uri):
            return
        arrays = storage.read_tensors(self._uri)
        if np.array_equal(arrays.pop(KEY), self._key):
            epoch.restore(arrays)
            progress.logger.info("Reference model: goes on after %s rows", f"{epoch.rows:,}")

    def save_if_due(self, epoch: Epoch) -> None:
        """Write the file when the last one is old enough."""
        if time.monotonic() - self._saved >= self._every:
            storage.write_sealed_tensors(self._uri, {**epoch.state(), KEY: self._key})
            self._saved = time.monotonic()
            telemetry.durable()

    def remove(self) -> None:
        """The block is done."""
        storage.remove(self._uri)
