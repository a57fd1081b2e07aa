"""The pool: the same results from any number of workers, and from workers that are killed."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
from hypothesis import given
from hypothesis import strategies as st

from diet_ray import telemetry
from diet_ray.config import RunConfig
from diet_ray.distill import workers as module
from diet_ray.distill.proxy import inner_start
from diet_ray.distill.sources import BlockRows
from diet_ray.distill.worker import MetaWorker
from diet_ray.distill.workers import MetaWorkers, Task, WorkersLostError
from diet_ray.logs.blocks import BlocksError, read_block
from diet_ray.running import patience
from tests.cluster.ray_processes import wait_until
from tests.distill.prepared import Prepared, run_config
from tests.recorded import Recorded

Work = Callable[[], Any]


@pytest.fixture(scope="module")
def workers(prepared: Prepared, request: pytest.FixtureRequest) -> Iterator[MetaWorkers]:
    """A pool; pytest runs all tests of one size before it starts the next."""
    pool = MetaWorkers(run_config(prepared.folder, resources={"meta_workers": request.param}))
    yield pool
    pool.close()


one_worker = pytest.mark.parametrize("workers", [1], indirect=True)
every_pool = pytest.mark.parametrize("workers", [1, 3], indirect=True)


def task(work: Work) -> Task:
    """A task that does `work` in the worker's process."""
    return lambda worker: worker.__ray_call__.remote(lambda _: work())


def pid_after(seconds: float) -> int:
    time.sleep(seconds)
    return os.getpid()


def killed(times: int, notes: Path, result: Any) -> Any:
    """Kills its process the first `times` times that it is run."""
    with (notes / str(result)).open("a") as note:
        note.write(f"{os.getpid()}\n")
    if len((notes / str(result)).read_text().split()) <= times:
        os.kill(os.getpid(), signal.SIGKILL)
    return result


def refused(notes: Path) -> None:
    with (notes / "refused").open("a") as note:
        note.write("run\n")
    raise KeyError("the task's own")


@given(st.integers(1, 50), st.integers(1, 9))
def test_ranges_cover_every_row_once(rows: int, batch_rows: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "BATCH_ROWS", batch_rows)
        patch.setattr(module, "MOST_RANGES", 5)
        ranges = module._ranges(rows)
    assert [row for low, high in ranges for row in range(low, high)] == list(range(rows))
    assert len(ranges) <= 5
    assert all(low % batch_rows == 0 for low, _ in ranges)
    if rows <= 5 * batch_rows:
        assert max(high - low for low, high in ranges) <= batch_rows


def test_no_row_is_an_error() -> None:
    with pytest.raises(BlocksError, match="no rows"):
        module._ranges(0)


