"""Progress that fits where it is shown: a bar in a terminal, a line now and then elsewhere.

Protocol: a phase says what it does and on how much (`phase(...)`), counts what is done
(`advance`), and is timed. At the end of a run :func:`summary` lists what took how long. All of
it, and :func:`beat`, is the pulse by which `watchdog.py` knows that the run lives.
"""

from __future__ import annotations

import logging
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import ClassVar

from tqdm import tqdm

from diet_ray import log_lines, telemetry

logger = logging.getLogger("diet_ray")

LINE_EVERY_SECONDS = 10.0
NUMBER = re.compile(r"(?<![a-z])\d+([,.-]\d+)*")
"""In titles; in their place a metric's label has #, so that there are few labels, not one for every
block and stage."""


def start_logging() -> None:
    """Lines of this package on standard output, with the time, in the form that `log_lines` says;
    called once by a job."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(log_lines.formatter())
    logger.handlers[:] = [handler]
    logger.setLevel(logging.INFO)
    logger.propagate = False
    doubt = log_lines.doubt()
    if doubt:
        logger.warning(doubt)


def duration(seconds: float) -> str:
    """Seconds as a person says them: `8.1 s`, `3 min 20 s`, `2 h 05 min`."""
    if round(seconds, 1) < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def byte_size(count: float) -> str:
    """Bytes as a person says them, in powers of 1000."""
    for unit in ("B", "kB", "MB", "GB"):
        if round(count, 1) < 1000:
            return f"{count:.1f} {unit}" if unit != "B" else f"{count:.0f} B"
        count /= 1000
    return f"{count:.1f} TB"


class _Pulse:
    """Signs of life of this process's run."""

    beats = 0
    long_phases = 0  # under way
    looks: ClassVar[list[Callable[[], object]]] = []  # at what other processes commit


def beat() -> None:
    """Something was done, be it too small to be counted."""
    _Pulse.beats += 1


@contextmanager
def others_commit(look: Callable[[], object]) -> Iterator[None]:
    """In the block others do the work; another answer of `look` is their sign of life."""
    _Pulse.looks.append(look)
    try:
        yield
    finally:
        _Pulse.looks.remove(look)
        beat()


def pulse() -> tuple[object, ...] | None:
    """Another one than before if something was done since; None while a phase is under way in which
    nothing can be seen for any time. Raises what a look at other processes raises."""
    if _Pulse.long_phases:
        return None
    return _Pulse.beats, *(look() for look in _Pulse.looks)


class Phase:
    """One phase under way; made by :func:`phase`."""

    def __init__(self, title: str, total: int, unit: str) -> None:
        self.title, self.total, self.unit = title, total, unit
        self._label = NUMBER.sub("#", title)
        self.done, self.skipped = 0, 0
        self.started = self._last_line = time.monotonic()
        self._pace: tuple[float, int] | None = None  # when and at what count the first unit ended
        shown = logger.isEnabledFor(logging.INFO) and total > 0
        terminal = shown and sys.stdout.isatty() and not log_lines.as_json()
        self._bar = tqdm(total=total, desc=title, unit=unit, file=sys.stdout) if terminal else None

    def skip(self, count: int) -> None:
        """`count` units were found done already (a resumed run)."""
        self.skipped += count
        self._count(count)

    def advance(self, count: int = 1) -> None:
        """`count` more units are done."""
        self._count(count)
        if self._pace is None:
            self._pace = time.monotonic(), self.done
        if self._bar is None and time.monotonic() - self._last_line >= LINE_EVERY_SECONDS:
            self._last_line = time.monotonic()
            logger.info("%s: %s", self.title, self._state())

    def _count(self, count: int) -> None:
        self.done += count
        beat()
        if self.total:
            telemetry.PHASE_DONE.set(self.done / self.total, phase=self._label)
            telemetry.PHASE_RATE.set(self._rate(), phase=self._label)
        if self._bar is not None:
            self._bar.update(count)

    def _state(self) -> str:
        shown = f"{self.done:,} of {self.total:,} {self.unit}"
        rate = self._rate()
        if not rate:
            return shown
        return f"{shown}, about {duration((self.total - self.done) / rate)} left"

    def _rate(self) -> float:
        """Units per second; 0 while it is not known.

        What came before the first unit, such as starting actors, will not come again.
        """
        if self._pace is None or self.done <= self._pace[1]:
            return 0.0
        elapsed = time.monotonic() - self._pace[0]
        return (self.done - self._pace[1]) / elapsed if elapsed else 0.0

    def close(self) -> float:
        """End the phase; returns its seconds."""
        for gauge in (telemetry.PHASE_DONE, telemetry.PHASE_RATE):
            gauge.forget(phase=self._label)
        if self._bar is not None:
            self._bar.close()
        return time.monotonic() - self.started


_finished: list[tuple[str, float]] = []


@contextmanager
def phase(title: str, total: int = 0, unit: str = "rows", *, long: bool = False) -> Iterator[Phase]:
    """Announce, count and time one phase of a run.

    long: a single unit, such as a training on the whole log, may take any time.
    """
    logger.info("%s%s", title, f": {total:,} {unit}" if total else "")
    current = Phase(title, total, unit)
    beat()
    _Pulse.long_phases += long
    try:
        yield current
    except BaseException:
        current.close()
        raise
    finally:
        _Pulse.long_phases -= long
        beat()
    seconds = current.close()
    _finished.append((title, seconds))
    logger.info("%s: done in %s", title, duration(seconds))


def summary() -> list[tuple[str, float]]:
    """Title and seconds of every phase that ended since the last call."""
    ended, _finished[:] = list(_finished), []
    return ended
