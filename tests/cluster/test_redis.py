"""The control store's restart from Redis, with the commands of components/redis."""

from __future__ import annotations

import json
import secrets
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.composed import ROOT, groups, named
from tests.cluster.ray_processes import RayProcesses, wait_until
from tests.ports import HOST, free_port

CPU = ROOT / "cluster/overlays/cpu"
JOB = ROOT / "tests/cluster/asking.py"
RECONNECT = {"RAY_gcs_rpc_server_reconnect_timeout_s": "600"}  # the operator's, for workers

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("redis-server") is None, reason="no redis-server installed"),
]


class Redis:
    """A server started by the manifest's own command, in a folder and on a port of the test's."""

    def __init__(self, folder: Path) -> None:
        self.port, self.password = free_port(), secrets.token_hex(24)
        pod = named(CPU, "StatefulSet", "diet-ray-redis")["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        (script,) = container["args"]
        here = script.replace("/data", str(folder))
        here = here.replace("redis-server -", f"redis-server - --port {self.port} --bind {HOST}")
        self.process = subprocess.Popen(
            [*container["command"], here],
            env={"PATH": "/usr/bin:/bin", "REDIS_PASSWORD": self.password},
            stdout=subprocess.DEVNULL,
        )
        wait_until(lambda: self.says("PING") != "", "Redis")

    def says(self, *commands: str) -> str:
        """The answers, a line each; empty while nobody listens."""
        try:
            with socket.create_connection((HOST, self.port), timeout=10) as connection:
                for command in commands:
                    connection.sendall(f"{command}\r\n".encode())
                connection.shutdown(socket.SHUT_WR)
                return b"".join(iter(lambda: connection.recv(4096), b"")).decode()
        except OSError:
            return ""

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[Redis]:
    server = Redis(tmp_path)
    yield server
    server.stop()


def test_the_password_is_asked_for_and_not_in_the_command(redis: Redis) -> None:
    assert redis.says("PING").startswith("-NOAUTH")
    assert redis.says(f"AUTH {redis.password}", "PING") == "+OK\r\n+PONG\r\n"
    command = Path(f"/proc/{redis.process.pid}/cmdline").read_bytes()
    assert b"redis-server" in command
    assert redis.password.encode() not in command


@pytest.mark.timeout(400)
def test_actors_outlive_a_head_whose_control_store_is_in_redis(redis: Redis) -> None:
    spec = named(CPU, "RayCluster", "interactive")["spec"]
    assert spec["gcsFaultToleranceOptions"].keys() == {"redisAddress", "redisPassword"}
    (scan,) = (group for group in groups(spec) if group["groupName"] == "scan")
    stored = {
        "RAY_REDIS_ADDRESS": f"{HOST}:{redis.port}",
        "RAY_external_storage_namespace": "interactive",
    }
    password = {"redis-password": redis.password}
    with RayProcesses() as cluster:
        cluster.start_head(spec["headGroupSpec"], environment=stored, **password)
        cluster.start_worker(scan, "scan", environment=RECONNECT)
        kept = [{"count": 1, "num_cpus": 1, "name": "kept", "lifetime": "detached"}]
        submission = cluster.submit(["python", str(JOB), json.dumps(kept)])
        printed, _ = submission.communicate(timeout=200)
        assert submission.returncode == 0, printed
        before = actor(cluster)

        cluster.kill("head")
        cluster.start_head(spec["headGroupSpec"], environment=stored, **password)
        wait_until(lambda: {"head", "scan"} <= cluster.nodes().keys(), "the worker back")
        assert actor(cluster) == before


def actor(cluster: RayProcesses) -> dict[str, Any]:
    """Who and where the one detached actor is."""
    (found,) = (a for a in cluster.states("actors") if a["name"] == "kept")
    return {key: found[key] for key in ("actor_id", "node_id", "pid", "num_restarts")}
