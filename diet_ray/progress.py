"""Progress that fits where it is shown: a bar in a terminal, a line now and then elsewhere.

Protocol: a phase says what it does and on how much (`phase(...)`), counts what is done
(`advance`), and is timed. At the end of a run :func:`summary` lists what took how long.
"""

from __future__ import annotations

import logging
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

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
def phase(title: str, total: int = 0, unit: str = "rows") -> Iterator[Phase]:
    """Announce, count and time one phase of a run."""
    logger.info("%s%s", title, f": {total:,} {unit}" if total else "")
    current = Phase(title, total, unit)
    try:
        yield current
    except BaseException:
        current.close()
        raise
    seconds = current.close()
    _finished.append((title, seconds))
    logger.info("%s: done in %s", title, duration(seconds))


def summary() -> list[tuple[str, float]]:
    """Title and seconds of every phase that ended since the last call."""
    ended, _finished[:] = list(_finished), []
    return ended
