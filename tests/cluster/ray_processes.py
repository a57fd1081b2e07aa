"""A Ray cluster of processes on this machine, each node started by a command of the manifests.

Nothing of it meets another Ray: ports, token and folder are its own, and what is stopped is what
descends from its own `ray start`, by process id.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.cluster.composed import ROOT, Manifest, start_parameters
from tests.ports import HOST, free_port

OBJECT_STORE_BYTES = 100 << 20  # enough for what the tests put there, and Ray takes no less than 75
NODE_LABEL = "test/node"  # which of our processes a node is


def wait_until(ready: Callable[[], bool], what: str, seconds: float = 120) -> None:
    until = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < until, f"{what}: not within {seconds:.0f} seconds"
        time.sleep(0.3)


class RayProcesses:
    """A head and its workers; a context manager that leaves no process behind."""

    def __init__(self) -> None:
        # a short path: Ray keeps sockets below it, whose names have a limit
        self.folder = Path(tempfile.mkdtemp(prefix="kube", dir="/tmp"))
        self.token = secrets.token_hex(16)
        self.control_store, self.dashboard = free_port(), free_port()
        self.started: dict[str, subprocess.Popen[bytes]] = {}
        self.agent_ports: dict[str, int] = {}

    def __enter__(self) -> RayProcesses:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for name in reversed(list(self.started)):
            self.kill(name)
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def environment(self) -> dict[str, str]:
        """As in a pod: the token, nothing of the tester's own Ray, and our `ray` and `python`."""
        ours = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
        return {
            **ours,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": self.token,
            "RAY_worker_niceness": "0",
            "RAY_USAGE_STATS_ENABLED": "0",
        }

    def start_head(
        self,
        group: Manifest,
        name: str = "head",
        environment: dict[str, str] | None = None,
        **more: str,
    ) -> None:
        """`ray start --head` as KubeRay calls it, and whatever options this machine needs."""
        here = {
            "port": str(self.control_store),
            "dashboard-host": HOST,
            "dashboard-port": str(self.dashboard),
            "ray-client-server-port": str(free_port()),
            # a new one each time, as a new pod has: Ray refuses to start over another's traces
            "temp-dir": tempfile.mkdtemp(prefix="", dir=self.folder),
            **more,
        }
        self._start(name, ["--head"], group, here, environment or {})
        wait_until(lambda: self.answers("/api/gcs_healthz"), "the head's probe")

    def start_worker(
        self, group: Manifest, name: str, environment: dict[str, str] | None = None
    ) -> None:
        """`ray start` as KubeRay calls it in a pod of the group."""
        here = {"address": f"{HOST}:{self.control_store}"}
        self._start(name, [], group, here, environment or {})
        port = self.agent_ports[name]
        wait_until(lambda: self.answers("/api/local_raylet_healthz", port), f"{name}'s probe")

    def _start(
        self,
        name: str,
        arguments: list[str],
        group: Manifest,
        here: dict[str, str],
        environment: dict[str, str],
    ) -> None:
        self.agent_ports[name] = free_port()
        stated = start_parameters(group)
        labels = [label for label in (stated.pop("labels", None), f"{NODE_LABEL}={name}") if label]
        options = {
            **stated,
            "labels": ",".join(labels),
            "node-ip-address": HOST,
            "dashboard-agent-listen-port": str(self.agent_ports[name]),
            "metrics-export-port": str(free_port()),
            "min-worker-port": "0",  # any: nodes on one machine must not share them
            "max-worker-port": "0",
            "object-store-memory": str(OBJECT_STORE_BYTES),
            **here,
        }
        command = ["ray", "start", "--block", *arguments]
        command += [f"--{key}={value}" for key, value in options.items()]
        with open(self.folder / f"{name}.log", "ab") as log:
            self.started[name] = subprocess.Popen(
                command,
                cwd=ROOT,
                env={**self.environment, **environment},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def kill(self, name: str) -> None:
        """SIGKILL, at once, everything that descends from a node's `ray start`."""
        process = self.started.pop(name)
        for _ in range(2):  # what was being started meanwhile goes in the second round
            for pid in family(process.pid):
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            process.wait()

    def answers(self, path: str, port: int | None = None, token: str | None = None) -> bool:
        return self.status(path, port, token) == 200

    def status(self, path: str, port: int | None = None, token: str | None = None) -> int:
        """The HTTP status of a path of the head's dashboard, or of a node's agent; 0 for none."""
        request = urllib.request.Request(f"http://{HOST}:{port or self.dashboard}{path}")
        if token is not None:
            request.add_header("Authorization", f"Bearer {token}")
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            return 0

    def states(self, kind: str) -> list[dict[str, Any]]:
        """What the cluster tells of its `nodes` or `actors`, the living ones."""
        request = urllib.request.Request(
            f"http://{HOST}:{self.dashboard}/api/v0/{kind}?detail=1",
            headers={"Authorization": f"Bearer {self.token}"},
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            found = json.load(answer)["data"]["result"]["result"]
        return [state for state in found if state["state"] == "ALIVE"]

    def nodes(self) -> dict[str, dict[str, Any]]:
        """The living nodes, by the names of our processes."""
        return {node["labels"][NODE_LABEL]: node for node in self.states("nodes")}

    def nodes_of(self, actor_class: str) -> set[str]:
        """Names of the nodes on which actors of a class live."""
        names = {node["node_id"]: name for name, node in self.nodes().items()}
        actors = [a for a in self.states("actors") if a["class_name"].endswith(actor_class)]
        return {names[actor["node_id"]] for actor in actors if actor["node_id"] in names}

    def submit(self, entrypoint: list[str], *options: str) -> subprocess.Popen[str]:
        """`ray job submit`, as the submitter's pod calls it; it ends when the job does."""
        return self.job("submit", *options, "--", *entrypoint)

    def job(self, command: str, *arguments: str) -> subprocess.Popen[str]:
        """A `ray job` command to this cluster."""
        address = f"http://{HOST}:{self.dashboard}"
        return subprocess.Popen(
            ["ray", "job", command, "--address", address, *arguments],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )


def family(pid: int) -> list[int]:
    """A process, what runs in the session that it began, if it did, and all that descends."""
    parents, sessions = {}, {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue  # it has ended
            parents[int(folder.name)], sessions[int(folder.name)] = int(fields[1]), int(fields[3])
    found = {pid} | {other for other, session in sessions.items() if session == pid}
    while True:
        grown = found | {other for other, parent in parents.items() if parent in found}
        if grown == found:
            return sorted(found)
        found = grown
