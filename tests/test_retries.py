"""Retries: storage's operations through a proxy that fails as a store under load does."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from diet_ray import filesystems, retries, storage, telemetry
from diet_ray.storage import StorageError
from tests.fault_proxy import FaultProxy, fault_proxy
from tests.recorded import Recorded

ROOT = Path(__file__).parents[1]

FAULTS = {
    "slow_down": 0.05,
    "reset_before": 0.005,
    "reset_after": 0.005,
    "truncate": 0.01,
    "stall": 0.005,
}
SEED = 2  # with it the first 300 requests meet all of them
FILES = 20  # some 17 requests each


@pytest.fixture
def proxy(
    s3_endpoint: str, s3_folder: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[FaultProxy]:
    """A proxy before the S3 server, without faults yet; the environment points at it."""
    with fault_proxy(s3_endpoint, seed=SEED) as made:
        monkeypatch.setenv("AWS_ENDPOINT_URL", made.url)
        monkeypatch.setattr(filesystems, "REQUEST_SECONDS", 1.0)
        storage.exists(s3_folder)  # makes the client
        made.requests.clear()
        yield made


def again() -> int:
    return retries.retried().total()


def one_file(folder: str, number: int) -> None:
    """Every operation on files of its own, compared with what was written."""
    draw = np.random.default_rng(number)
    content, place = draw.bytes(int(draw.integers(200_000))), storage.join(folder, f"{number:02d}")
    table = pa.table({"x": draw.random(5_000), "y": np.arange(5_000)})
    raw, rows, groups = (storage.join(place, name) for name in ("raw", "rows", "groups"))
    storage.write_bytes(raw, content)
    storage.write_parquet(rows, table, row_group_rows=2_000)
    storage.write_parquet_groups(groups, table.schema, [table, table.slice(7)])
    assert storage.read_bytes(raw) == content
    assert storage.size(raw) == len(content)
    with storage.open_parquet(rows) as file:
        assert file.read_row_group(1).equals(table.slice(2_000, 2_000))
    with storage.open_parquet(groups) as file:
        assert file.num_row_groups == 2
    assert storage.list_files(place) == [groups, raw, rows]
    storage.remove(raw)
    assert not storage.exists(raw)


def test_hundreds_of_operations_under_faults_end_as_without(
    proxy: FaultProxy, s3_folder: str
) -> None:
    proxy.shares = FAULTS
    with ThreadPoolExecutor(FILES) as threads:
        list(threads.map(one_file, [s3_folder] * FILES, range(FILES)))
    assert storage.list_folders(s3_folder) == [f"{number:02d}" for number in range(FILES)]
    assert proxy.requests.total() > 300
    assert proxy.faults.keys() == FAULTS.keys()
    assert again() > 0


def test_the_faults_are_those_of_the_seed(s3_endpoint: str) -> None:
    proxies = [FaultProxy(s3_endpoint, FAULTS, seed) for seed in (1, 1, 2)]
    drawn = [[proxy.fault("GET") for _ in range(200)] for proxy in proxies]
    assert drawn[0] == drawn[1] != drawn[2]


@pytest.mark.parametrize("fault", ["slow_down", "reset_before", "reset_after", "truncate"])
def test_each_fault_is_seen_and_counted(proxy: FaultProxy, s3_folder: str, fault: str) -> None:
    uri = storage.join(s3_folder, "file")
    storage.write_bytes(uri, b"content" * 1_000)
    before = again()
    proxy.next = [fault] * 3
    assert storage.read_bytes(uri) == b"content" * 1_000
    assert again() > before
    assert proxy.requests["GET"] + proxy.requests["HEAD"] > 2


def test_calls_are_counted_by_kind_and_those_again_too(
    proxy: FaultProxy, s3_folder: str, recorded: Recorded
) -> None:
    uri = storage.join(s3_folder, "file")
    storage.write_bytes(uri, b"content")
    proxy.next = ["slow_down", None]  # HEAD, HEAD
    assert storage.size(uri) == 7
    assert storage.list_files(s3_folder) == [uri]
    storage.read_bytes(uri)
    calls = [tags["kind"] for _, tags in recorded.given[telemetry.STORE_CALLS.name]]
    assert calls == ["write", "look", "look", "list", "look", "read"]
    assert recorded.values(telemetry.RETRIES) == [1.0]


def test_a_removal_whose_answer_was_lost_is_one(proxy: FaultProxy, s3_folder: str) -> None:
    uri = storage.join(s3_folder, "file")
    storage.write_bytes(uri, b"content")
    fs, path = storage.filesystem(uri)
    proxy.next = [None, "reset_after"]  # HEAD, DELETE
    fs.delete_file(path)
    assert not storage.exists(uri)
    with pytest.raises(FileNotFoundError):
        fs.delete_file(path)


def test_a_store_that_is_gone_for_a_while_is_waited_for(proxy: FaultProxy, s3_folder: str) -> None:
    uri = storage.join(s3_folder, "file")
    proxy.down = True
    back = threading.Timer(1.0, setattr, (proxy, "down", False))
    back.start()
    storage.write_bytes(uri, b"content")
    back.join()
    assert storage.read_bytes(uri) == b"content"


def test_a_spent_budget_names_place_failure_and_remedy(
    proxy: FaultProxy, s3_folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retries, "BUDGET_SECONDS", 0.5)
    proxy.down = True
    told = r"file: the store failed \d+ times in .* reset by peer.* check that it is up"
    for call in (storage.read_bytes, storage.exists, lambda uri: storage.write_bytes(uri, b"x")):
        with pytest.raises(StorageError, match=told):
            call(storage.join(s3_folder, "file"))


def test_a_long_wait_is_remarked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(retries, "SECONDS_BEFORE_REMARK", 0.0)
    monkeypatch.setattr(retries.logger, "warning", lambda words, *of: said.append(words % of))
    failures = [OSError("AWS Error SLOW_DOWN during PutObject operation")] * 3

    def call() -> str:
        if failures:
            raise failures.pop()
        return "done"

    assert retries.persistently(call, "bucket/file") == "done"
    (remark,) = said
    assert remark.startswith("bucket/file: the store has not answered for")
    assert "slow down" in retries.told()


def test_a_process_tells_at_its_end_what_it_retried() -> None:
    code = """
        from diet_ray import progress, retries
        progress.start_logging()
        failures = [OSError("AWS Error SLOW_DOWN during PutObject operation")] * 2
        def call():
            if failures:
                raise failures.pop()
        retries.persistently(call, "bucket/file")
        print("done")
    """
    run = [sys.executable, "-c", textwrap.dedent(code)]
    done = subprocess.run(run, cwd=ROOT, capture_output=True, text=True, check=True)
    first, last = done.stdout.splitlines()
    assert first == "done"
    assert last.endswith("Storage was asked again after: slow down 2")


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (OSError("AWS Error UNKNOWN (HTTP status 503) during HeadObject operation"), "slow down"),
        (OSError("AWS Error INTERNAL_FAILURE during GetObject operation"), "server error"),
        (OSError("AWS Error NETWORK_CONNECTION during X: curlCode: 28, Timeout"), "stalled"),
        (OSError("AWS Error NETWORK_CONNECTION during X: curlCode: 18, part"), "cut short"),
        (OSError("AWS Error NETWORK_CONNECTION during X: curlCode: 56, Recv"), "connection lost"),
        (ConnectionError("3 of 10 bytes came"), "cut short"),
        (OSError("AWS Error ACCESS_DENIED during HeadObject operation"), None),
        (OSError("AWS Error NO_SUCH_BUCKET during PutObject operation"), None),
        (OSError(28, "No space left on device"), None),
        (FileNotFoundError("bucket/slow_down"), None),
        (ValueError("HTTP status 503"), None),
    ],
)
def test_what_passes_by_itself(error: Exception, kind: str | None) -> None:
    assert retries.transient(error) == kind


def test_what_does_not_pass_is_asked_once(proxy: FaultProxy) -> None:
    with pytest.raises(StorageError, match="no-such-bucket/run: cannot be written"):
        storage.check_writable("s3://diet-ray-no-such-bucket/run")
    assert proxy.requests["PUT"] == 1
