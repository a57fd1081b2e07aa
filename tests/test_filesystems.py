"""Filesystems: which one a URI names, one client for all calls, and no secrets in a URI."""

from __future__ import annotations

import os

import numpy as np
import pyarrow as pa
import pyarrow.fs as pafs
import pytest

from diet_ray import filesystems, storage
from diet_ray.storage import StorageError
from tests.fault_proxy import fault_proxy


def client(uri: str) -> pafs.FileSystem:
    return filesystems.find(uri)[0]


@pytest.mark.usefixtures("s3_endpoint")
@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("s3://bucket/a/b.json", "bucket/a/b.json"),
        ("s3://bucket/a/", "bucket/a"),
        ("s3://bucket", "bucket"),
        ("s3://bucket/größer a=1", "bucket/größer a=1"),
        ("s3://anonymous@bucket/a", "bucket/a"),
        ("gs://anonymous@bucket/a/b", "bucket/a/b"),
        ("/a/b", "/a/b"),
        ("file:///a/b c", "/a/b c"),
        ("memory://a/b", "/a/b"),
    ],
)
def test_the_path_within(uri: str, path: str) -> None:
    assert filesystems.find(uri)[1] == path


def test_a_bucket_has_one_client(s3_folder: str) -> None:
    assert client(s3_folder) is client(storage.join(s3_folder, "deep", "er"))
    assert client(s3_folder) is not client("s3://another-bucket/x")


def test_another_environment_is_another_client(
    s3_endpoint: str, s3_folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage.write_bytes(storage.join(s3_folder, "file"), b"content")
    with fault_proxy(s3_endpoint) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        assert storage.read_bytes(storage.join(s3_folder, "file")) == b"content"
        assert proxy.requests == {"HEAD": 1, "GET": 1}


def test_without_credentials(
    s3_endpoint: str, s3_folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client of `anonymous@` signs nothing."""
    seen = []
    with fault_proxy(s3_endpoint) as proxy:
        proxy.heard = lambda headers: seen.append("Authorization" in headers)
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        for uri in (s3_folder, s3_folder.replace("s3://", "s3://anonymous@")):
            storage.exists(uri)
    assert seen[0]
    assert not seen[-1]


@pytest.mark.parametrize("scheme", ["s3", "gs", "abfs"])
def test_credentials_in_a_uri_are_refused_and_not_repeated(scheme: str) -> None:
    with pytest.raises(StorageError, match=r"set them in the environment") as caught:
        filesystems.find(f"{scheme}://KEY:hidden@bucket/run")
    assert f"{scheme}://...@bucket" in str(caught.value)
    assert not {"KEY", "hidden"} & set(str(caught.value).replace(":", " ").split())


def test_options_in_a_uri_are_refused() -> None:
    with pytest.raises(StorageError, match=r"\?region=, .*\(AWS_ENDPOINT_URL"):
        filesystems.find("s3://bucket/run?region=eu-west-1")


def test_a_store_that_needs_another_package_says_so() -> None:
    with pytest.raises(StorageError, match=r"oci://bucket/x: .*ocifs.*README"):
        filesystems.find("oci://bucket/x")


@pytest.mark.parametrize("size", [10, filesystems.ONE_REQUEST_BYTES])
def test_content_held_whole_is_one_request(
    s3_endpoint: str, s3_folder: str, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    with fault_proxy(s3_endpoint) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        storage.write_bytes(storage.join(s3_folder, "file"), os.urandom(size))
        assert proxy.requests == {"PUT": 1}


@pytest.mark.parametrize(("rows", "gets"), [(10_000, 1), (500_000, 4)])
def test_a_small_table_is_read_by_one_request(
    s3_endpoint: str, s3_folder: str, monkeypatch: pytest.MonkeyPatch, rows: int, gets: int
) -> None:
    """Of a large one, the footer and the columns of each row group."""
    uri = storage.join(s3_folder, f"{rows}.parquet")
    table = pa.table({"x": np.random.default_rng(0).random(rows), "y": np.arange(rows)})
    storage.write_parquet(uri, table, row_group_rows=rows // 2)
    with fault_proxy(s3_endpoint) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        with storage.open_parquet(uri) as file:
            groups = [file.read_row_group(group) for group in range(file.num_row_groups)]
        assert pa.concat_tables(groups).equals(table)
        assert proxy.requests["GET"] <= gets


def test_a_nul_character_is_refused() -> None:
    for uri in ("/data/a\0b", "s3://bucket/\0"):
        with pytest.raises(StorageError, match="holds no NUL character; name another"):
            filesystems.find(uri)
