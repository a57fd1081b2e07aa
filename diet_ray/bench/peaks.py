"""Peak resident memory: of this process, of a child made for one call, of Ray's workers.

Linux tells a process's peak (`VmHWM`) and sets it back to what is resident now on request
(`clear_refs`, 5). Shared pages, Ray's object store among them, count in every process that has
touched them.
"""

from __future__ import annotations

import gc
import logging
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import ray

from diet_ray import progress, runtime
from diet_ray.bench.measure import KIBIBYTE

SET_PEAK_BACK = "5"
SAMPLED_EVERY_SECONDS = 0.5

Result = TypeVar("Result")


def peak_bytes(process: int | str = "self") -> int:
    """The most that a process has held since it started, or since `forget_peak`."""
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * KIBIBYTE
    return 0  # of a process that has ended and is not waited for yet


def forget_peak(process: int | str = "self") -> None:
    """The peak is what is held now."""
    Path(f"/proc/{process}/clear_refs").write_text(SET_PEAK_BACK)


def rise(action: Callable[[], Result]) -> tuple[Result, int]:
    """What a call returns, and the bytes by which this process rose meanwhile above its level."""
    gc.collect()
    forget_peak()
    before = peak_bytes()
    result = action()
    return result, peak_bytes() - before


def in_child(function: Callable[..., Result], *arguments: Any) -> Result:
    """The call's result from a fresh process of its own, which tells its progress as this one does;
    its errors are raised here."""
    fresh = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, fresh, progress.start_logging) as pool:
        return pool.submit(function, *arguments).result()


@contextmanager
def own_ray() -> Iterator[None]:
    """A Ray of this process's own, whose workers `watched` sees; for a fresh child."""
    runtime.keep_idle_workers()
    ray.init(
        address="local",
        include_dashboard=False,
        logging_level=logging.WARNING,
        log_to_driver=False,
    )
    try:
        yield
    finally:
        ray.shutdown()


@dataclass
class Peaks:
    """Peaks while something was watched, in bytes."""

    driver: int = 0
    workers: dict[int, int] = field(default_factory=dict)  # by process number

    @property
    def largest_worker(self) -> int:
        return max(self.workers.values(), default=0)


@contextmanager
def watched() -> Iterator[Peaks]:
    """Watches this process, and the workers of the Ray that it has started, inside the block.

    A worker's peak is read every half second, so what it takes just before it ends is missed.
    """
    peaks, done = Peaks(), threading.Event()
    forget_peak()
    for worker in _workers():
        with suppress(OSError):
            forget_peak(worker)

    def sample() -> None:
        while not done.wait(SAMPLED_EVERY_SECONDS):
            _note(peaks)

    sampler = threading.Thread(target=sample, daemon=True)
    sampler.start()
    try:
        yield peaks
    finally:
        done.set()
        sampler.join()
        _note(peaks)
        peaks.driver = peak_bytes()


def _note(peaks: Peaks) -> None:
    for worker in _workers():
        with suppress(OSError):  # it has ended
            peaks.workers[worker] = max(peaks.workers.get(worker, 0), peak_bytes(worker))


def _workers() -> list[int]:
    """Ray's workers below this process: they call themselves ``ray::<what they do>``."""
    parents: dict[int, int] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with suppress(OSError):
                after_name = (folder / "stat").read_text().rpartition(")")[2].split()
                parents[int(folder.name)] = int(after_name[1])
    found = []
    for process in parents:
        with suppress(OSError):
            title = Path(f"/proc/{process}/cmdline").read_bytes()
            if title.startswith(b"ray::") and _is_below(process, os.getpid(), parents):
                found.append(process)
    return found


def _is_below(process: int, ancestor: int, parents: dict[int, int]) -> bool:
    while process in parents and process != ancestor:
        process = parents[process]
    return process == ancestor
