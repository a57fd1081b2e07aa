"""Some of the rows of a log, for a first try at a size that ends in minutes (`logs.most_rows`).

A row is kept or not by its number and its part alone, so what is kept does not depend on who reads
it. Rows are counted where Parquet's metadata or a synthetic log's configuration tell them, else
taken from the files' bytes and the length of their first lines: about as many are kept as asked.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa

from diet_ray import seeds, storage
from diet_ray.logs.sources.source import ROW, Part, RawBatch, Source

FIRST_BYTES = 1 << 20
"""Of a text file, in which its lines are measured."""


class Thinned:
    """Another source with about `most_rows` of its rows; with all of them if it has no more."""

    def __init__(self, source: Source, most_rows: int, seed: int) -> None:
        self.source, self.seed = source, seed
        self.fields, self.tasks = source.fields, source.tasks
        self.rows = rows_of(source)
        self.share = min(most_rows / max(self.rows, 1), 1.0)

    def parts(self) -> list[Part]:
        return self.source.parts()

    def load_shared(self) -> Any:
        return self.source.load_shared()

    def read(self, part: Part, shared: Any) -> Iterator[RawBatch]:
        for batch in self.source.read(part, shared):
            kept = pa.array(self._kept(part, batch.rows[ROW].to_numpy()))
            numbers = np.array([row.row for row in batch.malformed], dtype=np.int64)
            malformed = zip(batch.malformed, self._kept(part, numbers), strict=True)
            bad = tuple(row for row, is_kept in malformed if is_kept)
            yield RawBatch(batch.rows.filter(kept), batch.raw.filter(kept), bad)

    def _kept(self, part: Part, numbers: np.ndarray) -> np.ndarray:
        name = part.name.rpartition("/")[2]
        place = ("rows kept", name, part.first_byte)
        return seeds.uniform(self.seed, *place, indices=numbers) < self.share

    def fingerprint(self) -> str:
        return json.dumps([self.source.fingerprint(), self.share, self.seed])

    def source_bytes(self) -> int:
        return self.source.source_bytes()


def rows_of(source: Source) -> int:
    """About how many rows a log has, without reading it."""
    if isinstance(source, Thinned):
        return round(source.rows * source.share)
    line_bytes = cache(_line_bytes)
    rows = 0.0
    for part in source.parts():
        rows += part.rows if part.rows is not None else _bytes(part) / line_bytes(part.name)
    return round(rows)


def _bytes(part: Part) -> int:
    return (part.end_byte or storage.size(part.name)) - part.first_byte


def _line_bytes(uri: str) -> float:
    """Mean length of the first lines of a text file, in bytes."""
    fs, path = storage.filesystem(uri)
    with fs.open_input_file(path) as stream:
        text = stream.read(FIRST_BYTES)
    return max(len(text), 1) / max(text.count(b"\n"), 1)
