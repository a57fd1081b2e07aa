"""A Ray of several nodes on this machine, whose processes are killed one by one."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
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
    "scoring worker": r"ray::.*score_fragments",
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

    def drain(self, kind: str, seconds: int) -> Leaving:
        """Announce that the node of the oldest process of a kind will be gone in so many seconds,
        as it is for a preempted machine."""
        (first, *_), nodes = self.processes(kind), self._nodes
        (node,) = (node for node in nodes if first in family(_raylet(node).pid))
        nodes.remove(node)
        announce = [str(Path(sys.executable).with_name("ray")), "drain-node"]
        which = ["--address", self.address, "--node-id", node.node_id]
        why = ["--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "a test"]
        when = ["--deadline-remaining-seconds", str(seconds)]
        subprocess.run([*announce, *which, *why, *when], check=True, capture_output=True)
        return Leaving(self._cluster, node)

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
            found += [p for p in family(_raylet(node).pid) if _is_titled(p, TITLES[kind])]
        return sorted(found)


class Leaving:
    """A node that is announced to leave."""

    def __init__(self, cluster: Cluster, node: Any) -> None:
        self._cluster, self._node = cluster, node

    def is_gone(self) -> bool:
        """Ray ends it when nothing runs there."""
        return _raylet(self._node).poll() is not None

    def end(self) -> None:
        """As its machine does, whatever runs there."""
        self._cluster.remove_node(self._node, allow_graceful=False)


def _raylet(node: Any) -> subprocess.Popen[bytes]:
    (info,) = node.all_processes["raylet"]
    process: subprocess.Popen[bytes] = info.process
    return process


def _is_titled(pid: int, title: str) -> bool:
    try:
        return re.match(title, Path(f"/proc/{pid}/cmdline").read_bytes().decode()) is not None
    except OSError:
        return False  # it has ended
