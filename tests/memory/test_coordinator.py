"""The memory over real server actors: any number of them, and servers that are killed."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import ray

from diet_ray import storage, tensor_files
from diet_ray.config import OuterConfig, ResourcesConfig
from diet_ray.memory import coordinator as module
from diet_ray.memory.coordinator import (
    WASTE,
    MemoryClient,
    MemoryCoordinator,
    ServerLostError,
    start_steps,
)
from diet_ray.memory.durable import durable_steps, read_step
from diet_ray.memory.files import RowFiles
from diet_ray.memory.rows import SyntheticRows
from diet_ray.memory.update import Clipping, Learned, RowGradients, squared_norms, sum_shards
from diet_ray.running import patience
from tests.sets import assert_same, files_of, random_rows

pytestmark = pytest.mark.usefixtures("ray_session")

ROWS, FIELDS, DIM, TASKS, SHARDS, UNIT = 11, 3, 2, 2, 2, 0.5
PER_FILE = 2
OUTER = OuterConfig(clip=1.1, clip_window=3)
numbers = count()


def synthetic_rows() -> SyntheticRows:
    return random_rows(ROWS, (FIELDS, DIM, TASKS))


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
def memory(
    folder: Path, servers: int, rows: int = ROWS, unit: float | None = UNIT, cpus: float = 0.01
) -> Iterator[MemoryCoordinator]:
    """The memory in `folder`, started there if nothing is; files of so few rows that any number
    of servers has some."""
    steps = str(folder / "memory")
    start = start_files(folder, rows)
    if not durable_steps(steps):
        start_steps(steps)
    resources = ResourcesConfig(memory_servers=servers, memory_server_cpus=cpus)
    coordinator = MemoryCoordinator(steps, start, resources, unit, f"memory-{next(numbers)}")
    try:
        yield coordinator
    finally:
        coordinator.close()


def start_files(folder: Path, rows: int) -> RowFiles:
    names = tuple("abc")
    return files_of(str(folder / "start"), synthetic_rows().take(slice(0, rows)), names, PER_FILE)


def steps_in(folder: Path) -> list[int]:
    return durable_steps(str(folder / "memory"))


def push_all(coordinator: MemoryCoordinator) -> None:
    for shard in range(SHARDS):
        coordinator.client.push(coordinator.step, shard, gradients(coordinator.step, shard))


def advance(coordinator: MemoryCoordinator, steps: int) -> list[float]:
    norms = []
    for _ in range(steps):
        push_all(coordinator)
        norms.append(coordinator.commit(SHARDS, OUTER, factor(coordinator.step)))
    return norms


def content(coordinator: MemoryCoordinator) -> SyntheticRows:
    return coordinator.client.pull(coordinator.step, np.arange(len(coordinator.client)))


def expected_after(steps: int) -> tuple[SyntheticRows, list[float]]:
    """The same updates without servers, on dense arrays."""
    rows, clipping, norms = synthetic_rows(), Clipping(), []
    touched = np.zeros(ROWS, dtype=bool)
    deltas, labels = Learned.start(rows.dense_deltas()), Learned.start(rows.labels)
    for step in range(steps):
        summed = sum_shards({shard: gradients(step, shard) for shard in range(SHARDS)})
        norms.append(float(squared_norms(summed, UNIT).sum()) ** 0.5)
        scale, clipping = clipping.step(norms[-1], OUTER)
        step_size = OUTER.embedding_step * UNIT * factor(step)
        deltas.adam(summed.rows, summed.embeddings * scale, step_size)
        labels.adam(summed.rows, summed.labels * scale, OUTER.label_step * factor(step))
        touched[summed.rows] = True
    moved = rows.moved | touched
    learned = {"labels": labels.values, "moved": moved, "deltas": deltas.values[moved]}
    return replace(rows, **learned), norms


def kill_server(coordinator: MemoryCoordinator, number: int) -> None:
    os.kill(server_processes(coordinator)[number], signal.SIGKILL)


def server_processes(coordinator: MemoryCoordinator) -> list[int]:
    servers = coordinator.client.servers
    return ray.get([server.__ray_call__.remote(lambda _: os.getpid()) for server in servers])


@pytest.mark.parametrize("servers", [1, 3])
def test_any_number_of_servers_holds_the_same_rows(tmp_path: Path, servers: int) -> None:
    expected, expected_norms = expected_after(5)
    with memory(tmp_path, servers) as coordinator:
        assert advance(coordinator, 5) == pytest.approx(expected_norms, rel=1e-12)
        assert_same(content(coordinator), expected)
        rows = np.array([0, 4, 10])
        assert_same(coordinator.client.pull(5, rows), expected.take(rows))


def test_more_servers_than_files_are_not_started(tmp_path: Path) -> None:
    with memory(tmp_path, servers=9, rows=3) as coordinator:
        assert len(coordinator.client.servers) == 2
        assert coordinator.client.bounds == (0, 2, 3)
        assert_same(content(coordinator), synthetic_rows().take(slice(0, 3)))


def test_every_server_holds_whole_files(tmp_path: Path) -> None:
    """Of six files each of four has one at least."""
    with memory(tmp_path, 4) as coordinator:
        assert coordinator.client.bounds == (0, 4, 6, 8, 11)


def test_servers_write_the_finished_files(tmp_path: Path) -> None:
    target = replace(start_files(tmp_path, ROWS), uri=str(tmp_path / "end"), checksums=())
    with memory(tmp_path, 2) as coordinator:
        advance(coordinator, 3)
        written = coordinator.write(target)
    assert_same(written.slice(0, ROWS), expected_after(3)[0])


def test_ids_of_any_servers_anchors_are_told(tmp_path: Path) -> None:
    anchors = synthetic_rows().anchors
    asked = np.random.default_rng(1).integers(0, 100, (200, FIELDS))
    asked[:ROWS] = anchors[:, [1, 2, 0]]
    expected = np.stack([np.isin(asked[:, f], anchors[:, f]) for f in range(FIELDS)], axis=1)
    with memory(tmp_path, 2) as coordinator:
        found = coordinator.holds(asked)
    assert np.array_equal(found, expected)
    assert 0 < found.sum() < found.size


def test_labels_alone_may_learn(tmp_path: Path) -> None:
    """As in `update.py`'s own steps; the rows keep the deltas that they have."""
    start, found = synthetic_rows(), gradients(0, 0)
    with memory(tmp_path, 1, unit=None) as coordinator:
        coordinator.client.push(0, 0, replace(found, embeddings=None))
        norm = coordinator.commit(1, OUTER, 1.0)
        rows = content(coordinator)
    labels = Learned.start(start.labels)
    labels.adam(found.rows, found.labels.astype(np.float64), OUTER.label_step)
    assert norm == pytest.approx(float(np.linalg.norm(found.labels)), rel=1e-6)
    assert_same(rows, replace(start, labels=labels.values))


