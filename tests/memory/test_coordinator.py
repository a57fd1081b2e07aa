"""The memory over real server actors: any number of them, and servers that are killed."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import ray

from diet_ray import storage
from diet_ray.config import OuterConfig, ResourcesConfig
from diet_ray.memory.coordinator import (
    MemoryClient,
    MemoryCoordinator,
    ServerLostError,
    start_state,
)
from diet_ray.memory.rows import SyntheticRows
from diet_ray.memory.server import durable_steps, step_uri
from diet_ray.memory.update import Clipping, Learned, RowGradients, squared_norms, sum_shards

pytestmark = pytest.mark.usefixtures("ray_session")

ROWS, FIELDS, DIM, TASKS, SHARDS, UNIT = 11, 3, 2, 2, 2, 0.5
OUTER = OuterConfig(clip=1.1, clip_memory=0.5)
numbers = count()


def synthetic_rows() -> SyntheticRows:
    draw = np.random.default_rng(0)
    return SyntheticRows(
        embeddings=draw.normal(size=(ROWS, FIELDS, DIM)).astype(np.float32),
        labels=draw.normal(size=(ROWS, TASKS)).astype(np.float32),
        stages=np.ones(ROWS, dtype=np.int32),
        source_rows=np.arange(ROWS),
        anchors=np.ones((ROWS, FIELDS), dtype=np.int32),
    )


def gradients(step: int, shard: int) -> RowGradients:
    draw = np.random.default_rng((step, shard))
    rows = np.flatnonzero(draw.random(ROWS) < 0.6)
    scale = 10.0 ** draw.integers(-1, 2)  # so that clipping has something to do
    return RowGradients(
        rows,
        (scale * draw.normal(size=(len(rows), FIELDS, DIM))).astype(np.float32),
        (scale * draw.normal(size=(len(rows), TASKS))).astype(np.float32),
    )


def factor(step: int) -> float:
    return 1 / (1 + step)


@contextmanager
def memory(folder: Path, servers: int, rows: int = ROWS) -> Iterator[MemoryCoordinator]:
    """The memory in `folder`, started there if nothing is."""
    if not durable_steps(str(folder)):
        start_state(str(folder), synthetic_rows().take(slice(0, rows)))
    resources = ResourcesConfig(memory_servers=servers, memory_server_cpus=0.01)
    coordinator = MemoryCoordinator(str(folder), rows, resources, UNIT, f"memory-{next(numbers)}")
    try:
        yield coordinator
    finally:
        coordinator.close()


def push_all(coordinator: MemoryCoordinator) -> None:
    for shard in range(SHARDS):
        coordinator.client.push(coordinator.step, shard, gradients(coordinator.step, shard))


def advance(coordinator: MemoryCoordinator, steps: int) -> list[float]:
    norms = []
    for _ in range(steps):
        push_all(coordinator)
        norms.append(coordinator.commit(SHARDS, OUTER, factor(coordinator.step)))
    return norms


def content(coordinator: MemoryCoordinator) -> bytes:
    return b"".join(array.tobytes() for array in coordinator.pull_all())


def expected_after(steps: int) -> tuple[bytes, list[float]]:
    """The same updates without servers."""
    rows, clipping, norms = synthetic_rows(), Clipping(), []
    embeddings, labels = Learned.start(rows.embeddings), Learned.start(rows.labels)
    for step in range(steps):
        summed = sum_shards({shard: gradients(step, shard) for shard in range(SHARDS)})
        norms.append(float(squared_norms(summed, UNIT).sum()) ** 0.5)
        scale, clipping = clipping.step(norms[-1], OUTER)
        step_size = OUTER.embedding_step * UNIT * factor(step)
        embeddings.adam(summed.rows, summed.embeddings * scale, step_size)
        labels.adam(summed.rows, summed.labels * scale, OUTER.label_step * factor(step))
    return embeddings.values.tobytes() + labels.values.tobytes(), norms


def kill_server(coordinator: MemoryCoordinator, number: int) -> None:
    server = coordinator.client.servers[number]
    os.kill(ray.get(server.__ray_call__.remote(lambda _: os.getpid())), signal.SIGKILL)


@pytest.mark.parametrize("servers", [1, 3])
def test_any_number_of_servers_holds_the_same_rows(tmp_path: Path, servers: int) -> None:
    expected, expected_norms = expected_after(5)
    with memory(tmp_path, servers) as coordinator:
        assert advance(coordinator, 5) == pytest.approx(expected_norms, rel=1e-12)
        assert content(coordinator) == expected
        rows = np.array([0, 4, 10])
        embeddings, labels = coordinator.client.pull(5, rows)
        assert (embeddings == coordinator.pull_all()[0][rows]).all()
        assert labels.shape == (3, TASKS)


def test_more_servers_than_rows_are_not_started(tmp_path: Path) -> None:
    with memory(tmp_path, servers=9, rows=2) as coordinator:
        assert len(coordinator.client.servers) == len(coordinator.client) == 2
        assert (coordinator.pull_all()[0] == synthetic_rows().embeddings[:2]).all()


def test_another_number_of_servers_goes_on_from_the_durable_step(tmp_path: Path) -> None:
    with memory(tmp_path, 3) as coordinator:
        advance(coordinator, 2)
        coordinator.make_durable()
        advance(coordinator, 1)  # never made durable, so it is lost
    with memory(tmp_path, 2) as coordinator:
        assert coordinator.step == 2
        assert content(coordinator) == expected_after(2)[0]
        advance(coordinator, 3)
        assert content(coordinator) == expected_after(5)[0]


@pytest.mark.parametrize("number", [0, 1])
def test_a_killed_server_is_noticed_and_rolled_back(tmp_path: Path, number: int) -> None:
    with memory(tmp_path, 2) as coordinator:
        advance(coordinator, 2)
        coordinator.make_durable()
        advance(coordinator, 1)
        kill_server(coordinator, number)
        with pytest.raises(ServerLostError):
            advance(coordinator, 1)
        coordinator.rollback()
        assert coordinator.step == 2
        assert content(coordinator) == expected_after(2)[0]
        advance(coordinator, 2)
        assert content(coordinator) == expected_after(4)[0]


def test_a_server_killed_between_sum_and_commit(tmp_path: Path) -> None:
    """It comes back at the very step of the commit, without what was pushed."""
    with memory(tmp_path, 2) as coordinator:
        push_all(coordinator)
        kill_server(coordinator, 1)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                coordinator.pull_all()
                break
            except ServerLostError:
                time.sleep(0.1)
        with pytest.raises(ServerLostError, match="0 of 2 shards"):
            coordinator.commit(SHARDS, OUTER, factor(0))
        coordinator.rollback()
        advance(coordinator, 2)
        assert content(coordinator) == expected_after(2)[0]


def test_a_worker_says_that_a_server_was_lost(tmp_path: Path) -> None:
    """Not that an actor was, which would read as its own death."""

    @ray.remote(num_cpus=0)
    def push(client: MemoryClient, step: int, times: int) -> None:
        for _ in range(times):
            client.push(step, 0, gradients(step, 0))

    with memory(tmp_path, 1) as coordinator:
        with pytest.raises(ServerLostError, match="asked about step 4"):
            ray.get(push.remote(coordinator.client, 4, times=1))
        advance(coordinator, 1)
        pushing = push.remote(coordinator.client, 1, times=1_000_000)
        kill_server(coordinator, 0)
        with pytest.raises(ServerLostError) as caught:
            ray.get(pushing)
        assert not isinstance(caught.value, ray.exceptions.RayActorError)


def test_a_late_push_of_an_earlier_attempt_changes_nothing(tmp_path: Path) -> None:
    with memory(tmp_path, 2) as coordinator:
        advance(coordinator, 1)
        coordinator.make_durable()
        late, step = gradients(1, 0), coordinator.step
        push_all(coordinator)
        coordinator.rollback()
        coordinator.client.push(step, 0, late)  # it arrives after the rollback to its own step
        push_all(coordinator)
        coordinator.client.push(step, 0, late)  # and once more after the repeated ones
        coordinator.commit(SHARDS, OUTER, factor(step))
        with pytest.raises(ServerLostError, match="asked about step 1, this server is at 2"):
            coordinator.client.push(step, 0, late)
        assert content(coordinator) == expected_after(2)[0]


def test_a_step_that_another_step_is_asked_about_is_refused(tmp_path: Path) -> None:
    with memory(tmp_path, 1) as coordinator:
        advance(coordinator, 1)
        with pytest.raises(ServerLostError, match="asked about step 0, this server is at 1"):
            coordinator.client.pull(0, np.array([1]))


def test_the_last_two_durable_steps_are_kept(tmp_path: Path) -> None:
    with memory(tmp_path, 2) as coordinator:
        for _ in range(4):
            advance(coordinator, 1)
            coordinator.make_durable()
        assert durable_steps(str(tmp_path)) == [3, 4]
        (Path(step_uri(str(tmp_path), 4)) / "manifest.json").unlink()
        coordinator.rollback()
        assert content(coordinator) == expected_after(3)[0]


def test_the_clipping_state_is_durable(tmp_path: Path) -> None:
    with memory(tmp_path, 1) as coordinator:
        norms = advance(coordinator, 3)
        coordinator.make_durable()
    manifest = storage.read_json(storage.join(step_uri(str(tmp_path), 3), "manifest.json"))
    clipping = Clipping()
    for norm in norms:
        clipping = clipping.step(norm, OUTER)[1]
    assert manifest["mean_norm"] == clipping.mean_norm
