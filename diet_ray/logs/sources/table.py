"""Any table of interactions in Parquet or CSV files, described by `logs.table`.

`table_files.py` says which files those are; they are read in the order of their names. A part is a
range of a CSV file's bytes (all of it where it is compressed), or neighbouring row groups of a
Parquet file with about `PART_ROWS` rows. The keys of `key=value` folders are columns like any other
where the files have none of that name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from diet_ray import storage, telemetry
from diet_ray.config import LogsConfig, TableConfig
from diet_ray.logs.blocks import TIME_MS
from diet_ray.logs.sources import csv_files
from diet_ray.logs.sources.expression import labels, parse_task
from diet_ray.logs.sources.source import (
    RAW_REMEDY,
    ROW,
    BadRow,
    LogsError,
    Part,
    RawBatch,
    choose,
    fingerprint_of,
    nearest,
)
from diet_ray.logs.sources.table_files import TableFile, find_files, repeated
from diet_ray.logs.sources.values import as_text, as_time_ms, without_views

PART_ROWS = 1_000_000
BATCH_ROWS = 65_536
UNITS = ("s", "ms", "us", "ns")

_Reader = Callable[[pa.ChunkedArray], pa.ChunkedArray]


class _Role(NamedTuple):
    """What a column of the raw table is used as."""

    name: str  # in a batch
    column: str
    use: str

    def __str__(self) -> str:
        return f"column {self.column!r} as {self.use}"


_Piece = tuple[pa.Table, pa.ChunkedArray, list[BadRow]]  # rows, their numbers, malformed ones


class TableSource:
    """The source `table`."""

    def __init__(self, logs: LogsConfig) -> None:
        """Raises LogsError for missing files or columns, and for feedback named as a field."""
        assert logs.path is not None
        assert logs.table is not None
        self.schema, self.timezone = logs.table, logs.timezone
        _, self.files = find_files(logs.path, self.schema.format)
        columns = self._columns(self.files[0])
        self.fields = choose("logs.fields", logs.fields, self.schema.fields)
        self.tasks = choose("logs.tasks", logs.tasks, self.schema.tasks)
        parsed = {k: parse_task(k, text, columns) for k, text in self.schema.tasks.items()}
        self.parsed = {task: parsed[task] for task in self.tasks}
        self._refuse_feedback({task.column: name for name, task in parsed.items()})
        self._check_unit()
        used = [*self.fields, *(task.column for task in self.parsed.values())]
        self.used = list(dict.fromkeys([self.schema.time_column, *used]))
        for file in self.files:
            self._check_columns(file)
        self._refuse_unknown_feedback(columns)
        self._refuse_copies()

    def _columns(self, file: TableFile) -> list[str]:
        own = self._own_columns(file.uri)
        return [*own, *(key for key in file.keys if key not in own)]

    def _own_columns(self, uri: str) -> list[str]:
        if self.schema.format == "csv":
            return csv_files.header(uri, self.schema.delimiter)
        with storage.open_parquet(uri, RAW_REMEDY) as file:
            return file.schema_arrow.names

    def _refuse_unknown_feedback(self, columns: list[str]) -> None:
        for name in self.schema.feedback:
            if name not in columns:
                raise LogsError(
                    f"logs.table.feedback: no column {name!r}, so it would guard nothing; "
                    f"{nearest(name, columns)}"
                )

    def _refuse_copies(self) -> None:
        found = repeated(self.files)
        if found is None:
            return
        first, second = (file.uri for file in found)
        batches = (b for p in _parts(self.schema, found[0]) for b in self.read(p, None))
        if any(batch.rows.num_rows for batch in batches):
            raise LogsError(
                f"{second}: the same as {first}, so its rows would count twice; remove one of them "
                "from logs.path"
            )

    def _refuse_feedback(self, task_of: dict[str, str]) -> None:
        for field in self.fields:
            if field in task_of or field in self.schema.feedback:
                why = f"task {task_of[field]!r} is made of it" if field in task_of else "feedback"
                raise LogsError(
                    f"logs.table.fields: {field!r} is known only after the interaction ({why}); as "
                    "a feature it would leak the label. Remove it from the fields"
                )

    def _check_unit(self) -> None:
        unit = self.schema.time_unit
        if unit not in UNITS and "%" not in unit:
            raise LogsError(
                f"logs.table.time_unit: {unit!r} is no unit; use {', '.join(UNITS)} or a strptime "
                "pattern such as '%Y-%m-%d %H:%M:%S'"
            )
        try:
            as_time_ms(pa.chunked_array([["?"]]), unit, self.timezone)
        except (ValueError, re.error) as error:
            raise LogsError(
                f"logs.table.time_unit: {unit!r} is no strptime pattern ({error}); write one such "
                "as '%Y-%m-%d %H:%M:%S'"
            ) from None

    def _check_columns(self, file: TableFile) -> None:
        columns = self._columns(file)
        for name in self.used:
            if name not in columns:
                remedy = nearest(name, columns)
                if self.schema.format == "csv" and len(columns) == len(file.keys) + 1:
                    remedy = f"all of the first line is one column, {columns[0]!r}: "
                    remedy += "set logs.table.delimiter to what separates the values"
                raise LogsError(f"{file.uri}: no column {name!r} (logs.table); {remedy}")
            if columns.count(name) > 1:
                raise LogsError(
                    f"{file.uri}: {columns.count(name)} columns are called {name!r} (logs.table); "
                    "rename all but one of them"
                )
        if self.schema.format == "parquet":
            self._check_types(file.uri)

    def _check_types(self, uri: str) -> None:
        with storage.open_parquet(uri, RAW_REMEDY) as file:
            types = dict(zip(file.schema_arrow.names, file.schema_arrow.types, strict=True))
        own = {name: types[name] for name in self.used if name in types}
        for name, kind in own.items():
            if pa.types.is_nested(kind):
                raise LogsError(
                    f"{uri}: column {name!r} has type {kind}; only columns with one value "
                    "per row can be used: leave it out"
                )
        for role, read in self._readers().items():
            if role.column in own:
                _check_reads(own[role.column], read, f"{uri}: {role}")

    def parts(self) -> list[Part]:
        return [part for file in self.files for part in _parts(self.schema, file)]

    def load_shared(self) -> None:
        """Nothing: every part is complete."""

    def read(self, part: Part, shared: None) -> Iterator[RawBatch]:
        del shared
        keys = next(file.keys for file in self.files if file.uri == part.name)
        read = self._read_csv if self.schema.format == "csv" else self._read_parquet
        for own, numbers, malformed in read(part):
            raw = own
            for key, value in keys.items():
                if key in self.used and key not in own.column_names:
                    column = pa.repeat(pa.scalar(value, pa.string()), own.num_rows)
                    raw = raw.append_column(key, column)
            yield RawBatch(self._parse(raw, numbers, part.name), raw, tuple(malformed))

    def _read_csv(self, part: Part) -> Iterator[_Piece]:
        types = {name: pa.string() for name in self._own_columns(part.name)}
        for raw, malformed in csv_files.read(part, types, delimiter=self.schema.delimiter):
            yield raw.drop_columns([ROW]), raw[ROW], malformed

    def _read_parquet(self, part: Part) -> Iterator[_Piece]:
        at = part.first
        with storage.open_parquet(part.name, RAW_REMEDY) as file:
            own = [name for name in self.used if name in file.schema_arrow.names]
            for batch in file.iter_batches(BATCH_ROWS, part.row_groups, own, use_threads=False):
                numbers = pa.chunked_array([pa.array(range(at, at + batch.num_rows), pa.int64())])
                at += batch.num_rows
                yield without_views(pa.Table.from_batches([batch])), numbers, []
            telemetry.READ_BYTES.add(_stored_bytes(file.metadata, part, own), of="log")

    def _readers(self) -> dict[_Role, _Reader]:
        """How each column of a batch is made of one of the raw table's."""
        schema = self.schema
        times = partial(as_time_ms, unit=schema.time_unit, timezone=self.timezone)
        readers: dict[_Role, _Reader] = {_Role(TIME_MS, schema.time_column, "the time"): times}
        for field in self.fields:
            readers[_Role(field, field, "a field")] = as_text
        for name, task in self.parsed.items():
            readers[_Role(name, task.column, f"task {name}")] = partial(labels, task)
        return readers

    def _parse(self, raw: pa.Table, numbers: pa.ChunkedArray, where: str) -> pa.Table:
        columns = {ROW: numbers}
        for role, read in self._readers().items():
            try:
                columns[role.name] = read(raw[role.column])
            except pa.ArrowException as error:
                raise LogsError(
                    f"{where}: {role}: {error}; repair the column, or leave it out"
                ) from None
        return pa.table(columns)

    def fingerprint(self) -> str:
        return fingerprint_of((f.uri for f in self.files), (f.name for f in self.files))

    def source_bytes(self) -> int:
        return sum(storage.size(file.uri) for file in self.files)