def test_another_number_of_servers_goes_on_from_the_durable_step(tmp_path: Path) -> None:
    with memory(tmp_path, 3) as coordinator:
        advance(coordinator, 2)
        coordinator.make_durable()
        advance(coordinator, 1)  # never made durable, so it is lost
    with memory(tmp_path, 2) as coordinator:
        assert coordinator.step == 2
        assert_same(content(coordinator), expected_after(2)[0])
        advance(coordinator, 3)
        assert_same(content(coordinator), expected_after(5)[0])


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
        assert_same(content(coordinator), expected_after(2)[0])
        advance(coordinator, 2)
        assert_same(content(coordinator), expected_after(4)[0])


def test_servers_leave_a_node_without_losing_a_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with memory(tmp_path, 2) as coordinator:
        advance(coordinator, 2)
        coordinator.make_durable()
        advance(coordinator, 1)
        first = server_processes(coordinator)
        coordinator.leave_nodes()
        assert server_processes(coordinator) == first
        monkeypatch.setattr(module, "on_leaving_nodes", lambda servers: servers[1:])
        for _ in range(2):  # the second time the step is durable already
            coordinator.leave_nodes()
            assert coordinator.step == 3
            assert_same(content(coordinator), expected_after(3)[0])
        here, *moved = server_processes(coordinator)
        assert here == first[0]
        assert not {*moved} & {*first}
        advance(coordinator, 2)
        assert_same(content(coordinator), expected_after(5)[0])


@ray.remote
class Other:
    """Takes room in the cluster."""

    def ready(self) -> None:
        pass


