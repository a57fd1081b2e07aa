"""Nodes that Ray says will be gone soon, and the actors that should leave them before.

A machine that its cloud takes back, a pod that Kubernetes evicts (Ray announces it on SIGTERM, and
gives half a minute), a node that the autoscaler no longer needs: each is *draining*. Ray places
nothing new there, and lets what runs there run until the end. Whoever holds something between two
steps looks here, puts it where it lasts, and starts again elsewhere with :func:`start_elsewhere`.
Ray Data gives no further work to its own actors there.

Ray has no public question for this. Its Data and its Train ask where this module does; what Train
offers to its workers is a barrier of all of them, too slow for every step.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Any

import ray
from ray._private.state import state
from ray.actor import ActorHandle

NOTICE_SECONDS = 120.0
"""Before its end a node is left; one that stays longer is still of use."""
MOST_SECONDS_TO_END = 10.0
"""That an actor is given; longer only if its node is gone, and Ray has not noticed."""


def leaving_nodes() -> frozenset[str]:
    """Ids (hex) of the nodes that are announced to leave soon, or without a time."""
    until = 1000 * (time.time() + NOTICE_SECONDS)  # deadlines are in ms since 1970, 0 for none
    return frozenset(node for node, end in state.get_draining_nodes().items() if end < until)


def on_leaving_nodes(actors: Iterable[ActorHandle]) -> list[ActorHandle]:
    """Those of the actors that run on a node that will leave."""
    nodes = leaving_nodes()
    if not nodes:
        return []  # nearly always; one question to the control store
    return [actor for actor in actors if _node(actor) in nodes]


def start_elsewhere(actors: Sequence[ActorHandle]) -> None:
    """End restartable actors: Ray starts them again on nodes that stay. What they hold is lost.

    Returns when they have ended, so that no later call reaches the process that goes.
    """
    before = {actor: _restarts(actor) for actor in actors}
    for actor in actors:
        ray.kill(actor, no_restart=False)
    until = time.monotonic() + MOST_SECONDS_TO_END
    while any(_restarts(a) == n for a, n in before.items()) and time.monotonic() < until:
        time.sleep(0.01)


def _node(actor: ActorHandle) -> str | None:
    """Where it runs; None while it starts."""
    found = _known_of(actor)
    return found["Address"]["NodeID"] if found.get("State") == "ALIVE" else None


def _restarts(actor: ActorHandle) -> int | None:
    return _known_of(actor).get("NumRestarts")


def _known_of(actor: ActorHandle) -> dict[str, Any]:
    """What Ray's control store says of it."""
    found: dict[str, Any] = state.actor_table(actor._actor_id.hex())
    return found