def _stored_bytes(found: pq.FileMetaData, part: Part, names: list[str]) -> int:
    """Of these columns in the part's row groups."""
    groups = [found.row_group(number) for number in part.row_groups]
    chunks = [group.column(at) for group in groups for at in range(group.num_columns)]
    own = [chunk for chunk in chunks if chunk.path_in_schema in names]
    return sum(chunk.total_compressed_size for chunk in own)


def _check_reads(kind: pa.DataType, read: _Reader, where: str) -> None:
    """Whether a column of this type can be what it is used as. Raises LogsError."""
    try:
        read(pa.chunked_array([], kind))
    except (pa.ArrowException, TypeError) as error:
        raise LogsError(
            f"{where} cannot be read from the type {kind} ({error}); name another column, or write "
            "it as a number or a text"
        ) from None


def _parts(schema: TableConfig, file: TableFile) -> list[Part]:
    return csv_files.parts(file.uri) if schema.format == "csv" else _parquet_parts(file.uri)


def _parquet_parts(uri: str) -> list[Part]:
    parts, groups, first, rows = [], [], 0, 0
    with storage.open_parquet(uri, RAW_REMEDY) as file:
        for group in range(file.num_row_groups):
            groups.append(group)
            rows += file.metadata.row_group(group).num_rows
            if rows >= PART_ROWS or group == file.num_row_groups - 1:
                parts.append(Part(uri, first, rows, tuple(groups)))
                groups, first, rows = [], first + rows, 0
    return parts
