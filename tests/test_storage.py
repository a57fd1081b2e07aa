"""Storage: one set of operations on every filesystem, and files that are whole or absent."""

from __future__ import annotations

import hashlib
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.fs as pafs
import pytest

from diet_ray import storage, tensor_files
from diet_ray.storage import StorageError

ROOT = Path(__file__).parents[1]


STORES = ("s3", "rclone", "google", "azure")


@pytest.fixture(params=["path", "file", "odd names", "memory", *STORES])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty folder on each kind of filesystem."""
    if request.param in STORES:
        return request.getfixturevalue(f"{request.param}_folder")
    if request.param == "memory":
        return f"memory://{tmp_path.name}"
    local = {"path": str(tmp_path / "run"), "file": f"file://{tmp_path}/run"}
    return local.get(request.param, f"file://{tmp_path}/a run, größer")


def table(rows: int = 1_000) -> pa.Table:
    draw = np.random.default_rng(0)
    columns = {"row_id": np.arange(rows), "score": draw.random(rows, dtype=np.float32)}
    return pa.table(columns)


def read(uri: str) -> pa.Table:
    with storage.open_parquet(uri) as file:
        return file.read()


def test_bytes_come_back(folder: str) -> None:
    uri = storage.join(folder, "deep", "er", "file.bin")
    content = os.urandom(100_000)
    assert not storage.exists(uri)
    assert storage.write_bytes(uri, content) == hashlib.sha256(content).hexdigest()
    assert storage.exists(uri)
    assert storage.exists(folder)
    assert (storage.is_file(uri), storage.is_file(folder)) == (True, False)
    assert storage.read_bytes(uri) == content
    assert storage.size(uri) == len(content)
    storage.write_bytes(uri, b"again")
    assert storage.read_bytes(uri) == b"again"


def test_json_comes_back(folder: str) -> None:
    uri = storage.join(folder, "manifest.json")
    content = {"b": [1, 2.5, None], "a": {"name": "größer"}}
    digest = storage.write_json(uri, content)
    assert storage.read_json(uri) == content
    assert storage.write_json(uri, dict(reversed(content.items()))) == digest


def test_a_file_is_created_once(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "SETTLE_SECONDS", 0.1)
    uri = storage.join(folder, "deep", "mine")
    assert storage.create(uri, b"first")
    assert not storage.create(uri, b"second")
    assert storage.read_bytes(uri) == b"first"
    assert storage.replace_alone(uri, b"third")
    assert storage.read_bytes(uri) == b"third"


@pytest.mark.parametrize("folder", ["path", "s3", "rclone"], indirect=True)
def test_of_many_that_create_a_file_one_succeeds(folder: str) -> None:
    uri, contents = storage.join(folder, "mine"), [f"{n}".encode() for n in range(8)]
    with ThreadPoolExecutor(len(contents)) as threads:
        created = list(threads.map(partial(storage.create, uri), contents))
    assert sum(created) == 1
    assert storage.read_bytes(uri) == contents[created.index(True)]


def test_a_table_comes_back(folder: str) -> None:
    uri = storage.join(folder, "part.parquet")
    storage.write_parquet(uri, table(), row_group_rows=300)
    with storage.open_parquet(uri) as file:
        assert file.num_row_groups == 4
        assert file.read().equals(table())


def test_a_table_comes_back_from_stated_encodings(tmp_path: Path) -> None:
    uris = [str(tmp_path / name) for name in ("by dictionary", "stated")]
    encodings = {"row_id": "DELTA_BINARY_PACKED", "score": "PLAIN"}
    storage.write_parquet(uris[0], table())
    storage.write_parquet(uris[1], table(), encodings=encodings)
    sizes = [storage.size(uri) for uri in uris]
    assert sizes[1] < 0.7 * sizes[0]
    with storage.open_parquet(uris[1]) as file:
        assert file.read().equals(table())
        columns = [file.metadata.row_group(0).column(number) for number in range(2)]
    for column in columns:
        assert encodings[column.path_in_schema] in column.encodings
        assert "RLE_DICTIONARY" not in column.encodings


def test_row_groups_come_back(folder: str) -> None:
    uri = storage.join(folder, "groups.parquet")
    groups = [table(10), table(3), table(7)]
    storage.write_parquet_groups(uri, groups[0].schema, iter(groups))
    with storage.open_parquet(uri) as file:
        assert [file.read_row_group(g) for g in range(file.num_row_groups)] == groups
    storage.write_parquet_groups(uri, groups[0].schema, [])
    assert read(uri).equals(groups[0].slice(0, 0))


def test_row_groups_that_break_off_are_no_table(folder: str) -> None:
    uri = storage.join(folder, "groups.parquet")

    def groups() -> Iterator[pa.Table]:
        yield table()
        raise RuntimeError

    with pytest.raises(RuntimeError):
        storage.write_parquet_groups(uri, table().schema, groups())
    with pytest.raises((FileNotFoundError, StorageError)):
        read(uri)


def test_the_same_content_has_the_same_digest(tmp_path: Path) -> None:
    digests = {storage.write_parquet(str(tmp_path / name), table()) for name in "ab"}
    digests |= {tensor_files.write(str(tmp_path / name), {"x": np.ones(3)}) for name in "ab"}
    assert len(digests) == 2


def test_folders_are_listed(folder: str) -> None:
    assert storage.list_files(folder) == []
    assert storage.list_folders(folder) == []
    assert storage.size(folder) == 0
    for name in ("b.parquet", "a.parquet", "a.json", "deep/c.parquet", "stage=1/d.parquet"):
        storage.write_bytes(storage.join(folder, name), b"12345")
    here = [storage.join(folder, name) for name in ("a.json", "a.parquet", "b.parquet")]
    assert storage.list_files(folder) == here
    assert storage.list_files(folder, ".parquet") == here[1:]
    assert storage.list_folders(folder) == ["deep", "stage=1"]
    assert storage.size(folder) == 25


@pytest.mark.parametrize("folder", ["path", *STORES], indirect=True)
def test_what_another_process_writes_is_seen(folder: str) -> None:
    mine, others = (storage.join(folder, name) for name in ("mine", "others"))
    storage.write_bytes(mine, b"12345")
    assert storage.list_files(folder) == [mine]
    program = f"from diet_ray import storage; storage.write_bytes({others!r}, b'123')"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60, cwd=ROOT)
    assert storage.list_files(folder) == [mine, others]
    assert storage.sizes(folder) == {"mine": 5, "others": 3}
    assert storage.read_bytes(others) == b"123"


def test_removing_a_file_a_folder_and_nothing(folder: str) -> None:
    one, other = storage.join(folder, "x", "one"), storage.join(folder, "y", "other")
    for uri in (one, other):
        storage.write_bytes(uri, b"content")
    storage.remove(one)
    assert not storage.exists(one)
    storage.remove(storage.join(folder, "y"))
    assert not storage.exists(other)
    storage.remove(storage.join(folder, "never"))


def test_a_fingerprint_tells_that_a_file_changed(folder: str) -> None:
    uri = storage.join(folder, "log.csv")
    storage.write_bytes(uri, b"a,b")
    first = storage.fingerprint(uri)
    assert storage.fingerprint(uri) == first
    storage.write_bytes(uri, b"a,b,c")
    assert storage.fingerprint(uri) != first
    with pytest.raises(FileNotFoundError, match="absent: no such file"):
        storage.fingerprint(storage.join(folder, "absent"))


@pytest.mark.parametrize("folder", ["path", "google", "azure"], indirect=True)
def test_a_fingerprint_is_not_of_the_size_alone(folder: str) -> None:
    """S3 tells times by the second: of two files of one size in a second it is the same."""
    uri = storage.join(folder, "log.csv")
    storage.write_bytes(uri, b"a,b")
    first = storage.fingerprint(uri)
    storage.write_bytes(uri, b"b,a")
    assert storage.fingerprint(uri) != first


@pytest.mark.parametrize("reader", [storage.read_bytes, storage.read_json, tensor_files.read])
def test_what_is_absent_is_not_called_damaged(folder: str, reader: Callable) -> None:
    with pytest.raises(FileNotFoundError, match="absent"):
        reader(storage.join(folder, "absent"))


def test_an_absent_table_is_not_called_damaged(folder: str) -> None:
    with pytest.raises(FileNotFoundError, match="absent"):
        read(storage.join(folder, "absent"))


def test_a_writable_place_is_left_as_it_was(folder: str) -> None:
    storage.check_writable(folder)
    assert storage.list_files(folder) == []


@pytest.mark.usefixtures("s3_endpoint")
def test_a_bucket_that_is_not_there() -> None:
    with pytest.raises(StorageError, match="s3://diet-ray-no-such-bucket/run: cannot be written"):
        storage.check_writable("s3://diet-ray-no-such-bucket/run")


def test_an_unknown_scheme_names_the_known_ones() -> None:
    with pytest.raises(StorageError, match=r"s4://bucket/x: .*use a path, file://, s3://, gs://"):
        storage.read_bytes("s4://bucket/x")


@pytest.mark.parametrize("uri", ["file:///tmp/plain", "file:///tmp/a b", "/tmp/größer", "x/y"])
def test_local_places_are_written_atomically(uri: str) -> None:
    assert isinstance(storage.filesystem(uri)[0], pafs.LocalFileSystem)


@pytest.mark.parametrize(
    ("base", "parts", "joined"),
    [
        ("s3://bucket/", ("a", "b.json"), "s3://bucket/a/b.json"),
        ("results", ("stage=1/", "/x"), "results/stage=1/x"),
        ("/", ("tmp",), "/tmp"),
    ],
)
def test_join(base: str, parts: tuple[str, ...], joined: str) -> None:
    assert storage.join(base, *parts) == joined


RELATIVE = [
    ("/data/run/reference/t=3", "/data/run/distilled/stage=3", "../../reference/t=3"),
    ("/data/shared/t=3", "/data/run/distilled/stage=3", "../../../shared/t=3"),
    ("/data/run/set/phi", "/data/run/set", "phi"),
    ("s3://bucket/run/reference", "s3://bucket/run/distilled", "../reference"),
    ("s3://bucket/reference", "s3://bucket/run/distilled", "../../reference"),
    ("file:///data/run/reference", "file:///data/run/distilled", "../reference"),
]
APART = [
    ("/data/reference", "/sets/stage=3"),
    ("s3://bucket/reference", "s3://another/stage=3"),
    ("gs://bucket/reference", "s3://bucket/stage=3"),
    ("s3://data/reference", "/data/stage=3"),
    ("/data/reference", "s3://data/stage=3"),
    ("file:///data/reference", "file:///sets/stage=3"),
]


@pytest.mark.parametrize(("uri", "folder", "name"), RELATIVE)
def test_a_place_is_named_from_another(uri: str, folder: str, name: str) -> None:
    assert storage.relative(uri, folder) == name
    assert storage.resolve(name, folder) == uri
    assert storage.resolve(name, f"{folder}/") == uri


@pytest.mark.parametrize(("uri", "folder"), APART)
def test_a_place_with_nothing_in_common_keeps_its_name(uri: str, folder: str) -> None:
    assert storage.relative(uri, folder) == uri
    assert storage.resolve(uri, folder) == uri


def test_places_of_the_working_folder_are_named_from_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The name holds in every other working folder, too."""
    monkeypatch.chdir(tmp_path)
    name = storage.relative("run/reference", "run/distilled")
    far = storage.relative("run/reference", "s3://bucket/distilled")
    assert name == "../reference"
    assert storage.resolve(name, "run/distilled") == str(tmp_path / "run/reference")
    monkeypatch.chdir("/")
    assert storage.resolve(name, str(tmp_path / "run/distilled")) == str(tmp_path / "run/reference")
    assert storage.resolve(far, "s3://bucket/distilled") == str(tmp_path / "run/reference")


