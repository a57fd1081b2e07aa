"""Any table of interactions in Parquet or CSV files, described by `logs.table`.

`table_files.py` says which files those are; they are read in the order of their names. A part is a
range of a CSV file's bytes (all of it where it is compressed), or neighbouring row groups of a
Parquet file with about `PART_ROWS` rows. The keys of `key=value` folders are columns like any other
where the files have none of that name.
"""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

from diet_ray import storage
from diet_ray.config import LogsConfig
from diet_ray.logs.blocks import TIME_MS
from diet_ray.logs.sources import csv_files
from diet_ray.logs.sources.expression import labels, parse_task
from diet_ray.logs.sources.source import (
    ROW,
    BadRow,
    LogsError,
    Part,
    RawBatch,
    choose,
    fingerprint_of,
    nearest,
)
from diet_ray.logs.sources.table_files import TableFile, find_files
from diet_ray.logs.sources.values import as_text, as_time_ms

PART_ROWS = 1_000_000
BATCH_ROWS = 65_536
UNITS = ("s", "ms", "us", "ns")

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

    def _columns(self, file: TableFile) -> list[str]:
        own = self._own_columns(file.uri)
        return [*own, *(key for key in file.keys if key not in own)]

    def _own_columns(self, uri: str) -> list[str]:
        if self.schema.format == "csv":
            return csv_files.header(uri, self.schema.delimiter)
        with storage.open_parquet(uri) as file:
            return file.schema_arrow.names

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

    def _check_columns(self, file: TableFile) -> None:
        columns = self._columns(file)
        for name in self.used:
            if name not in columns:
                remedy = nearest(name, columns)
                if self.schema.format == "csv" and len(columns) == len(file.keys) + 1:
                    remedy = f"all of the first line is one column, {columns[0]!r}: "
                    remedy += "set logs.table.delimiter to what separates the values"
                raise LogsError(f"{file.uri}: no column {name!r} (logs.table); {remedy}")
        if self.schema.format == "parquet":
            self._check_types(file.uri)

    def _check_types(self, uri: str) -> None:
        with storage.open_parquet(uri) as file:
            types = dict(zip(file.schema_arrow.names, file.schema_arrow.types, strict=True))
        for name in self.used:
            if name in types and pa.types.is_nested(types[name]):
                raise LogsError(
                    f"{uri}: column {name!r} has type {types[name]}; only columns with one value "
                    "per row can be used: leave it out"
                )

    def parts(self) -> list[Part]:
        of_file = csv_files.parts if self.schema.format == "csv" else _parquet_parts
        return [part for file in self.files for part in of_file(file.uri)]

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
            yield RawBatch(self._parse(raw, numbers), raw, tuple(malformed))

    def _read_csv(self, part: Part) -> Iterator[_Piece]:
        types = {name: pa.string() for name in self._own_columns(part.name)}
        for raw, malformed in csv_files.read(part, types, delimiter=self.schema.delimiter):
            yield raw.drop_columns([ROW]), raw[ROW], malformed

    def _read_parquet(self, part: Part) -> Iterator[_Piece]:
        at = part.first
        with storage.open_parquet(part.name) as file:
            own = [name for name in self.used if name in file.schema_arrow.names]
            for batch in file.iter_batches(BATCH_ROWS, part.row_groups, own, use_threads=False):
                numbers = pa.chunked_array([pa.array(range(at, at + batch.num_rows), pa.int64())])
                at += batch.num_rows
                yield pa.Table.from_batches([batch]), numbers, []

    def _parse(self, raw: pa.Table, numbers: pa.ChunkedArray) -> pa.Table:
        times = as_time_ms(raw[self.schema.time_column], self.schema.time_unit, self.timezone)
        columns = {ROW: numbers, TIME_MS: times}
        columns |= {field: as_text(raw[field]) for field in self.fields}
        columns |= {name: labels(task, raw[task.column]) for name, task in self.parsed.items()}
        return pa.table(columns)

    def fingerprint(self) -> str:
        return fingerprint_of((f.uri for f in self.files), (f.name for f in self.files))

    def source_bytes(self) -> int:
        return sum(storage.size(file.uri) for file in self.files)


def _parquet_parts(uri: str) -> list[Part]:
    parts, groups, first, rows = [], [], 0, 0
    with storage.open_parquet(uri) as file:
        for group in range(file.num_row_groups):
            groups.append(group)
            rows += file.metadata.row_group(group).num_rows
            if rows >= PART_ROWS or group == file.num_row_groups - 1:
                parts.append(Part(uri, first, rows, tuple(groups)))
                groups, first, rows = [], first + rows, 0
    return parts
