"""What tests share: services that are started once per session."""

from __future__ import annotations

import logging
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator

import pytest

from tests.recorded import Recorded, Recorder


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _wait_until_it_answers(server: subprocess.Popen[bytes], url: str) -> None:
    until = time.monotonic() + 60
    while time.monotonic() < until:
        try:
            with urllib.request.urlopen(f"{url}/moto-api/", timeout=5):
                return
        except OSError:
            assert server.poll() is None, "the S3 server ended at once"
            time.sleep(0.2)
    raise AssertionError("the S3 server does not answer")


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """URL of an S3 server of our own; the environment of this process points at it meanwhile.

    A process (or a Ray) that is started before does not know of it.
    """
    url = f"http://127.0.0.1:{_free_port()}"
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", url.rpartition(":")[2]]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    ours = {
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    before = {name: os.environ.get(name) for name in ours}
    try:
        _wait_until_it_answers(server, url)
        os.environ.update(ours)
        yield url
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
        server.kill()
        server.wait()


@pytest.fixture
def s3_folder(s3_endpoint: str, request: pytest.FixtureRequest) -> str:
    """An empty folder `s3://bucket/...` of the test's own."""
    bucket = f"{s3_endpoint}/diet-ray-tests"
    with urllib.request.urlopen(urllib.request.Request(bucket, method="PUT"), timeout=30):
        pass
    name = re.sub(r"\W+", "-", request.node.name).strip("-")
    return f"s3://diet-ray-tests/{name}"


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """The tests' networks are so small that several threads only get into each other's way."""
    import torch  # noqa: PLC0415

    torch.set_num_threads(1)


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> Recorded:
    """All that this process tells by metrics, as if Ray were there; no thread repeats gauges."""
    from diet_ray import telemetry  # noqa: PLC0415

    recorded = Recorded()

    def rays(metric: telemetry.Metric) -> Recorder:
        return recorded.recorder(metric)

    monkeypatch.setattr(telemetry, "_repeat_gauges", lambda: None)
    monkeypatch.setattr(telemetry, "METRICS", ())  # for the thread, if it runs already
    monkeypatch.setattr(telemetry.Metric, "_rays", rays)
    return recorded


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """One Ray for all tests that need one."""
    import ray  # noqa: PLC0415 - most test files do without it

    from diet_ray import runtime  # noqa: PLC0415

    ray.init(
        address="local",  # never a cluster that happens to run on this machine
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.WARNING,
    )
    runtime.quiet_ray_data()
    yield
    ray.shutdown()