def test_a_server_that_comes_back_late_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As when its node was lost, and a new one takes minutes; what is missing is told."""
    monkeypatch.setattr(patience, "SECONDS_BETWEEN_REMARKS", 0.5)
    most = 0.6 * ray.cluster_resources()["CPU"]
    with memory(tmp_path, 1, cpus=most) as coordinator:
        advance(coordinator, 2)
        coordinator.make_durable()
        other = Other.options(num_cpus=most).remote()
        ready = other.ready.remote()
        kill_server(coordinator, 0)
        ray.get(ready)  # in the place of the server, which waits now
        leaving = threading.Timer(3, ray.kill, [other])
        leaving.start()
        coordinator.rollback()
        leaving.join()
        assert_same(content(coordinator), expected_after(2)[0])
    told = f"Waiting: 1 of 1 memory servers have not started; each needs {most:g} CPU, free in the"
    assert caplog.text.count(told) > 1


def test_a_server_that_never_starts_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "SECONDS_BETWEEN_REMARKS", 0.5)
    monkeypatch.setattr(patience, "PATIENCE_SECONDS", 1.0)
    room = ray.cluster_resources()["CPU"]
    told = "none of the memory servers answered within 1 seconds; 1 of 1 memory servers have not"
    with pytest.raises(ServerLostError, match=told), memory(tmp_path, 1, cpus=room + 1):
        raise AssertionError("it started")


def test_a_server_killed_between_push_and_commit(tmp_path: Path) -> None:
    """It comes back without what was pushed, and knows no step before it is told one."""
    with memory(tmp_path, 2) as coordinator:
        push_all(coordinator)
        kill_server(coordinator, 1)
        deadline, told = time.monotonic() + 60, ""
        while "is at None" not in told and time.monotonic() < deadline:
            with pytest.raises(ServerLostError) as caught:
                content(coordinator)
            told = str(caught.value)
            time.sleep(0.1)
        with pytest.raises(ServerLostError, match="asked about step 0, this server is at None"):
            coordinator.commit(SHARDS, OUTER, factor(0))
        coordinator.rollback()
        advance(coordinator, 2)
        assert_same(content(coordinator), expected_after(2)[0])


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
        assert_same(content(coordinator), expected_after(2)[0])


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
        assert steps_in(tmp_path) == [3, 4]
        (tmp_path / "memory" / "step=000004.json").unlink()
        coordinator.rollback()
        assert_same(content(coordinator), expected_after(3)[0])


def test_what_durable_steps_hold_stays_in_proportion(tmp_path: Path) -> None:
    """To the rows that learn, by a whole save now and then; else a step saves what changed."""
    held, saves = [], []
    with memory(tmp_path, 2) as coordinator:
        for step in range(12):
            coordinator.client.push(step, 0, gradients(0, 0))  # the same rows again and again
            coordinator.commit(1, OUTER, 1.0)
            coordinator.make_durable()
            folder = str(tmp_path / "memory")
            files = read_step(folder, coordinator.step).files
            rows = [len(tensor_files.read(storage.join(folder, f))["rows"]) for f in files]
            held.append(sum(rows))
            saves.append(len(files))
        learning = len(gradients(0, 0).rows)
        assert learning <= max(held) <= (WASTE + 1) * learning
        assert min(saves[1:]) == saves[0], "no save was whole"
        coordinator.rollback()
        before = content(coordinator)
    with memory(tmp_path, 1) as coordinator:
        assert_same(content(coordinator), before)


def test_a_new_driver_saves_everything_first(tmp_path: Path) -> None:
    """It does not know how much the files hold."""
    with memory(tmp_path, 2) as coordinator:
        for _ in range(2):
            advance(coordinator, 1)
            coordinator.make_durable()
    with memory(tmp_path, 1) as coordinator:
        advance(coordinator, 1)
        coordinator.make_durable()
        assert len(read_step(str(tmp_path / "memory"), 3).files) == 1
        coordinator.rollback()
        assert_same(content(coordinator), expected_after(3)[0])


def test_the_clipping_state_is_durable(tmp_path: Path) -> None:
    with memory(tmp_path, 1) as coordinator:
        norms = advance(coordinator, 3)
        coordinator.make_durable()
    clipping = Clipping()
    for norm in norms:
        clipping = clipping.step(norm, OUTER)[1]
    assert read_step(str(tmp_path / "memory"), 3).norms == clipping.norms


def test_a_shard_that_is_not_finite_is_left_out_counted_and_remembered(tmp_path: Path) -> None:
    with memory(tmp_path, 2) as coordinator:
        before = content(coordinator)
        for shard in range(SHARDS):
            coordinator.client.push(0, shard, None)
        assert coordinator.commit(SHARDS, OUTER, 1.0, dropped=SHARDS) == 0
        assert coordinator.step == 1
        assert_same(content(coordinator), before)

        for shard in range(SHARDS):
            coordinator.client.push(1, shard, gradients(1, shard) if shard else None)
        norm = coordinator.commit(SHARDS, OUTER, 1.0, dropped=1)
        summed = sum_shards({s: gradients(1, s) if s else None for s in range(SHARDS)})
        assert summed is not None
        assert norm == pytest.approx(float(squared_norms(summed, UNIT).sum()) ** 0.5)
        coordinator.make_durable()
        coordinator.dropped = 0
        coordinator.rollback()
        assert coordinator.dropped == SHARDS + 1
