"""A job that waits until it is told to stop: python stopped_job.py <output> <how>.

It prints "working" when it waits for a task that does not end: in `ray.get` ("get") or in
`ray.wait` ("wait").
"""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path

import ray

from diet_ray import runtime
from diet_ray.config import RunConfig, parse_command_line
from diet_ray.running import stopping

QUICKSTART = str(Path(__file__).parents[2] / "configs/quickstart.yaml")


@ray.remote(num_cpus=0)
def endless() -> None:
    time.sleep(1_000)


def wait(_: RunConfig) -> None:
    call = endless.remote()
    print("working", flush=True)
    if how == "wait":
        ray.wait([call], timeout=1_000)
    else:
        ray.get(call)


if __name__ == "__main__":
    output, how = sys.argv[1:]
    # Ignored where a shell runs the tests in its background, and ignored the job would leave it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    stopping.GRACE_SECONDS = 60  # so that it is seen to leave of itself
    given = ["--config", QUICKSTART, "--set", f"output={output}"]
    runtime.run_job(wait, parse_command_line("", arguments=given))
