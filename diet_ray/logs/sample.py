"""A bounded sample of a table of any size, spread over all of it, to judge its columns by.

Read are at most `CSV_PIECES` ranges of `PIECE_BYTES` bytes of plain CSV files, evenly over their
bytes; or `ROW_GROUPS` row groups of Parquet files; or, since they have no such ranges, the whole
of `COMPRESSED_FILES` compressed ones: in each case the first and the last are among them. Of these,
at most twice `SAMPLE_ROWS` rows are kept, evenly spaced.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.types as kinds

from diet_ray import storage
from diet_ray.logs.sources import csv_files
from diet_ray.logs.sources.source import RAW_REMEDY, ROW, LogsError, Part
from diet_ray.logs.sources.table_files import Format, TableFile, compression_of, find_files
from diet_ray.logs.sources.values import without_views

SAMPLE_ROWS = 100_000
CSV_PIECES, PIECE_BYTES = 64, 1 << 18
ROW_GROUPS = 16
COMPRESSED_FILES = 8
BATCH_ROWS = 65_536
DELIMITERS = (",", "\t", ";", "|")


@dataclass(frozen=True)
class Sample:
    """Some rows of a table, in its order, with the columns that all files have.

    rows: as the files hold them, text if CSV. total: rows of the table, an estimate unless the
    sample is the whole of it.
    """

    path: str
    format: Format
    delimiter: str
    files: tuple[TableFile, ...]
    rows: pa.Table
    total: int

    @property
    def whole(self) -> bool:
        """Whether every row of the table is among them."""
        return self.rows.num_rows == self.total


def take_sample(path: str) -> Sample:
    """A sample of the table at `path` (see `table_files.py`). Raises LogsError if it has no row."""
    kind, files = find_files(path)
    delimiter = _delimiter(files[0].uri) if kind == "csv" else ","
    if kind == "parquet":
        pieces, share = _parquet_pieces(files)
    else:
        compressed = any(compression_of(file.uri) for file in files)
        parts, share = _some_files(files) if compressed else _ranges(files)
        pieces = _read_csv(parts, delimiter)
    rows, seen = _thinned(pieces)
    if not rows.num_rows:
        raise LogsError(f"{path}: no row; set the path to a table that holds some")
    return Sample(path, kind, delimiter, tuple(files), rows, round(seen / share))


def extremes(sample: Sample, column: str) -> pa.ChunkedArray:
    """The column's least and largest values over all files, as far as that is cheap to know.

    Of numbers, times and dates in Parquet files by their statistics; of others, since the order of
    text is not that of times, in the sample alone.
    """
    values = sample.rows[column]
    ordered = (kinds.is_integer, kinds.is_floating, kinds.is_timestamp, kinds.is_date)
    if sample.format == "csv" or not any(of_type(values.type) for of_type in ordered):
        return values
    found: list[object] = []
    for file in sample.files:
        with storage.open_parquet(file.uri, RAW_REMEDY) as opened:
            for group in range(opened.num_row_groups):
                metadata = opened.metadata.row_group(group)
                own = (metadata.column(i) for i in range(metadata.num_columns))
                known = [c.statistics for c in own if c.path_in_schema == column]
                found += [v for s in known if s and s.has_min_max for v in (s.min, s.max)]
    return pa.chunked_array([*values.chunks, pa.array(found, values.type)])


def _delimiter(uri: str) -> str:
    """The one that cuts the first line into the most columns. Raises LogsError without a header."""
    headers = {delimiter: csv_files.header(uri, delimiter) for delimiter in DELIMITERS}
    best = max(headers, key=lambda delimiter: len(headers[delimiter]))
    numbers = [name for name in headers[best] if _is_number(name)]
    if numbers:
        raise LogsError(
            f"{uri}: the first line holds the value {numbers[0]}, so it names no columns; put a "
            f"line with their names first, such as user{best}item{best}rating{best}time"
        )
    return best


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _spread(count: int, most: int) -> list[int]:
    """At most `most` of 0..count-1, evenly, with the first and the last."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int)).tolist()


