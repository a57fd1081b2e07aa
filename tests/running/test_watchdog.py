"""Jobs that hang: they say where and end; what works, in whatever way, is left alone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import ray

from diet_ray import progress
from diet_ray.config import ResourcesConfig
from diet_ray.running import watchdog

ROOT = Path(__file__).parents[2]

JOB = """
import sys
import time
from diet_ray import progress
from diet_ray.running import watchdog
from diet_ray.config import ResourcesConfig

STALL_SECONDS, WORK = 1.0, sys.argv[1]

def rests():
    for _ in range(20):
        time.sleep(STALL_SECONDS / 10)
        if WORK == "beats":
            progress.beat()

def hangs():
    time.sleep(1_000)

with watchdog.watched(ResourcesConfig(stall_minutes=STALL_SECONDS / 60)):
    if WORK == "long phase":
        with progress.phase("a training", 2, "models", long=True):
            rests()
    elif WORK == "others commit":
        with progress.others_commit(time.monotonic):
            rests()
    else:
        rests()
    print("worked", flush=True)
    hangs()
"""


@pytest.mark.parametrize("work", ["beats", "long phase", "others commit"])
def test_a_job_that_hangs_says_where_and_ends(work: str) -> None:
    """After it worked for twice as long as a stall may last."""
    done = subprocess.run(
        [sys.executable, "-c", JOB, work],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == watchdog.STALLED
    assert done.stdout == "worked\n", "and no false alarm before"
    assert "stalled: nothing was done for 1.0 s (resources.stall_minutes)" in done.stderr
    assert "in hangs\n" in done.stderr
    assert "Ray: not connected" in done.stderr
    assert "resources of the configuration, beside the defaults: {'stall_minutes'" in done.stderr


def test_what_ray_knows_is_said(ray_session: None) -> None:
    said: list[str] = []
    watchdog._tell_of_ray(said.append)
    cpus = ray.cluster_resources()["CPU"]
    assert said[0].startswith("resources of the cluster: ")
    assert f"'CPU': {cpus}" in said[0]
    assert said[1].startswith("free of them: ")
    assert said[2].startswith("Ray tells no more (actors and tasks need its dashboard)")


def test_every_step_is_a_sign_of_life() -> None:
    committed = [0]
    seen = [progress.pulse()]
    with progress.phase("reading", 2) as phase:
        seen.append(progress.pulse())
        phase.advance()
        seen.append(progress.pulse())
        with progress.others_commit(lambda: committed[0]):
            seen.append(progress.pulse())
            assert progress.pulse() == seen[-1], "nothing was done"
            committed[0] += 1
            seen.append(progress.pulse())
    seen.append(progress.pulse())
    assert None not in seen
    assert len(set(seen)) == len(seen)


def test_states_of_workers_come_before_a_stall() -> None:
    minutes = {"stall_minutes": 5, "reference_checkpoint_minutes": 5}
    with pytest.raises(ValueError, match="stall_minutes 5 is not above reference_checkpoint_min"):
        ResourcesConfig(reference_workers=2, **minutes)
    assert ResourcesConfig(**minutes).stall_minutes == 5
