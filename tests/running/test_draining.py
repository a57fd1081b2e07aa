"""Nodes that are announced to leave; `tests/chaos/test_elasticity.py` drains real ones."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
import ray
from ray.actor import ActorHandle
from ray.exceptions import RayActorError

from diet_ray.running import draining
from diet_ray.running.draining import leaving_nodes, on_leaving_nodes, start_elsewhere
from tests.cluster.ray_processes import wait_until

pytestmark = pytest.mark.usefixtures("ray_session")


@ray.remote(num_cpus=0, max_restarts=-1)
class Counter:
    """Holds a count."""

    def __init__(self) -> None:
        self._count = 0

    def count(self) -> int:
        self._count += 1
        return self._count


@pytest.fixture
def counter(ray_session: None) -> Iterator[ActorHandle]:
    """One that has counted to 1."""
    counter = Counter.remote()
    assert ray.get(counter.count.remote()) == 1
    yield counter
    ray.kill(counter)


def counted(counter: ActorHandle) -> int | None:
    """None while it starts again."""
    try:
        found: int = ray.get(counter.count.remote())
    except RayActorError:
        return None
    return found


def test_no_node_leaves_unannounced(counter: ActorHandle) -> None:
    assert leaving_nodes() == frozenset()
    assert on_leaving_nodes([counter]) == []


def test_actors_on_an_announced_node_are_found(
    counter: ActorHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Announced in Ray's place, which ends a node that it has announced."""
    here = ray.get_runtime_context().get_node_id()
    monkeypatch.setattr(draining, "leaving_nodes", lambda: frozenset([here]))
    assert on_leaving_nodes([counter]) == [counter]
    monkeypatch.setattr(draining, "leaving_nodes", lambda: frozenset(["another"]))
    assert on_leaving_nodes([counter]) == []


def test_a_node_is_left_in_the_two_minutes_before_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000 * time.time()
    ends = {"soon": now + 100_000, "later": now + 3_600_000, "some time": 0, "past": now - 1}
    monkeypatch.setattr(draining.state, "get_draining_nodes", lambda: ends)
    assert leaving_nodes() == {"soon", "some time", "past"}


def test_an_actor_that_starts_elsewhere_has_lost_what_it_held(counter: ActorHandle) -> None:
    assert counted(counter) == 2
    start_elsewhere([counter])
    wait_until(lambda: counted(counter) == 1, "another start")
