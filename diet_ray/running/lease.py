"""Who may write into a folder: one driver at a time.

Protocol: `held` puts a file into the folder (`_lease.json`) that says who holds it, rewrites it
every few seconds with another count of heartbeats, and removes it at the end. Whoever finds one of
a process of this machine that is gone takes it over at once. Any other is watched: its next
heartbeat shows that it lives, and the newcomer is refused; after STALE_SECONDS without one it is
taken over. No two clocks are compared. A holder that was taken over while it stalled finds another
token at its next heartbeat, and its work is interrupted.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from types import FrameType

from diet_ray import progress, storage
from diet_ray.errors import UserError

FILE = "_lease.json"
HEARTBEAT_SECONDS = 5.0
STALE_SECONDS = 60.0
"""Without a heartbeat a lease may be taken over: far longer than a store or a driver stalls."""
LOOK_SECONDS = 1.0
"""Between two looks at somebody else's lease."""
UNKNOWN = "a process whose lease is damaged"
LOSS_SIGNAL = signal.SIGUSR2
"""Interrupts the main thread when the lease was lost; Ctrl-C's own would read as the user's."""


class LeaseError(UserError, RuntimeError):
    """Another driver writes into the folder; the message names it."""


@dataclass(frozen=True)
class Holder:
    """What a lease says of the process that holds it."""

    token: str  # of this holding alone
    host: str
    machine: str | None  # boot and PID namespace, in which `pid` means something
    pid: int
    process_started: str | None  # tells it from a later process with its number
    job: str | None  # the submission's id under `ray job submit`
    since: str  # UTC, to be read by people only
    heartbeat: str
    beats: int = 0

    @classmethod
    def this_process(cls) -> Holder:
        """A new holding."""
        pid, now = os.getpid(), _now()
        return cls(
            token=uuid.uuid4().hex,
            host=socket.gethostname(),
            machine=_machine(),
            pid=pid,
            process_started=_process_started(pid),
            job=_submission(),
            since=now,
            heartbeat=now,
        )

    @classmethod
    def read(cls, content: bytes) -> Holder | None:
        """None if it is damaged, or not written yet."""
        try:
            return cls(**json.loads(content))
        except (ValueError, TypeError):
            return None

    def as_bytes(self) -> bytes:
        """What the file holds."""
        return json.dumps(asdict(self), indent=1).encode()

    def beaten(self) -> Holder:
        """One heartbeat later."""
        return replace(self, heartbeat=_now(), beats=self.beats + 1)

    def is_gone(self) -> bool:
        """Whether the process is known to have ended; one of another machine never is."""
        here = self.machine is not None and self.machine == _machine()
        return here and self.process_started != _process_started(self.pid)

    def __str__(self) -> str:
        job = f" (job {self.job})" if self.job else ""
        return (
            f"process {self.pid} on {self.host}{job}, since {self.since}, last heartbeat "
            f"{self.heartbeat}"
        )


@contextmanager
def held(folder: str) -> Iterator[None]:
    """The folder (any URI) for this driver alone, for the length of the block.

    Raises LeaseError if another driver holds it, StorageError if it cannot be written. A lease
    that is lost meanwhile ends the block with a LeaseError: at the next heartbeat in the main
    thread; elsewhere, where nothing can interrupt, only when the block ends.
    """
    storage.check_writable(folder)
    lease = _Lease(folder)
    lease.take()
    try:
        with lease.beating():
            yield
    except BaseException:
        if lease.lost is None:
            raise
    finally:
        lease.release()
    if lease.lost is not None:
        raise LeaseError(lease.lost)


