"""Which filesystem a URI names, and one client per process for each bucket.

Protocol: `find` turns a URI into a pyarrow filesystem and the path in it. Options and credentials
come from the environment and the platform's chain, never from the URI, which ends up in manifests
and logs. pyarrow's S3 client is made to fail at once and is asked again by `retries`, which counts;
those of other stores (``gs://``, ``abfs://``, fsspec's) retry by themselves.
"""

from __future__ import annotations

import io
import os
import string
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, Literal, TypeVar
from urllib.parse import SplitResult, quote, unquote, urlsplit

import fsspec
import pyarrow as pa
import pyarrow.fs as pafs

from diet_ray import telemetry
from diet_ray.errors import StorageError
from diet_ray.retries import persistently

T = TypeVar("T")

REQUEST_SECONDS = 15.0
"""A request that brings nothing for so long has stalled and is sent again; some seconds later if
something came before, since libcurl looks at a mean."""
CONNECT_SECONDS = 5.0
STREAM_ATTEMPTS = 10
"""Of each request of an upload in several parts, which only the client itself can send again."""
ONE_REQUEST_BYTES = 5_000_000
"""Content up to here is uploaded by a single request."""
DECIDING = ("AWS_", "GOOGLE_", "CLOUDSDK_", "CLOUD_STORAGE_", "HOME")
"""Beginnings of the environment's names that clients read."""
SMALL_FILE_BYTES = 1_000_000
"""A file up to here is read by a single request: a Parquet footer and its columns are several."""
ANONYMOUS = "anonymous"
BUCKETS = ("s3", "gs")
"""Schemes of pyarrow whose URI is a bucket and a name in it."""
AZURE = ("abfs", "abfss")
LOCAL = pafs.LocalFileSystem()


def find(uri: str) -> tuple[pafs.FileSystem, str]:
    """The filesystem of a URI and the path within it. Raises StorageError for a bad URI."""
    if "\0" in uri:
        raise StorageError(f"{uri!r}: a name holds no NUL character; name another")
    scheme, separator, _ = uri.partition("://")
    if not separator:
        return LOCAL, os.path.abspath(uri)
    quoted = quote(uri, safe=string.punctuation)
    try:
        parts = urlsplit(quoted)
        if scheme in (*BUCKETS, *AZURE):
            _refuse_secrets(scheme, parts)
            _refuse_options(uri, parts.query)
        if scheme in BUCKETS:
            place = f"{scheme}://{parts.netloc}"
            bucket = parts.netloc.rpartition("@")[2]
            return _client(place, _environment()), unquote(bucket + parts.path).rstrip("/")
        return pafs.FileSystem.from_uri(quoted)
    except (pa.ArrowInvalid, ValueError) as error:
        if scheme not in fsspec.available_protocols() or scheme in BUCKETS:
            raise StorageError(
                f"{uri}: {error}; use a path, file://, s3://, gs:// or a scheme that fsspec knows"
            ) from None
    try:
        # a listing that is kept would hide what other processes write
        remote, path = fsspec.core.url_to_fs(uri, use_listings_cache=False)
    except ImportError as error:
        raise StorageError(f"{uri}: {error}; see the table of stores in README.md") from None
    return pafs.PyFileSystem(Fsspec(remote)), path


def _refuse_secrets(scheme: str, parts: SplitResult) -> None:
    user = parts.username if scheme in BUCKETS else None  # Azure's container stands there
    if parts.password is not None or user not in (None, ANONYMOUS):
        raise StorageError(
            f"{scheme}://...@{parts.hostname}: a URI must hold no credentials, for it ends up in "
            f"manifests and logs; set them in the environment, or write {ANONYMOUS}@ for none"
        )


def _refuse_options(uri: str, query: str) -> None:
    if query:
        raise StorageError(
            f"{uri}: a URI has no place for options such as ?{query.partition('=')[0]}=, for names "
            "are appended to it; set them in the environment (AWS_ENDPOINT_URL, AWS_REGION, ..)"
        )


def _environment() -> tuple[tuple[str, str], ...]:
    found = ((name, value) for name, value in os.environ.items() if name.startswith(DECIDING))
    return tuple(sorted(found))


@lru_cache(maxsize=32)
def _client(place: str, _environment: tuple[tuple[str, str], ...]) -> pafs.FileSystem:
    """The client of a bucket, which reads the environment by itself when it is made."""
    scheme, _, bucket = place.partition("://")
    _, at, name = bucket.rpartition("@")
    if scheme != "s3":
        return pafs.FileSystem.from_uri(place)[0]
    plain, _ = persistently(partial(pafs.S3FileSystem.from_uri, f"s3://{name}"), place)
    # What from_uri found out (endpoint, region) is only in the arguments of the copy that pickle
    # would make, and only a constructor takes the rest.
    _, (options,) = plain.__reduce__()
    options |= {
        "anonymous": bool(at),
        "allow_delayed_open": True,  # else a small file takes three requests
        "request_timeout": REQUEST_SECONDS,
        "connect_timeout": CONNECT_SECONDS,
    }
    once, patient = (
        pafs.S3FileSystem(**options, retry_strategy=pafs.AwsStandardS3RetryStrategy(attempts))
        for attempts in (1, STREAM_ATTEMPTS)
    )
    return pafs.PyFileSystem(Persistent(once, patient))


