"""A small distillation that is disturbed by a plan of kills, and what it leaves behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from diet_ray.config import RunConfig
from tests.chaos.nodes import Nodes
from tests.chaos.plan import PHASES, Kill, Plan, Position
from tests.distill.prepared import STAGES, run_config

ROOT = Path(__file__).parents[2]
PATIENCE_SECONDS = 240.0
"""Without an end of the run after the last kill, or a phase to be reached, a run hangs."""
NOTHING: Mapping[str, Any] = MappingProxyType({})
WENT_ON, STARTED_AGAIN, FAILED, NOBODY = "went on", "started again", "failed", "nobody there"


@dataclass
class Outcome:
    """What became of a run after a kill; `phase` is the one in which it met it."""

    kill: Kill
    phase: str
    became: str


def chaos_config(
    output: Path,
    reference_workers: int | tuple[int, int],
    *,
    stages: int = STAGES,
    rows: int = 2_000,
    batch_size: int = 32,
    distill: Mapping[str, Any] = NOTHING,
    resources: Mapping[str, Any] = NOTHING,
) -> RunConfig:
    """Every part of the method on a short log.

    rows: of the log, a fifth of them in each block; batch_size: of the reference; distill,
    resources: in the place of these.
    """
    days = [f"2024-01-0{day}" for day in range(1, 6)]
    names = ("subsequent", "validation", "test")
    made: dict[str, Any] = {"rows": rows, "users": 40, "items": 30, "days": 5}
    return run_config(
        output,
        logs={
            "source": "synthetic",
            "synthetic": {**made, "rows_per_part": rows // 4},
            "intervals": {"historical": days[:stages], **dict(zip(names, days[2:], strict=True))},
            "fragment_rows": 200,
            "row_group_rows": 100,
        },
        evaluation={"methods": []},
        distill={"rounds": 1, "outer_steps": 20, "commit_every": 2, **distill},
        reference={"batch_size": batch_size},
        resources={
            "reference_workers": reference_workers,
            "reference_checkpoint_minutes": 0.01,
            "meta_workers": 2,
            "memory_servers": 2,
            "scoring_workers": [2, 2],
            **resources,
        },
    )


def bytes_of(output: Path) -> dict[str, bytes]:
    """Every file of the blocks, the reference and the distilled set."""
    found = {}
    for pattern in ("blocks/**/*", "reference/t=*/*", "distilled/**/*"):
        files = [path for path in sorted(output.glob(pattern)) if path.is_file()]
        found |= {str(path.relative_to(output)): path.read_bytes() for path in files}
    return found


class Job:
    """The driver as a process, how far it is, and the last that it said."""

    def __init__(self, nodes: Nodes, config: RunConfig) -> None:
        path = Path(config.output).with_suffix(".json")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(config.model_dump_json(exclude_unset=True))
        self._command = [sys.executable, str(ROOT / "tests/chaos/driver.py"), "--config", str(path)]
        self._environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "RAY_ADDRESS": nodes.address,
            "RAY_worker_niceness": "0",
        }
        self.start()

    def start(self) -> None:
        """Once more, after it ended."""
        self.position: Position = (-1, 0)
        self.said: list[str] = []
        self.process = subprocess.Popen(
            self._command,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, args=(self.process,), daemon=True)
        self._reader.start()

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("at "):
                _, stage, phase = line.split()
                self.position = int(stage), PHASES.index(phase)
            else:
                self.said.append(line.rstrip())

    @property
    def phase(self) -> str:
        return PHASES[self.position[1]]

    def wait(self, position: Position | None) -> int | None:
        """Until the job reaches a position or ends; its status then. Raises TimeoutError."""
        until = time.monotonic() + PATIENCE_SECONDS
        while True:
            status = self.process.poll()
            if status is not None:
                self._reader.join()
                return status
            if position is not None and self.position >= position:
                return None
            if time.monotonic() > until:
                raise TimeoutError(f"at {self.position}, and no further")
            time.sleep(0.01)

    def end(self) -> None:
        """Whatever it does."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


@contextmanager
def running(nodes: Nodes, config: RunConfig) -> Iterator[Job]:
    """A job that has ended when the block has."""
    job = Job(nodes, config)
    try:
        yield job
    finally:
        job.end()


def undisturbed(nodes: Nodes, config: RunConfig) -> dict[str, bytes]:
    """The bytes of a run in peace."""
    with running(nodes, config) as job:
        assert job.wait(None) == 0, "\n".join(job.said)
    return bytes_of(Path(config.output))


class Disturbed:
    """A run under a plan. `outcomes` has one of each kill; `failure` says what went wrong at last,
    None if the run ended with the bytes that are `expected`; `ended` what the job said where it
    ended by itself and was started again."""

    def __init__(
        self, nodes: Nodes, config: RunConfig, plan: Plan, expected: dict[str, bytes]
    ) -> None:
        self.outcomes: list[Outcome] = []
        self.ended: list[str] = []
        self.failure: str | None = None
        self._nodes = nodes
        with running(nodes, config) as self._job:
            try:
                for kill in plan.kills:
                    self._carry_out(kill)
                while self._job.wait(None) != 0:
                    self._start_again()
            except TimeoutError as error:
                self.failure = f"hangs: {error}\n" + "\n".join(self._job.said[-20:])
            except AssertionError as error:
                self.failure = str(error)
        found = bytes_of(Path(config.output))
        differing = [n for n in {**found, **expected} if found.get(n) != expected.get(n)]
        if differing and not self.failure:
            self.failure = f"other bytes: {', '.join(differing)}"
        if self.failure and self.outcomes:
            self.outcomes[-1].became = FAILED

    def _carry_out(self, kill: Kill) -> None:
        while (status := self._job.wait(kill.position)) is not None:
            if status == 0:
                return  # the run is over
            self._start_again()
        time.sleep(kill.delay)
        if kill.victim == "driver":
            self.outcomes.append(Outcome(kill, self._job.phase, STARTED_AGAIN))
            self._job.end()
            self._job.start()
        else:
            died = self._nodes.kill(kill.victim, kill.choice)
            became = WENT_ON if died else NOBODY
            self.outcomes.append(Outcome(kill, self._job.phase, became))

    def _start_again(self) -> None:
        """The job, which ended by itself: after a kill that is allowed once."""
        told = "\n".join(self._job.said[-12:])
        last = self.outcomes[-1] if self.outcomes else None
        assert last is not None, f"ended undisturbed: {told}"
        assert last.became in (WENT_ON, NOBODY), f"ended again: {told}"
        self.ended.append(f"{last.kill}: {told}")
        last.became = STARTED_AGAIN
        self._job.start()
