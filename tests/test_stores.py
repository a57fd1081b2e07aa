"""Stores other than disks and S3: Google's and Azure's, each against an emulator."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest

from diet_ray import filesystems, storage

CONTENT = bytes(range(256)) * 4


@pytest.fixture(params=["google_bucket", "azure_container"])
def folder(request: pytest.FixtureRequest) -> str:
    """An empty folder of the test's own."""
    return storage.join(request.getfixturevalue(request.param), request.node.originalname)


def test_what_is_written_is_read(folder: str) -> None:
    large = np.random.default_rng(0).bytes(2 * filesystems.ONE_REQUEST_BYTES)
    for name, content in {"small": CONTENT, "large": large, "empty": b""}.items():
        uri = storage.join(folder, "deep er", name)
        assert not storage.exists(uri)
        storage.write_bytes(uri, content)
        assert storage.read_bytes(uri) == content
        assert storage.size(uri) == len(content)
        assert storage.is_file(uri)
    with pytest.raises(FileNotFoundError):
        storage.read_bytes(storage.join(folder, "none"))
    storage.check_writable(folder)


def test_parquet_at_once_and_by_groups(folder: str) -> None:
    table = pa.table({"a": np.arange(5_000), "b": np.arange(5_000) % 7})
    uris = [storage.join(folder, f"{name}.parquet") for name in ("whole", "groups")]
    storage.write_parquet(uris[0], table, 1_000)
    groups = (table.slice(start, 1_000) for start in range(0, 5_000, 1_000))
    storage.write_parquet_groups(uris[1], table.schema, groups)
    for uri in uris:
        with storage.open_parquet(uri) as file:
            assert file.num_row_groups == 5
            assert file.read().equals(table)


def test_folders_that_only_names_make(folder: str) -> None:
    """Nothing but files lies in a store, and what is told of folders comes from their names."""
    names = ["a", "b/c", "b/d", "e/f/g"]
    for name in names:
        storage.write_bytes(storage.join(folder, name), CONTENT)
    assert storage.list_files(folder) == [storage.join(folder, "a")]
    assert storage.list_folders(folder) == ["b", "e"]
    assert storage.sizes(storage.join(folder, "b")) == {"c": len(CONTENT), "d": len(CONTENT)}
    assert storage.size(folder) == len(names) * len(CONTENT)
    assert storage.list_folders(storage.join(folder, "none")) == []
    storage.remove(storage.join(folder, "b"))
    storage.remove(storage.join(folder, "none"))
    assert storage.list_folders(folder) == ["e"]
    storage.remove(folder)
    assert not storage.exists(folder)
    assert storage.list_files(folder) == storage.list_folders(folder) == []


def test_other_content_of_the_same_size_is_another_file(folder: str) -> None:
    uri = storage.join(folder, "file")
    storage.write_bytes(uri, CONTENT)
    first = storage.fingerprint(uri)
    assert storage.fingerprint(uri) == first
    storage.write_bytes(uri, CONTENT[::-1])
    assert storage.fingerprint(uri) != first


def test_only_one_creates(folder: str) -> None:
    uri = storage.join(folder, "lease")
    assert storage.create(uri, b"first")
    assert not storage.create(uri, b"second")
    assert storage.read_bytes(uri) == b"first"


def test_what_another_process_writes_is_seen(folder: str) -> None:
    mine, others = (storage.join(folder, name) for name in ("mine", "others"))
    storage.write_bytes(mine, CONTENT)
    assert storage.list_files(folder) == [mine]
    program = f"from diet_ray import storage; storage.write_bytes({others!r}, b'there')"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
    assert storage.list_files(folder) == [mine, others]
    assert storage.sizes(folder) == {"mine": len(CONTENT), "others": 5}
    assert storage.read_bytes(others) == b"there"