def test_places_that_are_moved_together_find_each_other(folder: str) -> None:
    """On every filesystem."""
    places = [storage.join(folder, *parts) for parts in (("phi", "t=3"), ("sets", "stage=3"))]
    name = storage.relative(*places)
    assert "://" not in name
    moved = storage.join(folder, "elsewhere")
    storage.write_bytes(storage.join(moved, "phi", "t=3"), b"phi")
    assert storage.read_bytes(storage.resolve(name, storage.join(moved, "sets/stage=3"))) == b"phi"


@pytest.mark.parametrize("kept", [0, 3, 0.5, -1])
def test_a_truncated_table_is_named_with_the_remedy(tmp_path: Path, kept: float) -> None:
    path = tmp_path / "part.parquet"
    storage.write_parquet(str(path), table())
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole)) if kept == 0.5 else int(kept)])
    with pytest.raises(StorageError, match=r"part\.parquet: not a whole .* remove it and run"):
        read(str(path))


@pytest.mark.parametrize("place", ["pages", "footer"])
def test_a_damaged_table_is_named_with_the_remedy(tmp_path: Path, place: str) -> None:
    path = tmp_path / "part.parquet"
    storage.write_parquet(str(path), table(100_000))
    content = bytearray(path.read_bytes())
    damaged = slice(4, 3_000) if place == "pages" else slice(-300, -20)
    content[damaged] = b"\x55" * len(content[damaged])
    path.write_bytes(content)
    with pytest.raises(StorageError, match=r"part\.parquet: .*remove it and run again"):
        read(str(path))


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), StorageError("other")])
def test_an_error_of_the_reader_itself_is_not_blamed_on_the_table(
    tmp_path: Path, error: OSError
) -> None:
    uri = str(tmp_path / "part.parquet")
    storage.write_parquet(uri, table())
    with pytest.raises(type(error)) as caught, storage.open_parquet(uri):
        raise error
    assert caught.value is error


