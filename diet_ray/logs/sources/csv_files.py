"""CSV files as streams of text columns, with the number of every row and the malformed ones."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv

from diet_ray import storage
from diet_ray.logs.sources.source import BadRow, LogsError

BLOCK_BYTES = 4 << 20
NULLS = ["", "nan", "NaN", "null", "NULL", "\\N"]
WRONG_COLUMNS = "wrong number of columns"
FIRST_ROW = 2  # as the parser counts lines: 1 is the header


def header(uri: str) -> list[str]:
    """Column names of a file. Raises LogsError if it has none."""
    fs, path = storage.filesystem(uri)
    try:
        skipping = pacsv.ParseOptions(invalid_row_handler=lambda _: "skip")
        with (
            fs.open_input_stream(path) as stream,
            pacsv.open_csv(stream, parse_options=skipping) as reader,
        ):
            return reader.schema.names
    except pa.ArrowInvalid as error:
        raise LogsError(f"{uri}: not a CSV file with a header ({error}); replace it") from None


def read(uri: str, types: dict[str, pa.DataType]) -> Iterator[tuple[pa.Table, list[BadRow]]]:
    """Stream the columns `types` of a file, a few megabytes at a time.

    Yields tables with `_row` int64 in front, and the malformed rows met on the way; missing values
    are null. Raises LogsError for a file that is no text.
    """
    malformed: list[BadRow] = []
    fs, path = storage.filesystem(uri)
    try:
        with fs.open_input_stream(path) as stream, _open(stream, types, malformed) as reader:
            at = 0
            for batch in reader:
                numbers = _row_numbers(at, batch.num_rows, malformed)
                at = int(numbers[-1]) + 1 if len(numbers) else at
                passed = [bad for bad in malformed if bad.row < at]
                malformed[:] = [bad for bad in malformed if bad.row >= at]
                columns = {"_row": pa.array(numbers)}
                columns.update(zip(batch.schema.names, batch.columns, strict=True))
                yield pa.table(columns), passed
            if malformed:
                empty = pa.schema([("_row", pa.int64()), *reader.schema]).empty_table()
                yield empty, malformed
    except pa.ArrowInvalid as error:
        raise LogsError(f"{uri}: not a readable CSV file ({error}); replace it") from None


def _open(stream: Any, types: dict[str, pa.DataType], malformed: list[BadRow]) -> Any:
    def note(row: Any) -> str:
        raw = json.dumps({"text": row.text}, ensure_ascii=False)
        malformed.append(BadRow(row.number - FIRST_ROW, WRONG_COLUMNS, raw))
        return "skip"

    return pacsv.open_csv(
        stream,
        # Rows are only numbered when one thread parses.
        read_options=pacsv.ReadOptions(use_threads=False, block_size=BLOCK_BYTES),
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
