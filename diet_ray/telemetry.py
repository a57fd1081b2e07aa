"""What a run tells Prometheus of itself, by `ray.util.metrics`; all its metrics are defined here.

A metric is recorded in the process that knows it, and Ray's agent of that node exports it, its
name with `ray_` in front. Where there is no Ray, recording does nothing: library code need not
ask. It costs microseconds: record per batch, file or step, never per row.

Every process is a series of its own; labels have few values, and one that is not known here is
empty. Ray exports a gauge only for two of its reports (of 10 s each) after it was set, so what
still holds is set again now and then by a thread, until it is forgotten or Ray is left.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from diet_ray import whereabouts

SECONDS_BETWEEN_REPEATS = 5.0

RUN = ("run",)
RUN_AND_STAGE = ("run", "stage")


class Metric:
    """labels: `run` and `stage` are filled in from `whereabouts`, all others come with a value."""

    kind = ""  # of the classes in ray.util.metrics

    def __init__(self, name: str, meaning: str, labels: tuple[str, ...], **more: Any) -> None:
        self.name, self.meaning, self.labels = name, meaning, labels
        self._more = more
        self._recorder: Any = None

    @property
    def exported(self) -> str:
        """Its name as Prometheus has it."""
        return f"ray_{self.name}"

    def _rays(self) -> Any:
        """Ray's own metric; None where there is no Ray, which is not imported for this."""
        ray = sys.modules.get("ray")
        if ray is None or not ray.is_initialized():
            return None
        if self._recorder is None:
            from ray.util import metrics  # noqa: PLC0415

            made = getattr(metrics, self.kind)
            self._recorder = made(self.name, self.meaning, tag_keys=self.labels, **self._more)
        return self._recorder

    def _tags(self, given: dict[str, str]) -> dict[str, str]:
        here = whereabouts.here()
        known = {"run": here.run, "stage": here.stage, **given}
        return {label: "" if known[label] is None else str(known[label]) for label in self.labels}


class Counter(Metric):
    kind = "Counter"

    def add(self, count: float, **labels: str) -> None:
        """`count` more, or none."""
        recorder = self._rays()
        if recorder is not None and count > 0:
            recorder.inc(float(count), self._tags(labels))


class Gauge(Metric):
    kind = "Gauge"

    def __init__(self, name: str, meaning: str, labels: tuple[str, ...]) -> None:
        super().__init__(name, meaning, labels)
        self._held: dict[tuple[str, ...], float] = {}  # by the labels' values
        self._lock = threading.Lock()

    def set(self, value: float, **labels: str) -> None:
        """This is its value from now on."""
        recorder = self._rays()
        if recorder is None:
            return
        tags = self._tags(labels)
        with self._lock:
            self._held[tuple(tags.values())] = float(value)
            recorder.set(float(value), tags)
        _repeat_gauges()

    def forget(self, **labels: str) -> None:
        """It has no value any more; Ray exports the last one for some seconds yet."""
        with self._lock:
            self._held.pop(tuple(self._tags(labels).values()), None)

    def repeat(self) -> None:
        """Set once more what still holds, in the Ray in which it was set."""
        recorder = self._rays()
        with self._lock:
            if recorder is None:
                self._held.clear()
            for values, value in self._held.items():
                recorder.set(value, dict(zip(self.labels, values, strict=True)))


@cache
def _repeat_gauges() -> None:
    """Start the process's thread that does it."""

    def repeat() -> None:
        while True:
            time.sleep(SECONDS_BETWEEN_REPEATS)
            for metric in METRICS:
                if isinstance(metric, Gauge):
                    metric.repeat()

    threading.Thread(target=repeat, name="gauges", daemon=True).start()


class Duration(Metric):
    """A histogram of seconds."""

    kind = "Histogram"

    @contextmanager
    def timed(self, **labels: str) -> Iterator[None]:
        """Observe how long the block takes, unless it raises."""
        started = time.monotonic()
        yield
        recorder = self._rays()
        if recorder is not None:
            recorder.observe(time.monotonic() - started, self._tags(labels))


LATENCIES = [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0]
"""Upper ends in seconds; a pull within one machine takes some milliseconds."""

ROWS_SCORED = Counter(
    "diet_ray_rows_scored_total", "Rows whose scores a scan wrote.", RUN_AND_STAGE
)
PHASE_DONE = Gauge(
    "diet_ray_phase_done_ratio",
    "Share of a phase that is done, 0 to 1.",
    ("run", "stage", "phase"),
)
PHASE_RATE = Gauge(
    "diet_ray_phase_units_per_second",
    "Pace of a phase, in what it counts (rows, outer steps, ..).",
    ("run", "stage", "phase"),
)
OUTER_STEP = Gauge(
    "diet_ray_outer_step", "Outer steps that the stage's memory has seen.", RUN_AND_STAGE
)
OUTER_LOSS = Gauge(
    "diet_ray_outer_loss",
    "Meta-loss of the last outer step, the mean over its finite shards.",
    RUN_AND_STAGE,
)
GRADIENT_NORM = Gauge(
    "diet_ray_gradient_norm",
    "Norm of the last outer step's mean gradient, before clipping.",
    RUN_AND_STAGE,
)
SHARDS_LEFT_OUT = Counter(
    "diet_ray_shards_left_out_total",
    "Shards of outer steps that were not finite and left out.",
    RUN_AND_STAGE,
)
PULL = Duration(
    "diet_ray_pull_seconds",
    "Time of a meta-worker's pull of memory rows.",
    RUN,
    boundaries=LATENCIES,
)
PUSH = Duration(
    "diet_ray_push_seconds",
    "Time of a meta-worker's push of gradients.",
    RUN,
    boundaries=LATENCIES,
)
RETRIES = Counter(
    "diet_ray_retries_total",
    "Work done again since something was lost; `what` says which.",
    ("run", "what"),
)
QUARANTINED_ROWS = Gauge(
    "diet_ray_quarantined_rows", "Rows of the raw log that cannot be used.", RUN
)
READ_BYTES = Counter(
    "diet_ray_read_bytes_total",
    "Bytes read of the raw log (`of` log) and of encoded blocks, as they lie in storage.",
    ("run", "of"),
)
STORE_CALLS = Counter(
    "diet_ray_store_calls_total",
    "Calls to an S3 store, those that failed too; each a request, or some for a large file or a "
    "long list.",
    ("run", "kind"),
)
LAST_DURABLE = Gauge(
    "diet_ray_last_durable_timestamp_seconds",
    "When a state from which the run can go on was last written, in seconds from 1970.",
    RUN,
)

METRICS: tuple[Metric, ...] = (
    ROWS_SCORED,
    PHASE_DONE,
    PHASE_RATE,
    OUTER_STEP,
    OUTER_LOSS,
    GRADIENT_NORM,
    SHARDS_LEFT_OUT,
    PULL,
    PUSH,
    RETRIES,
    QUARANTINED_ROWS,
    READ_BYTES,
    STORE_CALLS,
    LAST_DURABLE,
)


def durable() -> None:
    """A state from which the run can go on was written just now."""
    LAST_DURABLE.set(time.time())
