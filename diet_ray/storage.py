"""Files on any filesystem, whole or absent.

Protocol: every path of a run may be a local path, ``file://``, ``s3://``, ``gs://`` or any scheme
that fsspec knows. A file is published whole or not at all: local files are written beside their
place and renamed, objects appear when their upload ends. Something that consists of several
files is published data first, manifest last, so a reader that starts at the manifest sees all of
it or none. `filesystems` finds the client of a URI, which retries transient failures.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from diet_ray import filesystems
from diet_ray.errors import StorageError

AGAIN = "remove it and run again"
"""The remedy for a file that is made anew where it is missing. Whoever reads another one, above
all a raw file of the user's, names another."""

GOOGLE = "gcs"
"""Name of pyarrow's filesystem for ``gs://``. Of a folder that only names of objects make, without
an object that stands for it, it lists nothing, and misses it when all in it is removed."""

SETTLE_SECONDS = 1.0
"""Longer than one write of a small file takes, from the look whether there is one to its end."""


def join(base: str, *parts: str) -> str:
    """`base` (any URI) with path parts appended."""
    return "/".join([base.rstrip("/"), *(part.strip("/") for part in parts)])


def absolute(uri: str) -> str:
    """The same place, independent of the process's working folder."""
    return uri if "://" in uri else os.path.abspath(uri)


def relative(uri: str, folder: str) -> str:
    """How to name `uri` from `folder`, so that both can be moved together; the absolute `uri` if
    they have no folder (or bucket) in common but the root."""
    (scheme, path), (other, base) = (_split(absolute(name)) for name in (uri, folder))
    shared = os.path.commonpath([path, base]) if scheme == other else ""
    return os.path.relpath(path, base) if shared.strip("/") else absolute(uri)


def resolve(name: str, folder: str) -> str:
    """What `relative` named `name` from `folder`."""
    if "://" in name or os.path.isabs(name):
        return name
    scheme, base = _split(absolute(folder))
    return scheme + os.path.normpath(os.path.join(base, name))


def _split(uri: str) -> tuple[str, str]:
    """`s3://` and the like, empty for a path; the rest."""
    scheme, separator, path = uri.rpartition("://")
    return scheme + separator, path


def filesystem(uri: str) -> tuple[pafs.FileSystem, str]:
    """The filesystem of a URI and the path within it. Raises StorageError for a bad URI."""
    return filesystems.find(uri)


def local_path(uri: str) -> str | None:
    """The path on this machine, for libraries that know no other; None for a place elsewhere."""
    found, path = filesystem(uri)
    return path if isinstance(found, pafs.LocalFileSystem) else None


def known_to_ray(uri: str) -> dict[str, Any]:
    """A place in the words of Ray Train and Tune: `storage_path`, and `storage_filesystem` for a
    store of fsspec's, whose URI pyarrow does not know."""
    fs, path = filesystem(uri)
    if _fsspec(fs) is not None:
        return {"storage_path": path, "storage_filesystem": fs}
    return {"storage_path": absolute(uri)}


def _fsspec(fs: pafs.FileSystem) -> Any:
    """fsspec's own filesystem, of a store of fsspec's; None of any other."""
    is_one = isinstance(fs, pafs.PyFileSystem) and isinstance(fs.handler, filesystems.Fsspec)
    return fs.handler.fs if is_one else None


def exists(uri: str) -> bool:
    """Whether a file or folder is there."""
    fs, path = filesystem(uri)
    return fs.get_file_info(path).type != pafs.FileType.NotFound


def is_file(uri: str) -> bool:
    """Whether a file is there, and not a folder."""
    fs, path = filesystem(uri)
    return fs.get_file_info(path).type == pafs.FileType.File


def list_files(uri: str, suffix: str = "") -> list[str]:
    """URIs of the files directly below a folder, sorted; empty if the folder is absent."""
    infos = _entries(uri)
    names = (i.base_name for i in infos if i.type == pafs.FileType.File)
    return [join(uri, n) for n in sorted(names) if n.endswith(suffix) and ".partial-" not in n]


def list_folders(uri: str) -> list[str]:
    """Names of the folders directly below a folder, sorted; empty if the folder is absent."""
    names = {i.base_name for i in _entries(uri) if i.type == pafs.FileType.Directory}
    fs, path = filesystem(uri)
    if fs.type_name == GOOGLE:
        below = fs.get_file_info(pafs.FileSelector(path, allow_not_found=True, recursive=True))
        places = (i.path.removeprefix(f"{path}/").split("/") for i in below)
        names |= {place[0] for place in places if len(place) > 1}
    return sorted(names)