class Persistent(pafs.FileSystemHandler):
    """A store whose transient failures are retried: reading, listing, removing, and writing what
    is held whole by us (`retries`); a stream's parts by the client itself.

    once: gives up at the first failure; patient: retries each request.
    """

    def __init__(self, once: pafs.FileSystem, patient: pafs.FileSystem) -> None:
        self._once, self._patient = once, patient

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Persistent) and bool(self._once == other._once)

    __hash__ = None  # type: ignore[assignment]

    def put(self, path: str, content: bytes | memoryview) -> None:
        """Write a whole file."""
        small = memoryview(content).nbytes <= ONE_REQUEST_BYTES
        store = self._once if small else self._patient

        def write() -> None:
            with store.open_output_stream(path) as stream:
                stream.write(content)

        _ask("write", write, path)

    def get_type_name(self) -> str:
        return str(self._once.type_name)

    def normalize_path(self, path: str) -> str:
        return str(self._once.normalize_path(path))

    def get_file_info(self, paths: list[str]) -> list[pafs.FileInfo]:
        return _ask("look", partial(self._once.get_file_info, paths), ", ".join(paths))

    def get_file_info_selector(self, selector: pafs.FileSelector) -> list[pafs.FileInfo]:
        return _ask("list", partial(self._once.get_file_info, selector), selector.base_dir)

    def create_dir(self, path: str, recursive: bool) -> None:
        _ask("write", partial(self._once.create_dir, path, recursive=recursive), path)

    def delete_dir(self, path: str) -> None:
        _ask("remove", _gone(partial(self._once.delete_dir, path)), path)

    def delete_dir_contents(self, path: str, missing_dir_ok: bool = False) -> None:
        delete = partial(self._once.delete_dir_contents, path, missing_dir_ok=missing_dir_ok)
        _ask("remove", _gone(delete), path)

    def delete_root_dir_contents(self) -> None:
        raise NotImplementedError("a whole bucket is never emptied")

    def delete_file(self, path: str) -> None:
        _ask("remove", _gone(partial(self._once.delete_file, path)), path)

    def move(self, src: str, dest: str) -> None:
        raise NotImplementedError("an object cannot be renamed")

    def copy_file(self, src: str, dest: str) -> None:
        _ask("write", partial(self._once.copy_file, src, dest), dest)

    def open_input_stream(self, path: str) -> pa.NativeFile:
        return self.open_input_file(path)

    def open_input_file(self, path: str) -> pa.NativeFile:
        opened = _ask("look", partial(self._once.open_input_file, path), path)
        return pa.PythonFile(_Reading(opened, path), mode="r")

    def open_output_stream(self, path: str, metadata: Any) -> pa.NativeFile:
        telemetry.STORE_CALLS.add(1, kind="write")
        return self._patient.open_output_stream(path, metadata=metadata)

    def open_append_stream(self, path: str, metadata: Any) -> pa.NativeFile:
        raise NotImplementedError("an object cannot be appended to")


class Fsspec(pafs.FSSpecHandler):
    """A store of fsspec's. pyarrow lists one folder by `find` with a greatest depth, which adlfs
    does not know: it tells of all that lies deeper, too."""

    def get_file_info_selector(self, selector: pafs.FileSelector) -> list[pafs.FileInfo]:
        folder = selector.base_dir.rstrip("/")
        if selector.recursive or not self.fs.isdir(folder):
            found: list[pafs.FileInfo] = super().get_file_info_selector(selector)
            return found
        entries = {entry["name"].rstrip("/"): entry for entry in self.fs.ls(folder, detail=True)}
        return [self._create_file_info(n, e) for n, e in entries.items() if n != folder]


Kind = Literal["look", "list", "read", "write", "remove"]


def _ask(kind: Kind, call: Callable[[], T], place: str) -> T:
    """`persistently`, with every call counted."""

    def counted() -> T:
        telemetry.STORE_CALLS.add(1, kind=kind)
        return call()

    return persistently(counted, place)


def _gone(delete: Callable[[], None]) -> Callable[[], None]:
    """`delete` for being called again: what is absent then was deleted by a call whose answer was
    lost."""
    called = False

    def again() -> None:
        nonlocal called
        first, called = not called, True
        try:
            delete()
        except FileNotFoundError:
            if first:
                raise

    return again


class _Reading(io.RawIOBase):
    """A remote file, each read of which is retried."""

    def __init__(self, file: pa.NativeFile, path: str) -> None:
        self._file, self._path, self._size, self._at = file, path, file.size(), 0
        self._whole: bytes | None = None  # of a small file, once something was read

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        return self._at

    def read(self, count: int | None = -1) -> bytes:
        left = max(self._size - self._at, 0)
        wanted = left if count is None or count < 0 else min(count, left)
        if not wanted:
            return b""
        content = self._content(wanted, self._at)
        self._at += wanted
        return content

    def _content(self, count: int, start: int) -> bytes:
        if self._size > SMALL_FILE_BYTES:
            return _ask("read", partial(self._read, count, start), self._path)
        if self._whole is None:
            self._whole = _ask("read", partial(self._read, self._size, 0), self._path)
        return self._whole[start : start + count]

    def _read(self, count: int, start: int) -> bytes:
        content: bytes = self._file.read_at(count, start)
        if len(content) < count:
            raise ConnectionError(f"{len(content)} of {count} bytes came")
        return content

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()
