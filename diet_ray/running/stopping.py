"""How a job ends when it is told to: SIGTERM (a stopped pod, `ray job stop`) or Ctrl-C.

Protocol: a job works within `stoppable`. A signal is told at once, in words, and interrupts the
main thread, which then leaves its work as for Ctrl-C: a lease is given back, Ray is left. The
process ends with 128 + the signal's number, as shells have it; if it hangs, after GRACE_SECONDS
all the same. `listen` again once Ray is there: its C++ core has put a handler in the place of
ours that prints stacks.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from diet_ray import log_lines

SIGNALS = (signal.SIGINT, signal.SIGTERM)
GRACE_SECONDS = 10.0
"""From the signal to the end; Kubernetes gives a pod 30 before it kills it."""


def listen() -> None:
    """Let the signals interrupt the main thread, except those that the job was started to ignore
    (as a shell does with Ctrl-C for what runs in its background)."""
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _interrupt)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)  # what is being left is left once
    raise KeyboardInterrupt


@contextmanager
def stoppable() -> Iterator[None]:
    """Signals in the block end the process as the module says; for the main thread.

    A signal is read where the interpreter's C code notes it: other handlers that Ray's libraries
    put in the place of ours do not hide it.
    """
    before = {number: signal.getsignal(number) for number in SIGNALS}
    noted, note = os.pipe()
    os.set_blocking(note, False)
    other = signal.set_wakeup_fd(note, warn_on_full_buffer=False)
    watch = _Watch(noted)
    watch.start()
    listen()
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(other)
        os.close(note)
        watch.end()
        if watch.received is not None:
            sys.exit(_status(watch.received))


class _Watch(threading.Thread):
    """Tells of the first of the signals, and ends the process if it does not end."""

    def __init__(self, noted: int) -> None:
        super().__init__(name="signals", daemon=True)
        self._noted, self._ended = noted, threading.Event()
        self.received: signal.Signals | None = None

    def run(self) -> None:
        with os.fdopen(self._noted, "rb", buffering=0) as noted:
            while number := noted.read(1):
                if number[0] in SIGNALS:
                    self.received = signal.Signals(number[0])
                    break
        if self.received is None:
            return
        log_lines.say(
            f"stopping ({self.received.name}): started again, the run goes on from its last state",
            logging.WARNING,
        )
        if not self._ended.wait(GRACE_SECONDS):
            os._exit(_status(self.received))

    def end(self) -> None:
        """The block is left; what was noted before has been read when this returns."""
        self._ended.set()
        self.join()


def _status(received: signal.Signals) -> int:
    return 128 + received
