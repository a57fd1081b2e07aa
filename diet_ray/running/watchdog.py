"""Ends a job that hangs, and says where.

Protocol: a job works within `watched`. A thread looks at `progress.pulse()` now and then; where it
stays the same for `resources.stall_minutes`, stacks of all threads, what Ray has not finished, and
resources go to standard error, and the process ends with STALLED at once: what hangs would not be
left. Its state is in storage, as after a kill. Time in which this process itself was stopped does
not count.
"""

from __future__ import annotations

import faulthandler
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import ray
from ray.util.state import list_actors, list_tasks

from diet_ray import progress
from diet_ray.config import ResourcesConfig

STALLED = 75
"""Exit status; sysexits.h calls it a failure that may be gone when tried again."""
LOOKS = 20
"""At the pulse, within the time after which a run counts as hanging."""
LONGEST_SECONDS_BETWEEN_LOOKS = 30.0
RAY_ANSWERS_SECONDS = 20
"""After which what Ray has to say is left out."""
SHOWN = 20
"""Actors and tasks, of each."""


@contextmanager
def watched(resources: ResourcesConfig) -> Iterator[None]:
    """The block's process ends if it hangs, as the module says."""
    ended = threading.Event()
    watch = threading.Thread(target=_watch, args=(resources, ended), name="watchdog", daemon=True)
    watch.start()
    try:
        yield
    finally:
        ended.set()


def _watch(resources: ResourcesConfig, ended: threading.Event) -> None:
    seconds = 60 * resources.stall_minutes
    between = min(seconds / LOOKS, LONGEST_SECONDS_BETWEEN_LOOKS)
    last: tuple[object, ...] | None = None
    quiet = 0.0
    while not ended.wait(between):
        now = last
        with suppress(OSError):  # the storage that is looked at does not answer
            now = progress.pulse()
        quiet = quiet + between if now is not None and now == last else 0.0
        last = now
        if quiet >= seconds:
            _tell(resources)
            os._exit(STALLED)


def _tell(resources: ResourcesConfig) -> None:
    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    say(
        f"stalled: nothing was done for {progress.duration(60 * resources.stall_minutes)} "
        "(resources.stall_minutes). The stacks, the unfinished work and the resources follow; "
        "started again, the run goes on from its last state"
    )
    faulthandler.dump_traceback(sys.stderr, all_threads=True)
    asking = threading.Thread(target=_tell_of_ray, args=(say,), daemon=True)
    asking.start()
    asking.join(2 * RAY_ANSWERS_SECONDS)
    asked = resources.model_dump(exclude_defaults=True)
    say(f"resources of the configuration, beside the defaults: {asked}")


def _tell_of_ray(say: Callable[[str], None]) -> None:
    """What the cluster answers; it may be what hangs."""
    if not ray.is_initialized():
        say("Ray: not connected")
        return
    try:
        say(f"resources of the cluster: {ray.cluster_resources()}")
        say(f"free of them: {ray.available_resources()}")
        for kind, ask in (("actor", list_actors), ("task", list_tasks)):
            done = ("state", "!=", "DEAD" if kind == "actor" else "FINISHED")
            for found in ask(filters=[done], limit=SHOWN, timeout=RAY_ANSWERS_SECONDS):
                say(f"{kind}: {found}")
    except Exception as error:  # whatever it is, the stacks are said and the job ends
        say(f"Ray tells no more (actors and tasks need its dashboard): {error}")