def _some_files(files: Sequence[TableFile]) -> tuple[list[tuple[TableFile, Part]], float]:
    """Whole files, and the share of all bytes that they are."""
    sizes = [storage.size(file.uri) for file in files]
    chosen = _spread(len(files), COMPRESSED_FILES)
    share = sum(sizes[i] for i in chosen) / max(sum(sizes), 1)
    return [(files[i], Part(files[i].uri)) for i in chosen], share


def _ranges(files: Sequence[TableFile]) -> tuple[list[tuple[TableFile, Part]], float]:
    """Ranges of the files' bytes, and the share of all bytes that they are."""
    sizes = np.array([storage.size(file.uri) for file in files])
    ends, total = np.cumsum(sizes), int(sizes.sum())
    if total <= CSV_PIECES * PIECE_BYTES:
        return [(file, Part(file.uri)) for file in files], 1.0
    parts, read = [], 0
    for start in np.linspace(0, total - PIECE_BYTES, CSV_PIECES).astype(int):
        at = int(np.searchsorted(ends, start, side="right"))
        first = int(start - (ends[at] - sizes[at]))
        end = min(first + PIECE_BYTES, int(sizes[at]))
        parts.append((files[at], Part(files[at].uri, first_byte=first, end_byte=end)))
        read += end - first
    return parts, read / total


def _read_csv(parts: Sequence[tuple[TableFile, Part]], delimiter: str) -> Iterator[pa.Table]:
    for file, part in parts:
        types = {name: pa.string() for name in csv_files.header(file.uri, delimiter)}
        for rows, _ in csv_files.read(part, types, delimiter=delimiter):
            yield _with_keys(rows.drop_columns([ROW]), file)


def _parquet_pieces(files: Sequence[TableFile]) -> tuple[Iterator[pa.Table], float]:
    """Batches of some row groups, and the share of all rows that they are."""
    groups: list[tuple[TableFile, int, int]] = []  # file, row group, rows
    for file in files:
        with storage.open_parquet(file.uri, RAW_REMEDY) as opened:
            for group in range(opened.num_row_groups):
                groups.append((file, group, opened.metadata.row_group(group).num_rows))
    total = sum(rows for _, _, rows in groups)
    chosen = groups
    if total > SAMPLE_ROWS:
        chosen = [groups[i] for i in _spread(len(groups), ROW_GROUPS)]
    share = sum(rows for _, _, rows in chosen) / max(total, 1)
    return _read_groups(chosen), share or 1.0


def _read_groups(groups: Sequence[tuple[TableFile, int, int]]) -> Iterator[pa.Table]:
    for file, group, _ in groups:
        with storage.open_parquet(file.uri, RAW_REMEDY) as opened:
            for batch in opened.iter_batches(BATCH_ROWS, [group], use_threads=False):
                yield _with_keys(without_views(pa.Table.from_batches([batch])), file)


def _with_keys(rows: pa.Table, file: TableFile) -> pa.Table:
    for key, value in file.keys.items():
        if key not in rows.column_names:
            column = pa.repeat(pa.scalar(value, pa.string()), rows.num_rows)
            rows = rows.append_column(key, column)
    return rows


def _thinned(pieces: Iterable[pa.Table]) -> tuple[pa.Table, int]:
    """Every n-th row of the pieces, n doubled whenever too many are kept, and how many there were.

    Only the columns that all pieces have.
    """
    kept: list[pa.Table] = []
    every, seen, count = 1, 0, 0
    for piece in pieces:
        kept.append(piece.take(np.arange(-seen % every, piece.num_rows, every)))
        seen += piece.num_rows
        count += kept[-1].num_rows
        while count > 2 * SAMPLE_ROWS:
            rows = _concatenated(kept)
            kept = [rows.take(np.arange(0, rows.num_rows, 2))]
            every, count = every * 2, kept[0].num_rows
    return _concatenated(kept), seen


def _concatenated(tables: Sequence[pa.Table]) -> pa.Table:
    if not tables:
        return pa.table({})
    shared = [
        name
        for name in tables[0].column_names
        if all(name in table.column_names for table in tables)
    ]
    try:
        own = [table.select(shared) for table in tables]
        return pa.concat_tables(own, promote_options="permissive")
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise LogsError(
            f"the files hold different types under one name ({error}); set the path to those that "
            "belong together"
        ) from None
