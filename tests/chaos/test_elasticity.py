"""Nodes join and leave while a run goes on: its bytes stay those of a run in peace."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.chaos.disturbed import Job, bytes_of, chaos_config, undisturbed
from tests.chaos.nodes import Nodes
from tests.chaos.plan import PHASES
from tests.cluster.ray_processes import wait_until

REFERENCE, META_GRADIENTS = PHASES.index("reference"), PHASES.index("meta-gradients")

SMALL = {  # one node of one CPU holds a server, two meta-workers and two scoring actors
    "memory_servers": 1,
    "memory_server_cpus": 0.1,
    "meta_workers": 4,
    "meta_worker_cpus": 0.4,
    "scoring_actors": [1, 4],
    "scoring_cpus": 0.05,
    "cluster_limit": {"CPU": 3},
}


def during(job: Job, phase: str) -> Callable[[Callable[[], bool], str], None]:
    """Waits, and asserts that what was waited for came while the job was in the phase."""

    def wait(ready: Callable[[], bool], what: str) -> None:
        wait_until(lambda: ready() or job.process.poll() is not None, what)
        assert job.process.poll() is None, "\n".join(job.said[-20:])
        assert job.phase == phase, f"{what}: not before {job.phase}"

    return wait


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_stage_goes_on_with_more_nodes_and_with_fewer(tmp_path: Path) -> None:
    steps = {"outer_steps": 300}
    with Nodes(count=1) as nodes:
        config = chaos_config(tmp_path / "run", 0, **steps, resources=SMALL)
        job = Job(nodes, config)
        try:
            assert job.wait((1, META_GRADIENTS)) is None
            wait = during(job, "meta-gradients")
            wait(lambda: len(nodes.processes("meta-worker")) == 2, "meta-workers of one node")
            nodes.join()
            wait(lambda: len(nodes.processes("meta-worker")) == 4, "meta-workers of two nodes")
            nodes.leave(graceful=True)
            wait(lambda: len(nodes.processes("meta-worker")) == 2, "those of one again")
            nodes.join()
            assert job.wait((2, META_GRADIENTS)) is None
            wait(lambda: len(nodes.processes("meta-worker")) == 4, "those of another second node")
            nodes.leave(graceful=False)
            assert job.wait(None) == 0, "\n".join(job.said[-20:])
        finally:
            job.end()
        nodes.join()
        expected = undisturbed(nodes, chaos_config(tmp_path / "peace", 0, **steps))
    assert bytes_of(tmp_path / "run") == expected


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_reference_takes_what_workers_there_is_room_for(tmp_path: Path) -> None:
    slow = {"batch_size": 1}  # a thousand steps a block
    with Nodes(count=1) as nodes:
        config = chaos_config(
            tmp_path / "run", (1, 2), **slow, resources={"cluster_limit": {"CPU": 3}}
        )
        job = Job(nodes, config)
        try:
            assert job.wait((0, REFERENCE)) is None
            wait = during(job, "reference")
            wait(lambda: len(nodes.processes("reference worker")) == 1, "a worker")
            nodes.join()
            wait(lambda: len(nodes.processes("reference worker")) == 2, "two workers")
            nodes.leave(graceful=False)
            wait(lambda: len(nodes.processes("reference worker")) == 1, "one worker again")
            nodes.join()
            nodes.join()
            assert job.wait(None) == 0, "\n".join(job.said[-20:])
        finally:
            job.end()
        expected = undisturbed(nodes, chaos_config(tmp_path / "peace", 0, **slow))
    assert bytes_of(tmp_path / "run") == expected
