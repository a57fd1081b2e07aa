"""CSV files as streams of text columns, with the number of every row and the malformed ones.

A large file is read in parts, each a range of bytes: the lines that begin within it. So a value may
not hold a line break. Rows are numbered within their part.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv

from diet_ray import storage
from diet_ray.logs.sources.source import BadRow, LogsError, Part

PART_BYTES = 64 << 20
BLOCK_BYTES = 4 << 20
SEEK_BYTES = 1 << 16
NULLS = ["", "nan", "NaN", "null", "NULL", "\\N"]
WRONG_COLUMNS = "wrong number of columns"


def header(uri: str) -> list[str]:
    """Column names of a file, that is the values of its first line. Raises LogsError if empty."""
    fs, path = storage.filesystem(uri)
    try:
        with fs.open_input_file(path) as file:
            end = _line_start(file, 1)
            file.seek(0)
            line = file.read(end)
        # Not `open_csv`: it reads ahead, and a process that ends meanwhile is aborted.
        one_thread = pacsv.ReadOptions(use_threads=False)
        return pacsv.read_csv(pa.BufferReader(line), one_thread).column_names
    except pa.ArrowInvalid as error:
        raise LogsError(f"{uri}: not a CSV file with a header ({error}); replace it") from None


def parts(uri: str) -> list[Part]:
    """A file in ranges of `PART_BYTES`."""
    starts = list(range(0, max(storage.size(uri), 1), PART_BYTES))
    ends = [*starts[1:], None]
    return [Part(uri, first_byte=s, end_byte=e) for s, e in zip(starts, ends, strict=True)]


def read(
    part: Part, types: dict[str, pa.DataType], names: Sequence[str] | None = None
) -> Iterator[tuple[pa.Table, list[BadRow]]]:
    """Stream the columns `types` of a part of a file, a few megabytes at a time.

    `names` are the columns of a file without header. Yields tables with `_row` int64 in front, and
    the malformed rows met on the way; missing values are null. Raises LogsError for a file that is
    no text.
    """
    uri = part.name
    fs, path = storage.filesystem(uri)
    if part.first_byte and names is None:
        names = header(uri)
    malformed: list[BadRow] = []
    try:
        with fs.open_input_file(path) as file:
            start, end = _line_start(file, part.first_byte), file.size()
            if part.end_byte is not None:
                end = _line_start(file, part.end_byte)
            if start == end and names is not None:
                return
            stream = file.get_stream(start, end - start)
            with _open(stream, types, names, malformed) as reader:
                yield from _numbered(reader, malformed)
    except pa.ArrowInvalid as error:
        raise LogsError(f"{uri}: not a readable CSV file ({error}); replace it") from None


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
        parse_options=pacsv.ParseOptions(invalid_row_handler=note),
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
