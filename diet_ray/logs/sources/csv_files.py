"""CSV files as streams of text columns, with the number of every row and the malformed ones.

A large file is read in parts, each a range of bytes: the lines that begin within it. So a value may
not hold a line break. A compressed file (by the end of its name, such as `.csv.gz`) has no such
ranges and is one part: several files are read side by side, one large one is not. Rows are numbered
within their part.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from lzma import LZMAError
from typing import Any
from zipfile import BadZipFile
from zlib import error as ZlibError

import fsspec.compression
import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv

from diet_ray import storage, telemetry
from diet_ray.logs.sources.source import BadRow, LogsError, Part
from diet_ray.logs.sources.table_files import compression_of

PART_BYTES = 64 << 20
BLOCK_BYTES = 4 << 20
SEEK_BYTES = 1 << 16
ARROW_COMPRESSIONS = ("gzip", "bz2", "zstd", "lz4")
NULLS = ["", "nan", "NaN", "null", "NULL", "\\N"]
WRONG_COLUMNS = "wrong number of columns"


def header(uri: str, delimiter: str = ",") -> list[str]:
    """Column names of a file, that is the values of its first line. Raises LogsError if empty."""
    with _readable(uri) as (file, _):
        line = b""
        while b"\n" not in line and (chunk := file.read(SEEK_BYTES)):
            line += chunk
            if len(line) > BLOCK_BYTES:
                raise LogsError(
                    f"{uri}: the first line does not end within {BLOCK_BYTES >> 20} MB, so it is "
                    "no CSV file with a header; replace it"
                )
        line = line[: line.find(b"\n") + 1] or line
        _check_encoding(uri, line)
        # Not `open_csv`: it reads ahead, and a process that ends meanwhile is aborted.
        one_thread = pacsv.ReadOptions(use_threads=False)
        return pacsv.read_csv(
            pa.BufferReader(line), one_thread, pacsv.ParseOptions(delimiter=delimiter)
        ).column_names


def _check_encoding(uri: str, line: bytes) -> None:
    if b"\0" in line:
        raise LogsError(
            f"{uri}: not text in UTF-8, but perhaps in UTF-16; save it as UTF-8, such as by "
            "iconv -f UTF-16 -t UTF-8"
        )
    try:
        line.decode()
    except UnicodeDecodeError as error:
        raise LogsError(
            f"{uri}: not text in UTF-8 ({error.reason} at byte {error.start}); save it so"
        ) from None


def parts(uri: str) -> list[Part]:
    """A file in ranges of `PART_BYTES`; a compressed one whole."""
    if compression_of(uri):
        return [Part(uri)]
    starts = list(range(0, max(storage.size(uri), 1), PART_BYTES))
    ends = [*starts[1:], None]
    return [Part(uri, first_byte=s, end_byte=e) for s, e in zip(starts, ends, strict=True)]


def read(
    part: Part,
    types: dict[str, pa.DataType],
    names: Sequence[str] | None = None,
    delimiter: str = ",",
) -> Iterator[tuple[pa.Table, list[BadRow]]]:
    """Stream the columns `types` of a part of a file, a few megabytes at a time.

    `names` are the columns of a file without header. Yields tables with `_row` int64 in front, and
    the malformed rows met on the way; missing values are null. Raises LogsError for a file that is
    no text, or is damaged.
    """
    uri = part.name
    if part.first_byte and names is None:
        names = header(uri, delimiter)
    malformed: list[BadRow] = []
    with _readable(uri) as (file, size):
        if compression_of(uri):
            stream, length = file, size
        else:
            start, end = _range(file, part)
            if start == end and names is not None:
                return
            stream, length = file.get_stream(start, end - start), end - start
        with _open(stream, types, names, delimiter, malformed) as reader:
            yield from _numbered(reader, malformed)
    telemetry.READ_BYTES.add(length, of="log")


@contextmanager
def _readable(uri: str) -> Iterator[tuple[Any, int]]:
    """The bytes of a file as they were before it was compressed, and how many it has now; what is
    no CSV is told so."""
    fs, path = storage.filesystem(uri)
    how = compression_of(uri)
    try:
        with fs.open_input_file(path) as file:
            if how is None:
                stream = file
            elif how in ARROW_COMPRESSIONS:
                stream = pa.CompressedInputStream(file, how)
            else:
                stream = pa.PythonFile(fsspec.compression.compr[how](file, mode="rb"), "r")
            yield stream, file.size()
    except (pa.ArrowException, EOFError, LZMAError, BadZipFile, ZlibError) as error:
        raise _unreadable(uri, error) from None
    except OSError as error:
        if error.errno or how is None:
            raise
        raise _unreadable(uri, error) from None  # pyarrow's word for damaged compression


def _unreadable(uri: str, error: Exception) -> LogsError:
    return LogsError(f"{uri}: not a readable CSV file with a header ({error}); replace it")


def _range(file: Any, part: Part) -> tuple[int, int]:
    """First and one-past-last byte of the lines that begin within a part."""
    start, end = _line_start(file, part.first_byte), file.size()
    return start, end if part.end_byte is None else _line_start(file, part.end_byte)


def _line_start(file: Any, at: int) -> int:
    """Where the first line begins that begins at byte `at` or later; the file's size if none."""
    if at == 0:
        return 0
    at -= 1  # a line begins at `at` if the byte before it ends one
    file.seek(at)
    while chunk := file.read(SEEK_BYTES):
        found = chunk.find(b"\n")
        if found >= 0:
            return at + found + 1
        at += len(chunk)
    return at


def _numbered(reader: Any, malformed: list[BadRow]) -> Iterator[tuple[pa.Table, list[BadRow]]]:
    at = 0
    for batch in reader:
        numbers = _row_numbers(at, batch.num_rows, malformed)
        at = int(numbers[-1]) + 1 if len(numbers) else at
        passed = [bad for bad in malformed if bad.row < at]
        malformed[:] = [bad for bad in malformed if bad.row >= at]
        columns = {"_row": pa.array(numbers)}
        columns.update(zip(batch.schema.names, batch.columns, strict=True))
        yield pa.table(columns), passed
    if malformed or not at:
        yield pa.schema([("_row", pa.int64()), *reader.schema]).empty_table(), malformed


def _open(
    stream: Any,
    types: dict[str, pa.DataType],
    names: Sequence[str] | None,
    delimiter: str,
    malformed: list[BadRow],
) -> Any:
    first_row = 2 if names is None else 1  # as the parser counts lines: a header is the first

    def note(row: Any) -> str:
        raw = json.dumps({"text": row.text}, ensure_ascii=False)
        malformed.append(BadRow(row.number - first_row, WRONG_COLUMNS, raw))
        return "skip"

    return pacsv.open_csv(
        stream,
        # Rows are only numbered when one thread parses.
        read_options=pacsv.ReadOptions(
            use_threads=False, block_size=BLOCK_BYTES, column_names=names
        ),
        parse_options=pacsv.ParseOptions(delimiter=delimiter, invalid_row_handler=note),
        convert_options=pacsv.ConvertOptions(
            include_columns=list(types),
            column_types=types,
            null_values=NULLS,
            strings_can_be_null=True,
        ),
    )


def _row_numbers(at: int, count: int, malformed: list[BadRow]) -> np.ndarray:
    """Numbers of the next `count` whole rows, from `at` on, stepping over malformed ones."""
    numbers = np.arange(at, at + count + len(malformed))
    return numbers[~np.isin(numbers, [bad.row for bad in malformed])][:count]