class _Lease:
    """One holding, from `take` to `release`."""

    def __init__(self, folder: str) -> None:
        self._folder, self._uri = folder, storage.join(folder, FILE)
        self._holder = Holder.this_process()
        self._done = threading.Event()
        self._working_thread: int | None = None  # if it can be interrupted
        self.lost: str | None = None  # to whom, a sentence

    def take(self) -> None:
        """Raises LeaseError if another driver holds it."""
        seen: bytes | None = None
        while not storage.create(self._uri, self._holder.as_bytes()):
            found = self._read()
            if found is None:
                continue  # given back just now
            other = Holder.read(found)
            gone = other is not None and other.is_gone()
            if seen is None:
                seen, since = found, time.monotonic()
                if not gone:
                    self._say("held by %s; looking for its next heartbeat", other)
            elif found != seen:
                raise LeaseError(
                    f"{self._folder}: another driver writes here: {other or UNKNOWN}; wait until "
                    "it ends, stop it, or set another output"
                )
            if gone or time.monotonic() - since > STALE_SECONDS:
                why = "which has ended" if gone else f"silent for {STALE_SECONDS:g} s"
                self._say(f"taken over from %s, {why}", other)
                if storage.replace_alone(self._uri, self._holder.as_bytes()):
                    return
                seen = None  # another that looked has it
            else:
                time.sleep(LOOK_SECONDS)

    def _say(self, words: str, other: Holder | None) -> None:
        progress.logger.warning(f"%s: {words}", self._folder, other or UNKNOWN)

    def _read(self) -> bytes | None:
        try:
            return storage.read_bytes(self._uri)
        except FileNotFoundError:
            return None

    @contextmanager
    def beating(self) -> Iterator[None]:
        """Heartbeats meanwhile; where the lease was lost, KeyboardInterrupt in the main thread."""
        thread = threading.Thread(target=self._beat, name="lease", daemon=True)
        with self._interrupted():
            thread.start()
            try:
                yield
            finally:
                self._done.set()
                thread.join(HEARTBEAT_SECONDS)  # a store may hang

    @contextmanager
    def _interrupted(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def interrupt(_number: int, _frame: FrameType | None) -> None:
            if not self._done.is_set():
                raise KeyboardInterrupt

        before = signal.signal(LOSS_SIGNAL, interrupt)
        self._working_thread = threading.get_ident()
        try:
            yield
        finally:
            signal.signal(LOSS_SIGNAL, before)

    def _beat(self) -> None:
        while self.lost is None and not self._done.wait(HEARTBEAT_SECONDS):
            try:
                self._beat_once()
            except OSError as error:
                progress.logger.warning("%s: no heartbeat written (%s)", self._uri, error)
        if self._working_thread is not None and self.lost is not None and not self._done.is_set():
            signal.pthread_kill(self._working_thread, LOSS_SIGNAL)

    def _beat_once(self) -> None:
        found = self._read()
        other = None if found is None else Holder.read(found)
        if other is not None and other.token != self._holder.token:
            self.lost = (
                f"{self._folder}: taken over by another driver while this one stalled: {other}; "
                "this one has stopped, what it published stays"
            )
            return
        self._holder = self._holder.beaten()
        storage.write_bytes(self._uri, self._holder.as_bytes())

    def release(self) -> None:
        """Give it back, unless another has it."""
        try:
            found = self._read()
            other = None if found is None else Holder.read(found)
            if other is not None and other.token == self._holder.token:
                storage.remove(self._uri)
        except OSError as error:
            progress.logger.warning("%s: could not be removed (%s)", self._uri, error)


def _now() -> str:
    return datetime.now(UTC).isoformat(sep=" ", timespec="seconds")


def _machine() -> str | None:
    """What tells this boot and PID namespace from any other; None where /proc does not say."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            return f"{file.read().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return None


def _process_started(pid: int) -> str | None:
    """When a process of this machine began, in ticks since boot; None if there is none."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            state, *rest = file.read().rpartition(")")[2].split()  # its name may hold anything
    except OSError:
        return None
    return None if state in "ZX" else rest[18]


def _submission() -> str | None:
    """The submission's id, where `ray job submit` started this process."""
    told = json.loads(os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}"))
    found: str | None = told.get("metadata", {}).get("job_submission_id")
    return found
