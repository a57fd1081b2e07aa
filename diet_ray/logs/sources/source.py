"""What a source of raw logs is.

Protocol: a source is opened once, in the driver, where it checks its files and columns and raises
:class:`LogsError` for anything that cannot work. It is then pickled into tasks. There
:meth:`Source.read` streams one part as :class:`RawBatch` es, never holding more than one of them.
A source parses, it does not judge: what cannot be parsed is null, and `cleaning.py` decides.
"""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import pyarrow as pa

from diet_ray import storage
from diet_ray.errors import UserError
from diet_ray.logs.blocks import ROW_ID, TIME_MS

ROW, PART = "_row", "_part"
RAW_REMEDY = "replace it by a whole copy, or leave it out of logs.path"
"""For a damaged file of the user's, of which there may be no other."""
RESERVED = (ROW_ID, TIME_MS, ROW, PART)


class LogsError(UserError, ValueError):
    """Raw logs that cannot be used; the message names file, column, value and remedy."""


@dataclass(frozen=True)
class Part:
    """A piece of a log that one task reads: all of the file `name`, or some of its rows."""

    name: str
    first: int = 0
    rows: int | None = None  # rows `first`.. of a Parquet file; None: to its end
    row_groups: tuple[int, ...] = ()  # of a Parquet file
    first_byte: int = 0
    end_byte: int | None = None  # lines of a CSV file that begin in this range; None: to its end

    @property
    def place(self) -> str:
        """Where its rows are counted from, for people."""
        return f"{self.name} from byte {self.first_byte} on" if self.first_byte else self.name


@dataclass(frozen=True)
class BadRow:
    """A row that cannot be used; `row` counts from 0 in its file, or in its part of a CSV
    file (no header, no blank lines)."""

    row: int
    reason: str
    raw: str  # the row as it stands in the source, as JSON


@dataclass(frozen=True)
class RawBatch:
    """Some rows of a part, in their order.

    rows: `_row` int64, `time_ms` int64, one string column per field, one float64 column per task;
    null where the source has nothing that can be parsed. raw: the same rows as the source holds
    them. malformed: rows between them that are not even a row of the table.
    """

    rows: pa.Table
    raw: pa.Table
    malformed: tuple[BadRow, ...] = ()


class Source(Protocol):
    """A raw log. `fields` and `tasks` are in the order in which blocks hold them."""

    fields: tuple[str, ...]
    tasks: tuple[str, ...]

    def parts(self) -> list[Part]:
        """The log in pieces, in a fixed order."""

    def load_shared(self) -> Any:
        """What every read needs and no part holds; loaded once, handed to all reads."""

    def read(self, part: Part, shared: Any) -> Iterator[RawBatch]:
        """Stream one part. Raises LogsError for a damaged file."""

    def fingerprint(self) -> str:
        """Changes when the log does."""

    def source_bytes(self) -> int:
        """Bytes of the raw log; 0 where rows are generated."""


def raw_file(folder: str, name: str, download: str) -> str:
    """URI of a data set's file below `logs.path`. Raises LogsError if it is not there."""
    uri = storage.join(folder, name)
    if not storage.exists(uri):
        raise LogsError(
            f"{uri}: no such file; download it from {download} and set logs.path to its folder"
        )
    return uri


def fingerprint_of(files: Iterable[str], names: Iterable[str] | None = None) -> str:
    """Changes when one of these files does, or its name; by default the last part of its URI."""
    files = list(files)
    names = [uri.rpartition("/")[2] for uri in files] if names is None else names
    digest = hashlib.blake2b(digest_size=16)
    for name, uri in zip(names, files, strict=True):
        digest.update(f"{name} {storage.fingerprint(uri)}\n".encode())
    return digest.hexdigest()


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of an error message about an unknown name."""
    names = list(known)
    close = difflib.get_close_matches(name, names, n=1)
    return f"did you mean {close[0]!r}?" if close else f"known here: {', '.join(names)}"


def choose(key: str, wanted: list[str] | None, offered: Iterable[str]) -> tuple[str, ...]:
    """The names under the configuration key `key`, each of them offered; by default all."""
    names = list(offered)
    for name in wanted or ():
        if name not in names:
            raise LogsError(f"{key}: no {name!r} in this source; {nearest(name, names)}")
    return tuple(names if wanted is None else wanted)


def check_names(fields: tuple[str, ...], tasks: tuple[str, ...]) -> None:
    """Refuse names that cannot be columns of a block. Raises LogsError."""
    if not fields or not tasks:
        raise LogsError("logs.fields and logs.tasks: at least one field and one task are needed")
    names = [*fields, *tasks]
    for name in names:
        if name in RESERVED:
            raise LogsError(f"{name!r} cannot be a field or task: blocks use that name themselves")
        if names.count(name) > 1:
            raise LogsError(f"{name!r} is named twice among logs.fields and logs.tasks")
        if "/" in name or "\\" in name:
            raise LogsError(f"{name!r} cannot be a field or task: rename the column without slash")