def _entries(uri: str) -> list[pafs.FileInfo]:
    """What lies directly below a folder. Raises StorageError for a file in its place."""
    fs, path = filesystem(uri)
    try:
        found: list[pafs.FileInfo] = fs.get_file_info(pafs.FileSelector(path, allow_not_found=True))
    except NotADirectoryError:
        raise StorageError(f"{uri}: a file; name the folder that it lies in") from None
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise StorageError(f"{uri}: too long a name for a file; name another") from None
        raise
    return found


def size(uri: str) -> int:
    """Bytes of a file, or of all files below a folder; 0 if absent."""
    fs, path = filesystem(uri)
    info = fs.get_file_info(path)
    if info.type == pafs.FileType.File:
        return info.size
    selector = pafs.FileSelector(path, allow_not_found=True, recursive=True)
    return sum(i.size for i in fs.get_file_info(selector) if i.type == pafs.FileType.File)


def sizes(uri: str) -> dict[str, int]:
    """Name to bytes of the files directly below a folder; empty if it is absent."""
    return {i.base_name: i.size for i in _entries(uri) if i.type == pafs.FileType.File}


def fingerprint(uri: str) -> str:
    """Identity of a file's content as far as its filesystem tells: size, and time of change or all
    that an fsspec store says of it."""
    fs, path = filesystem(uri)
    info = fs.get_file_info(path)
    if info.type != pafs.FileType.File:
        raise FileNotFoundError(f"{uri}: no such file")
    changed, remote = info.mtime_ns, _fsspec(fs)
    if changed is None and remote is not None:
        changed = remote.ukey(path)
    return f"{info.size}-{changed}"


def remove(uri: str) -> None:
    """Delete a file or a folder with all it holds; nothing happens if it is absent."""
    fs, path = filesystem(uri)
    kind = fs.get_file_info(path).type
    if kind == pafs.FileType.Directory:
        missed = (FileNotFoundError,) if fs.type_name == GOOGLE else ()
        with contextlib.suppress(*missed):
            fs.delete_dir(path)
    elif kind == pafs.FileType.File:
        fs.delete_file(path)


def read_bytes(uri: str) -> bytes:
    """A file's content. Raises FileNotFoundError."""
    with _opened(uri) as stream:
        return stream.read()


def _opened(uri: str) -> pa.NativeFile:
    """A file for reading. Raises FileNotFoundError, which names it whatever the store says."""
    fs, path = filesystem(uri)
    try:
        return fs.open_input_file(path)
    except FileNotFoundError:
        raise FileNotFoundError(f"{uri}: no such file") from None


def read_json(uri: str, remedy: str = AGAIN) -> Any:
    """A JSON file's content. Raises StorageError, which ends in `remedy`, if it is damaged."""
    try:
        return json.loads(read_bytes(uri))
    except (ValueError, RecursionError) as error:
        raise StorageError(f"{uri}: damaged JSON ({error}); {remedy}") from None


@contextmanager
def open_parquet(uri: str, remedy: str = AGAIN) -> Iterator[pq.ParquetFile]:
    """A Parquet file for reading; pages that have a checksum are held to it. Raises StorageError,
    which ends in `remedy`, if it is truncated or damaged."""
    try:
        with _opened(uri) as stream, _parquet_file(stream) as file:
            yield file
    except pa.ArrowException as error:
        raise StorageError(f"{uri}: not a whole Parquet file ({error}); {remedy}") from None
    except OSError as error:
        if isinstance(error, StorageError | FileNotFoundError) or error.errno:
            raise
        told = " ".join(str(error).split())
        raise StorageError(f"{uri}: cannot be read ({told}); if it is damaged, {remedy}") from error


def _parquet_file(stream: pa.NativeFile) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(stream, pre_buffer=True, page_checksum_verification=True)
    except UnicodeDecodeError as error:  # pyarrow takes a footer's names for text
        raise pa.ArrowInvalid(f"a column's name is no text: {error}") from None


def _explain(error: OSError, uri: str) -> OSError:
    text = str(error)
    if error.errno in (errno.ENOSPC, errno.EDQUOT) or "No space left" in text:
        return StorageError(f"{uri}: no space left to write; free some or set another output")
    if error.errno == errno.EFBIG:
        return StorageError(
            f"{uri}: larger than files may be; raise ulimit -f or set another output"
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS) or "ACCESS_DENIED" in text:
        return StorageError(f"{uri}: not allowed to write; check its permissions or set output")
    return error


def write_bytes(uri: str, content: bytes | memoryview) -> str:
    """Publish a file, whole or not at all; returns the SHA-256 of its content.

    Raises StorageError if there is no space or no permission to write.
    """
    fs, path = filesystem(uri)
    if isinstance(fs, pafs.PyFileSystem) and isinstance(fs.handler, filesystems.Persistent):
        with _explained(uri):
            fs.handler.put(path, content)
    else:
        with _published(uri) as stream:
            stream.write(content)
    return hashlib.sha256(content).hexdigest()


