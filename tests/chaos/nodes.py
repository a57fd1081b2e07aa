"""A Ray of several nodes on this machine, whose processes are killed one by one."""

from __future__ import annotations

import os
import re
import signal
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from ray.cluster_utils import Cluster

from tests.cluster.ray_processes import family

NODES = 3  # that work, beside the head
OBJECT_STORE_BYTES = 100 << 20
TITLES = {
    "scoring actor": r"ray::.*ScoringActor",
    "meta-worker": r"ray::.*MetaWorker",
    "server": r"ray::.*MemoryServer",
    "reference worker": r"ray::.*RayTrainWorker",
    "data worker": r"ray::Map\(",
}
"""How Ray titles the processes of its workers."""
QUICK_TO_NOTICE = {
    "health_check_initial_delay_ms": 1_000,
    "health_check_period_ms": 500,
    "health_check_failure_threshold": 4,
}
"""For a dead node, which Ray takes half a minute to notice otherwise."""
PATIENCE_SECONDS = 10.0
"""Within which a victim must be there."""


class Nodes:
    """A head without CPUs, to which drivers connect, and nodes of one CPU, `count` at first; a
    context manager that leaves nothing behind. Sockets, logs and Ray's note of the last cluster lie
    in a folder of its own."""

    def __init__(self, count: int = NODES) -> None:
        self._count = count

    def __enter__(self) -> Nodes:
        self._folder = tempfile.TemporaryDirectory(prefix="chaos", ignore_cleanup_errors=True)
        self._before = os.environ.get("RAY_TMPDIR")
        os.environ["RAY_TMPDIR"] = self._folder.name
        self._cluster = Cluster(
            initialize_head=True,
            head_node_args={
                "num_cpus": 0,
                "include_dashboard": False,
                "object_store_memory": OBJECT_STORE_BYTES,
                "_system_config": QUICK_TO_NOTICE,
            },
        )
        self._nodes: list[Any] = []
        for _ in range(self._count):
            self.join()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._cluster.shutdown()
        del os.environ["RAY_TMPDIR"]
        if self._before is not None:
            os.environ["RAY_TMPDIR"] = self._before
        self._folder.cleanup()

    @property
    def address(self) -> str:
        return str(self._cluster.address)

    def join(self) -> None:
        """One node more."""
        node = self._cluster.add_node(num_cpus=1, object_store_memory=OBJECT_STORE_BYTES)
        self._nodes.append(node)

    def leave(self, graceful: bool, choice: int = -1) -> None:
        """One node less, by default the youngest: it ends its processes itself, or is killed."""
        self._cluster.remove_node(self._nodes.pop(choice), allow_graceful=graceful)

    def kill(self, victim: str, choice: int) -> bool:
        """Kill one of the processes of that kind, or a whole node, for which another joins; False
        if there is none."""
        if victim == "node":
            self.leave(graceful=False, choice=choice % len(self._nodes))
            self.join()
            return True
        until = time.monotonic() + PATIENCE_SECONDS
        while not (found := self.processes(victim)):
            if time.monotonic() > until:
                return False
            time.sleep(0.05)
        try:
            os.kill(found[choice % len(found)], signal.SIGKILL)
        except ProcessLookupError:
            return False
        return True

    def processes(self, kind: str) -> list[int]:
        """Ids of the living ones of a kind of TITLES."""
        found = []
        for node in [self._cluster.head_node, *self._nodes]:
            for process in node.all_processes["raylet"]:
                found += [p for p in family(process.process.pid) if _is_titled(p, TITLES[kind])]
        return sorted(found)


def _is_titled(pid: int, title: str) -> bool:
    try:
        return re.match(title, Path(f"/proc/{pid}/cmdline").read_bytes().decode()) is not None
    except OSError:
        return False  # it has ended