def test_workers_that_the_cluster_has_no_room_for_are_told_of(
    prepared: Prepared, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The others do the work; with none of them the pool gives up.

    Before the tests of the shared pool, whose workers have the same names.
    """
    monkeypatch.setattr(patience, "SECONDS_BETWEEN_REMARKS", 0.5)
    room = ray.cluster_resources()["CPU"]
    wanted = "1 of 2 meta-workers have not started; each needs"
    pool = MetaWorkers(
        run_config(prepared.folder, resources={"meta_workers": 2, "meta_worker_cpus": 0.6 * room})
    )
    try:
        assert pool.run([task(partial(time.sleep, 1.5)), task(lambda: "done")]) == [None, "done"]
        assert wanted in caplog.text
    finally:
        pool.close()
    monkeypatch.setattr(patience, "PATIENCE_SECONDS", 2.0)
    too_large = {"meta_workers": 1, "meta_worker_cpus": room + 1}
    pool = MetaWorkers(run_config(prepared.folder, resources=too_large))
    try:
        with pytest.raises(WorkersLostError, match="1 of 1 meta-workers have not started; each"):
            pool.run([task(lambda: "never")])
    finally:
        pool.close()


def test_the_pool_has_the_size_that_there_is_room_for(prepared: Prepared) -> None:
    """Beside a server and a scoring worker; it grows and shrinks with what the cluster can give."""
    room = ray.cluster_resources()["CPU"]
    needs = {"meta_worker_cpus": 0.3 * room, "memory_server_cpus": 0.05 * room}
    beside = {"scoring_workers": [1, 4], "scoring_cpus": 0.05 * room}

    def config(most: int, limit: float) -> RunConfig:
        asked = {"meta_workers": [1, most], "cluster_limit": {"CPU": limit * room}}
        return run_config(prepared.folder, resources={**needs, **beside, **asked})

    pool = MetaWorkers(config(9, 1.0))
    try:
        three = [task(partial(pid_after, 0.1))] * 3
        wait_until(lambda: len({*pool.run(three)}) == 3, "three workers")
        pool._config = config(9, 2.0)
        here = {*pool.run(three)}
        assert len(here) == 3
        assert len(pool._workers) == 6  # three of them for nodes that may come
        pool._config = config(9, 1.0)
        assert {*pool.run(three)} == here
        assert len(pool._workers) == 3
        pool._config = config(2, 1.0)
        assert {*pool.run(three)} < here
        assert len(pool._workers) == 2
    finally:
        pool.close()


@pytest.mark.parametrize("asked", [[1, 99], 2])
def test_workers_that_wait_for_nodes_leave_room_for_a_scan(
    prepared: Prepared, asked: int | list[int]
) -> None:
    """Those that a cluster would hold if it grew take every CPU of the nodes that are there."""
    room = ray.cluster_resources()["CPU"]
    resources = {
        "meta_workers": asked,
        "meta_worker_cpus": room / 2,
        "scoring_cpus": room / 4,
        "cluster_limit": {"CPU": 20 * room},
    }
    other = ray.remote(num_cpus=room / 4)(pid_after)
    pool = MetaWorkers(run_config(prepared.folder, resources=resources))
    try:
        two = [task(partial(pid_after, 0.1))] * 2
        wait_until(lambda: len({*pool.run(two)}) == 2, "workers on all CPUs")
        waiting = other.remote(0.0)
        assert not ray.wait([waiting], timeout=1)[0]
        pool.make_room()
        assert len(pool._workers) == 1
        assert ray.wait([waiting], timeout=30)[0]
        wait_until(lambda: len({*pool.run(two)}) == 2, "workers on all CPUs again")
    finally:
        pool.close()


def test_workers_leave_a_node_between_tasks(
    prepared: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = MetaWorkers(run_config(prepared.folder, resources={"meta_workers": 2}))
    try:
        before = {*pool.run([task(partial(pid_after, 0.2))] * 2)}
        monkeypatch.setattr(module, "on_leaving_nodes", list)
        moved = {*pool.run([task(partial(pid_after, 0.2))] * 2)}
        assert moved
        assert not moved & before
        assert len(pool._workers) == 2
    finally:
        pool.close()


@every_pool
def test_sums_do_not_depend_on_the_number_of_workers(
    prepared: Prepared, workers: MetaWorkers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BATCH_ROWS", 70)
    config, block = run_config(prepared.folder), prepared.blocks.historical[1]
    rows = read_block(prepared.blocks, block).row_ids
    theta, source = inner_start(config, 2, 0), BlockRows(prepared.blocks, block, rows)
    direction = np.random.default_rng(0).normal(size=theta.shape).astype(np.float32)
    summed = workers.summed_gradient(2, source, len(rows), theta)
    aligned = workers.alignments(2, source, len(rows), theta, direction)

    direct = MetaWorker(config)
    ranges = [(low, min(low + 70, len(rows))) for low in range(0, len(rows), 70)]
    expected = np.zeros(len(theta))
    for part in ranges:
        expected += direct.summed_gradient(2, source, theta, *part)
    assert summed.tobytes() == expected.astype(np.float32).tobytes()
    parts = [direct.alignments(2, source, theta, direction, *part) for part in ranges]
    assert aligned.tobytes() == np.concatenate(parts).tobytes()


@every_pool
def test_results_are_in_the_order_of_tasks_though_a_worker_is_killed(
    workers: MetaWorkers, tmp_path: Path, recorded: Recorded
) -> None:
    def slow(number: int) -> int:
        time.sleep(0.02 * (number % 3))
        return number

    works: list[Work] = [partial(slow, number) for number in range(9)]
    works[4] = partial(killed, 1, tmp_path, 4)
    assert workers.run([task(work) for work in works]) == list(range(9))
    first, second = (tmp_path / "4").read_text().split()
    assert first != second, "the killed task ran again, in another process"
    ((count, tags),) = recorded.given[telemetry.RETRIES.name]
    assert (count, tags["what"]) == (1, "meta-worker task")
    assert workers.run([task(partial(slow, n)) for n in range(4)]) == list(range(4))


@every_pool
def test_an_error_of_the_task_is_raised_and_not_repeated(
    workers: MetaWorkers, tmp_path: Path
) -> None:
    with pytest.raises(KeyError, match="the task's own"):
        workers.run([task(partial(refused, tmp_path))])
    assert (tmp_path / "refused").read_text() == "run\n"
    assert workers.run([task(lambda: "still here")]) == ["still here"]


@every_pool
def test_results_that_wait_for_their_turn_are_few(
    workers: MetaWorkers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No task starts before the one whose result is due is less than one a worker behind."""
    monkeypatch.setattr(module, "AHEAD_PER_WORKER", 1)

    def noted(number: int) -> int:
        (tmp_path / str(number)).touch()
        time.sleep(0.3 if number == 0 else 0)
        return number

    tasks = [task(partial(noted, number)) for number in range(8)]
    found = []
    for result in workers._results(tasks, bounded=True):
        found.append(result)
        assert len(list(tmp_path.iterdir())) <= result + 1 + len(workers._workers)
    assert found == list(range(8))


@one_worker
def test_an_actor_lost_by_the_task_is_the_tasks_own_error(workers: MetaWorkers) -> None:
    @ray.remote(num_cpus=0)
    class Mortal:
        def answer(self) -> int:
            os.kill(os.getpid(), signal.SIGKILL)
            return 1

    mortal = Mortal.remote()
    pid = workers.run([task(os.getpid)])
    with pytest.raises(ray.exceptions.RayActorError):
        workers.run([task(lambda: ray.get(mortal.answer.remote()))])
    assert workers.run([task(os.getpid)]) == pid, "the worker itself did not die"


@one_worker
def test_a_task_that_kills_every_worker_is_given_up(
    workers: MetaWorkers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOSSES_PER_TASK", 1)
    with pytest.raises(WorkersLostError, match="worker died 2 times"):
        workers.run([task(partial(killed, 99, tmp_path, "never"))])