@contextmanager
def _published(uri: str) -> Iterator[Any]:
    """A stream whose content appears at `uri` when the block ends."""
    fs, path = filesystem(uri)
    local = isinstance(fs, pafs.LocalFileSystem)
    with (
        _explained(uri),
        _written_beside(path) if local else fs.open_output_stream(path) as stream,
    ):
        yield stream


@contextmanager
def _explained(uri: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _explain(error, uri) from error


@contextmanager
def _written_beside(path: str) -> Iterator[Any]:
    partial = f"{path}.partial-{uuid.uuid4().hex}"
    os.makedirs(os.path.dirname(path), exist_ok=True)
    try:
        with open(partial, "wb") as stream:
            yield stream
            _to_disk(stream)
        os.replace(partial, path)
        _folder_to_disk(os.path.dirname(path))
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(partial)
        raise


def _to_disk(stream: BinaryIO) -> None:
    """After a loss of power the file must not be there with less than its content."""
    stream.flush()
    os.fsync(stream.fileno())


def _folder_to_disk(folder: str) -> None:
    """The names in a folder: what was published stays published, in the order it was."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def create(uri: str, content: bytes) -> bool:
    """Write a small file where there is none; False if there is one.

    Of several processes that try at once, one succeeds: on local files and those of fsspec (as far
    as its implementation has conditional writes; s3fs, gcsfs and adlfs do) for certain. pyarrow's
    own stores (``s3://``, ``gs://``) know no condition: there as `replace_alone` does.
    """
    fs, path = filesystem(uri)
    try:
        if isinstance(fs, pafs.LocalFileSystem):
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "xb") as stream:
                stream.write(content)
                _to_disk(stream)
            _folder_to_disk(os.path.dirname(path))
            return True
        remote = _fsspec(fs)
        if remote is not None:
            remote.pipe_file(path, content, mode="create")
            return True
    except FileExistsError:
        return False
    return not exists(uri) and replace_alone(uri, content)


def replace_alone(uri: str, content: bytes) -> bool:
    """Write a small file; whether it still holds `content`, which no other writes, a moment later.

    Of several processes that do so within that moment, the last one succeeds. One that takes longer
    to write replaces the file of another that believes that it has succeeded.
    """
    write_bytes(uri, content)
    time.sleep(SETTLE_SECONDS)
    return read_bytes(uri) == content


def write_json(uri: str, content: Any) -> str:
    """Publish a JSON file with sorted keys; returns the SHA-256 of its bytes."""
    return write_bytes(uri, (json.dumps(content, indent=1, sort_keys=True) + "\n").encode())


def write_parquet(
    uri: str,
    table: pa.Table,
    row_group_rows: int | None = None,
    encodings: Mapping[str, str] | None = None,
) -> str:
    """Publish a Parquet file (zstd, a checksum in each page); returns the SHA-256 of its bytes.

    encodings: column -> Parquet encoding, of columns in which hardly any value comes twice; a
    dictionary is tried for every other.
    """
    encodings = dict(encodings or {})
    sink = pa.BufferOutputStream()
    pq.write_table(
        table,
        sink,
        row_group_size=row_group_rows,
        compression="zstd",
        write_page_checksum=True,
        use_dictionary=[name for name in table.column_names if name not in encodings],
        column_encoding=encodings,
    )
    return write_bytes(uri, memoryview(sink.getvalue()))


def write_parquet_groups(uri: str, schema: pa.Schema, groups: Iterable[pa.Table]) -> None:
    """Publish a Parquet file as `write_parquet` does, with these row groups, held one at a time.

    If they break off, a local file does not appear, and an object has no end: `open_parquet`
    refuses it. Raises StorageError as `write_bytes` does.
    """
    with _published(uri) as stream:
        writer = pq.ParquetWriter(stream, schema, compression="zstd", write_page_checksum=True)
        try:
            for group in groups:
                writer.write_table(group, row_group_size=max(1, group.num_rows))
        except BaseException:
            writer.is_open = False  # else it writes the end that makes a file whole
            raise
        writer.close()


def check_writable(uri: str) -> None:
    """Publish and remove a small file. Raises StorageError naming the remedy."""
    probe = join(uri, f".write-check-{uuid.uuid4().hex}")
    try:
        write_bytes(probe, b"ok")
        remove(probe)
    except OSError as error:
        if isinstance(error, StorageError):
            raise
        raise StorageError(f"{uri}: cannot be written ({error}); check output") from error