@pytest.mark.parametrize("content", [b"", b'{"a": 1', b"\xff\xfe\x00"])
def test_damaged_json_is_named_with_the_remedy(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "manifest.json"
    path.write_bytes(content)
    with pytest.raises(StorageError, match=r"manifest\.json: damaged JSON .* remove it"):
        storage.read_json(str(path))


MEGABYTES = 48
WRITER = f"""
import sys
from diet_ray import storage
print("ready", flush=True)
sys.stdin.readline()
storage.write_bytes(sys.argv[1], sys.argv[2].encode() * ({MEGABYTES} * 1_000_000))
"""


def start_python(code: str, *arguments: str, under: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    command = [*under, sys.executable, "-c", textwrap.dedent(code), *arguments]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, stderr=pipe, text=True)


def partials(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if ".partial-" in path.name]


def kill_half_way(target: Path, letter: str) -> bool:
    """Start a writer and kill it when part of its file is on disk; whether that came in time."""
    before = set(partials(target.parent))
    with start_python(WRITER, str(target), letter) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
        assert writer.stdin is not None
        writer.stdin.write("\n")
        writer.stdin.flush()
        while writer.poll() is None:
            if any(path not in before and path.stat().st_size for path in partials(target.parent)):
                break
        writer.send_signal(signal.SIGKILL)
    return len(set(partials(target.parent)) - before) > 0


def test_a_writer_killed_half_way_leaves_what_was_there(tmp_path: Path) -> None:
    target = tmp_path / "phi.bin"
    for _ in range(10):
        storage.write_bytes(str(target), b"old")
        if kill_half_way(target, "n"):
            break
    else:
        pytest.fail("no writer could be killed half way")
    assert target.read_bytes() == b"old"
    assert storage.list_files(str(tmp_path)) == [str(target)]
    storage.write_bytes(str(target), b"new")
    assert target.read_bytes() == b"new"


def test_a_reader_sees_one_whole_file_or_the_other(tmp_path: Path) -> None:
    uri = str(tmp_path / "state.bin")
    size = 4_000_000
    storage.write_bytes(uri, b"a" * size)
    writing = threading.Event()

    def write() -> None:
        for turn in range(30):
            storage.write_bytes(uri, b"ab"[turn % 2 : turn % 2 + 1] * size)
        writing.set()

    writer = threading.Thread(target=write)
    writer.start()
    seen = set()
    until = time.monotonic() + 60
    while not writing.is_set() and time.monotonic() < until:
        content = storage.read_bytes(uri)
        assert len(content) == size
        seen.add(content.count(b"a"))
    writer.join()
    assert seen <= {0, size}


def in_small_filesystem(tmp_path: Path, options: str, code: str) -> subprocess.CompletedProcess:
    """Run code while `tmp_path` is a filesystem of 64 kB that only this process sees."""
    mount = f'mount -t tmpfs -o size=64k none {tmp_path} && {options} exec "$@"'
    command = ["unshare", "-Urm", "sh", "-c", mount, "sh"]
    try:
        probe = subprocess.run([*command, "true"], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("no unshare on this machine")
    if probe.returncode:
        pytest.skip(f"no filesystem can be mounted here: {probe.stderr.strip()}")
    program = [*command, sys.executable, "-c", textwrap.dedent(code), str(tmp_path)]
    return subprocess.run(program, cwd=ROOT, capture_output=True, text=True, check=False)


def test_no_space_is_told_and_leaves_nothing_behind(tmp_path: Path) -> None:
    code = """
        import os, sys
        from diet_ray import storage
        folder = sys.argv[1]
        storage.write_bytes(f"{folder}/small", b"x" * 1000)
        try:
            storage.write_bytes(f"{folder}/small", b"y" * 1_000_000)
        except storage.StorageError as error:
            print(error)
        print(os.listdir(folder), storage.read_bytes(f"{folder}/small") == b"x" * 1000)
    """
    done = in_small_filesystem(tmp_path, "", code)
    told = f"{tmp_path}/small: no space left to write; free some or set another output"
    assert done.stdout.splitlines() == [told, "['small'] True"], done.stderr


def test_a_place_that_must_not_be_written_is_told(tmp_path: Path) -> None:
    code = """
        import sys
        from diet_ray import storage
        try:
            storage.check_writable(sys.argv[1])
        except storage.StorageError as error:
            print(error)
    """
    done = in_small_filesystem(tmp_path, f"mount -o remount,ro {tmp_path} &&", code)
    assert "not allowed to write; check its permissions or set output" in done.stdout, done.stderr


@pytest.mark.usefixtures("s3_endpoint")
def test_what_ray_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A URI where pyarrow knows it; else Ray gets the filesystem, which travels to its workers."""
    monkeypatch.chdir(tmp_path)
    assert storage.known_to_ray("runs") == {"storage_path": str(tmp_path / "runs")}
    assert storage.known_to_ray("s3://bucket/a") == {"storage_path": "s3://bucket/a"}
    told = storage.known_to_ray("memory://a/b")
    assert told["storage_path"] == "/a/b"
    storage.write_bytes("memory://a/b/file", b"content")
    travelled = pickle.loads(pickle.dumps(told["storage_filesystem"]))  # noqa: S301 - as Ray does
    assert travelled.open_input_file("/a/b/file").read() == b"content"
