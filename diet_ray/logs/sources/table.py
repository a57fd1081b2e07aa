"""Any table of interactions in Parquet or CSV files, described by `logs.table`.

All files directly below `logs.path` with the format's suffix belong to the log, in the order of
their names. A part is a CSV file, or neighbouring row groups of a Parquet file with about
`PART_ROWS` rows.
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
    LogsError,
    Part,
    RawBatch,
    choose,
    fingerprint_of,
    nearest,
)
from diet_ray.logs.sources.values import as_text, as_time_ms

PART_ROWS = 1_000_000
BATCH_ROWS = 65_536
UNITS = ("s", "ms", "us", "ns")


class TableSource:
    """The source `table`."""

    def __init__(self, logs: LogsConfig) -> None:
        """Raises LogsError for missing files or columns, and for feedback named as a field."""
        assert logs.path is not None
        assert logs.table is not None
        self.schema, self.timezone = logs.table, logs.timezone
        self.files = storage.list_files(logs.path, f".{self.schema.format}")
        if not self.files:
            raise LogsError(
                f"{logs.path}: no *.{self.schema.format} file directly below it; set logs.path to "
                "the folder of the log, and logs.table.format to its format"
            )
        columns = self._columns(self.files[0])
        self.fields = choose("logs.fields", logs.fields, self.schema.fields)
        self.tasks = choose("logs.tasks", logs.tasks, self.schema.tasks)
        parsed = {k: parse_task(k, text, columns) for k, text in self.schema.tasks.items()}
        self.parsed = {task: parsed[task] for task in self.tasks}
        self._refuse_feedback({task.column: name for name, task in parsed.items()})
        self._check_unit()
        used = [*self.fields, *(task.column for task in self.parsed.values())]
        self.used = list(dict.fromkeys([self.schema.time_column, *used]))
        for uri in self.files:
            self._check_columns(uri)

    def _columns(self, uri: str) -> list[str]:
        if self.schema.format == "csv":
            return csv_files.header(uri)
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

    def _check_columns(self, uri: str) -> None:
        columns = self._columns(uri)
        for name in self.used:
            if name not in columns:
                raise LogsError(f"{uri}: no column {name!r} (logs.table); {nearest(name, columns)}")
        if self.schema.format == "parquet":
            self._check_types(uri)

    def _check_types(self, uri: str) -> None:
        with storage.open_parquet(uri) as file:
            for name in self.used:
                if pa.types.is_nested(file.schema_arrow.field(name).type):
                    raise LogsError(
                        f"{uri}: column {name!r} has type {file.schema_arrow.field(name).type}; "
                        "only columns with one value per row can be used: leave it out"
                    )

    def parts(self) -> list[Part]:
        if self.schema.format == "csv":
            return [part for uri in self.files for part in csv_files.parts(uri)]
        return [part for uri in self.files for part in _parquet_parts(uri)]

    def load_shared(self) -> None:
        """Nothing: every part is complete."""

    def read(self, part: Part, shared: None) -> Iterator[RawBatch]:
        del shared
        if self.schema.format == "csv":
            types = {name: pa.string() for name in self._columns(part.name)}
            for raw, malformed in csv_files.read(part, types):
                numbers = raw[ROW]
                yield RawBatch(self._parse(raw, numbers), raw.drop_columns([ROW]), tuple(malformed))
            return
        at = part.first
        with storage.open_parquet(part.name) as file:
            batches = file.iter_batches(BATCH_ROWS, part.row_groups, self.used, use_threads=False)
            for batch in batches:
                raw = pa.Table.from_batches([batch])
                numbers = pa.chunked_array([pa.array(range(at, at + raw.num_rows), pa.int64())])
                at += raw.num_rows
                yield RawBatch(self._parse(raw, numbers), raw)

    def _parse(self, raw: pa.Table, numbers: pa.ChunkedArray) -> pa.Table:
        times = as_time_ms(raw[self.schema.time_column], self.schema.time_unit, self.timezone)
        columns = {ROW: numbers, TIME_MS: times}
        columns |= {field: as_text(raw[field]) for field in self.fields}
        columns |= {name: labels(task, raw[task.column]) for name, task in self.parsed.items()}
        return pa.table(columns)

    def fingerprint(self) -> str:
        return fingerprint_of(self.files)

    def source_bytes(self) -> int:
        return sum(storage.size(uri) for uri in self.files)


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
