"""Nodes join and leave while a run goes on: its bytes stay those of a run in peace."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from diet_ray.config import RunConfig
from tests.chaos.disturbed import Job, bytes_of, chaos_config, running, undisturbed
from tests.chaos.nodes import Nodes
from tests.chaos.plan import PHASES, Position
from tests.cluster.ray_processes import wait_until

REFERENCE, META_GRADIENTS = PHASES.index("reference"), PHASES.index("meta-gradients")

SMALL = {  # one node of one CPU holds a server, two meta-workers and two scoring workers
    "memory_servers": 1,
    "memory_server_cpus": 0.1,
    "meta_workers": [1, 4],
    "meta_worker_cpus": 0.4,
    "scoring_workers": [1, 4],
    "scoring_cpus": 0.05,
}
MANY_STEPS: dict[str, Any] = {"distill": {"outer_steps": 300}}
MANY_SMALL_STEPS: dict[str, Any] = {"rows": 20_000, "batch_size": 1}  # of the reference


Wait = Callable[..., None]
"""(ready, what, seconds): asserts that `what` came while the job was in its phase."""


@contextmanager
def in_phase(nodes: Nodes, config: RunConfig, position: Position) -> Iterator[tuple[Job, Wait]]:
    """A job that has come so far; after the block it goes on to its end."""
    phase = PHASES[position[1]]

    def wait(ready: Callable[[], bool], what: str, seconds: float = 120) -> None:
        wait_until(lambda: ready() or job.process.poll() is not None, what, seconds)
        assert job.process.poll() is None, "\n".join(job.said[-20:])
        assert job.phase == phase, f"{what}: not before {job.phase}"

    with running(nodes, config) as job:
        assert job.wait(position) is None
        yield job, wait
        assert job.wait(None) == 0, "\n".join(job.said[-20:])


def processes(nodes: Nodes, kind: str, count: int) -> Callable[[], bool]:
    """Whether there are so many."""
    return lambda: len(nodes.processes(kind)) == count


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_stage_goes_on_with_more_nodes_and_with_fewer(tmp_path: Path) -> None:
    config = chaos_config(tmp_path / "run", 0, **MANY_STEPS, resources=SMALL)
    with Nodes(count=1) as nodes:
        with in_phase(nodes, config, (1, META_GRADIENTS)) as (job, wait):
            wait(processes(nodes, "meta-worker", 2), "meta-workers of one node")
            nodes.join()
            wait(processes(nodes, "meta-worker", 4), "meta-workers of two nodes")
            nodes.leave(graceful=True)
            wait(processes(nodes, "meta-worker", 2), "those of one again")
            nodes.join()
            assert job.wait((2, META_GRADIENTS)) is None
            wait(processes(nodes, "meta-worker", 4), "those of another second node")
            nodes.leave(graceful=False)
        nodes.join()
        expected = undisturbed(nodes, chaos_config(tmp_path / "peace", 0, **MANY_STEPS))
    assert bytes_of(tmp_path / "run") == expected


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_reference_takes_what_workers_there_is_room_for(tmp_path: Path) -> None:
    grows = {"cluster_limit": {"CPU": 3}}
    config = chaos_config(tmp_path / "run", (1, 2), **MANY_SMALL_STEPS, resources=grows)
    with Nodes(count=1) as nodes:
        with in_phase(nodes, config, (0, REFERENCE)) as (_, wait):
            wait(processes(nodes, "reference worker", 1), "a worker")
            nodes.join()
            wait(processes(nodes, "reference worker", 2), "two workers")
            nodes.leave(graceful=False)
            wait(processes(nodes, "reference worker", 1), "one worker again")
            nodes.join()
            nodes.join()
        expected = undisturbed(nodes, chaos_config(tmp_path / "peace", 0, **MANY_SMALL_STEPS))
    assert bytes_of(tmp_path / "run") == expected


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_stage_leaves_a_node_before_it_is_gone(tmp_path: Path) -> None:
    """The node ends by itself, before it would be ended, and nothing is lost with it."""
    config = chaos_config(tmp_path / "run", 0, **MANY_STEPS, resources=SMALL)
    with Nodes(count=2) as nodes:
        with in_phase(nodes, config, (1, META_GRADIENTS)) as (job, wait):
            wait(processes(nodes, "meta-worker", 4), "meta-workers of two nodes")
            node = nodes.drain("server", seconds=110)
            wait(node.is_gone, "an empty node", 60)
            wait(processes(nodes, "meta-worker", 2), "meta-workers of the other node")
        told = "\n".join(job.said)
        assert "1 of 1 memory servers leave nodes that will be gone soon" in told
        assert "a memory server was lost" not in told
        nodes.join()
        expected = undisturbed(nodes, chaos_config(tmp_path / "peace", 0, **MANY_STEPS))
    assert bytes_of(tmp_path / "run") == expected


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_reference_keeps_its_state_before_a_node_is_gone(tmp_path: Path) -> None:
    seldom = {"reference_checkpoint_minutes": 10, "stall_minutes": 20}
    config = chaos_config(tmp_path / "run", (1, 2), **MANY_SMALL_STEPS, resources=seldom)
    with Nodes(count=3) as nodes:
        with in_phase(nodes, config, (0, REFERENCE)) as (_, wait):
            wait(processes(nodes, "reference worker", 2), "two workers")
            kept = "run/reference/t=*/partway.safetensors"
            assert not [*tmp_path.glob(kept)]
            node = nodes.drain("reference worker", seconds=20)
            wait(lambda: bool([*tmp_path.glob(kept)]), "its state")
            node.end()
        nodes.join()
        expected = undisturbed(nodes, chaos_config(tmp_path / "peace", 0, **MANY_SMALL_STEPS))
    assert bytes_of(tmp_path / "run") == expected
