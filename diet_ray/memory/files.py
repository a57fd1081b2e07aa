"""Files of synthetic rows: Parquet, a fixed number of rows in each but the last.

Columns: ``anchor_<field>`` (int32, an id per field), ``label`` and ``taught`` (Arrow fixed-shape
tensors K, logits: learned, and the reference's own), ``delta`` (a list of the F x d numbers, field
by field; null where nothing was learned), ``source_stage``, ``source_row``. A file's content
depends on its rows alone, so whoever writes it, its checksum is the same.

A delta is a list and no tensor, since a tensor's null takes a tensor's room in memory, and Ray Data
cannot read a column that has one.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from diet_ray import storage
from diet_ray.errors import UserError
from diet_ray.memory.rows import SyntheticRows


class ArtifactError(UserError, ValueError):
    """A distilled set that is damaged or does not fit; the message names file and remedy."""


@dataclass(frozen=True)
class RowFiles:
    """Rows 0..`rows` in the folder `uri`, `rows_per_file` of them in each file."""

    uri: str
    rows: int
    rows_per_file: int
    fields: tuple[str, ...]
    embedding_dim: int
    label_type: str = "float32"  # as stored, of `label` and `taught`
    delta_type: str = "float32"
    checksums: tuple[str, ...] = ()  # SHA-256 of every file; none while they are being written

    @property
    def count(self) -> int:
        """Of files."""
        return math.ceil(self.rows / self.rows_per_file)

    def name(self, number: int) -> str:
        """Of a file in the folder."""
        return f"rows-{number:05d}.parquet"

    def bounds(self, number: int) -> tuple[int, int]:
        """First and one-past-last row of a file."""
        first = number * self.rows_per_file
        return first, min(first + self.rows_per_file, self.rows)

    def write(self, number: int, rows: SyntheticRows) -> str:
        """Publish a file; returns the SHA-256 of its bytes.

        Raises ArtifactError for a number that is not finite: nobody could train on it.
        """
        self._check_finite(number, rows)
        sink = pa.BufferOutputStream()
        pq.write_table(self._table(rows), sink, compression="zstd", **self._encoding())
        return storage.write_bytes(
            storage.join(self.uri, self.name(number)), memoryview(sink.getvalue())
        )

    def _check_finite(self, number: int, rows: SyntheticRows) -> None:
        for name, values in (("label", rows.labels), ("taught", rows.taught)):
            bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
            if len(bad):
                self._refuse(number, name, int(bad[0]), len(bad))
        bad = np.flatnonzero(rows.moved)[~np.isfinite(rows.deltas).all(axis=(1, 2))]
        if len(bad):
            self._refuse(number, "delta", int(bad[0]), len(bad))

    def _refuse(self, number: int, column: str, row: int, rows: int) -> None:
        blamed = "reference.learning_rate" if column == "taught" else "distill.inner.learning_rate"
        raise ArtifactError(
            f"{storage.join(self.uri, self.name(number))}: {column} of row "
            f"{self.bounds(number)[0] + row} is not a finite number, as in {rows} rows of this "
            f"file; training has diverged: lower {blamed} and distil again with another output"
        )

    def _table(self, rows: SyntheticRows) -> pa.Table:
        columns: dict[str, Any] = {
            f"anchor_{name}": rows.anchors[:, field] for field, name in enumerate(self.fields)
        }
        for name, values in (("label", rows.labels), ("taught", rows.taught)):
            stored = np.ascontiguousarray(values, dtype=self.label_type)
            columns[name] = pa.FixedShapeTensorArray.from_numpy_ndarray(stored)
        columns["delta"] = self._deltas(rows)
        columns["source_stage"] = rows.stages
        columns["source_row"] = rows.source_rows
        return pa.table(columns)

    def _deltas(self, rows: SyntheticRows) -> pa.Array:
        numbers = len(self.fields) * self.embedding_dim
        ends = np.cumsum(rows.moved, dtype=np.int64) * numbers
        values = pa.array(rows.deltas.astype(self.delta_type).reshape(-1))
        offsets = pa.array(np.concatenate([[0], ends]), pa.int64())
        return pa.LargeListArray.from_arrays(offsets, values, mask=pa.array(~rows.moved))

    def _encoding(self) -> dict[str, Any]:
        """How the columns are packed: ids and floats byte by byte, row ids by their differences.

        Halves lie as they are, since DuckDB reads them in no other way.
        """
        kinds = {"label": self.label_type, "taught": self.label_type, "delta": self.delta_type}
        split = [f"anchor_{name}" for name in self.fields]
        split += [f"{name}.list.element" for name, kind in kinds.items() if kind == "float32"]
        encoding = {
            **dict.fromkeys(split, "BYTE_STREAM_SPLIT"),
            "source_row": "DELTA_BINARY_PACKED",
        }
        return {"use_dictionary": ["source_stage"], "column_encoding": encoding}

    def read(self, number: int, columns: Sequence[str] | None = None) -> pa.Table:
        """A file's table, checked against its checksum. Raises ArtifactError."""
        content = self._content(number)
        with pq.ParquetFile(pa.BufferReader(content)) as file:
            self._check_fits(number, file)
            return file.read(columns, use_threads=False)

    def _check_fits(self, number: int, file: pq.ParquetFile) -> None:
        """Whether a file holds what the manifest says of rows and fields. Raises ArtifactError."""
        first, end = self.bounds(number)
        held, names = file.metadata.num_rows, file.schema_arrow.names
        missing = [name for name in self.fields if f"anchor_{name}" not in names]
        if missing or held != end - first:
            told = f"has no anchor of field {missing[0]!r}" if missing else f"holds {held} rows"
            raise ArtifactError(
                f"{storage.join(self.uri, self.name(number))}: {told}, as _manifest.json says that "
                f"there are {end - first} of {', '.join(self.fields)}; {anew(self.uri)}"
            )

    def _content(self, number: int) -> bytes:
        return checked_bytes(storage.join(self.uri, self.name(number)), self.checksums[number])

    def slice(self, first: int, end: int) -> SyntheticRows:
        """Rows first..end, from the files that hold them. Raises ArtifactError."""
        return self.take(range(first, end))

    def take(self, positions: range | np.ndarray) -> SyntheticRows:
        """The rows at ascending positions, from the files that hold them. Raises ArtifactError."""
        parts = [self.rows_of(self.read(0)).take(slice(0, 0))] if not len(positions) else []
        for number, inside in self._by_file(positions):
            parts.append(self.rows_of(self.read(number)).take(inside))
        return SyntheticRows.concatenate(parts)

    def _by_file(self, positions: range | np.ndarray) -> Iterator[tuple[int, Any]]:
        """Files that hold some of the positions, and where in them."""
        if isinstance(positions, range):
            for number in self.numbers(positions.start, positions.stop):
                first, end = self.bounds(number)
                low, high = max(positions.start, first), min(positions.stop, end)
                yield number, slice(low - first, high - first)
            return
        edges = np.searchsorted(positions, np.arange(self.count + 1) * self.rows_per_file)
        for number, (low, high) in enumerate(itertools.pairwise(edges)):
            if high > low:
                yield number, positions[low:high] - number * self.rows_per_file

    def numbers(self, first: int, end: int) -> range:
        """The files that hold some of rows first..end."""
        return range(first // self.rows_per_file, -(-end // self.rows_per_file))

    def rows_of(self, table: pa.Table) -> SyntheticRows:
        """What a whole table of a file holds."""
        delta = table["delta"].combine_chunks()
        moved = np.asarray(delta.is_valid())
        deltas = delta.drop_null().flatten().to_numpy().astype(np.float32)
        numbers = len(self.fields) * self.embedding_dim
        if len(deltas) != moved.sum() * numbers:
            raise ArtifactError(
                f"{self.uri}: _manifest.json says {len(self.fields)} fields of width "
                f"{self.embedding_dim}, which are not the {len(deltas)} numbers of "
                f"{moved.sum()} rows; {anew(self.uri)}"
            )
        return SyntheticRows(
            anchors=anchors_of(table, self.fields),
            labels=tensor_of(table, "label"),
            taught=tensor_of(table, "taught"),
            stages=table["source_stage"].to_numpy(),
            source_rows=table["source_row"].to_numpy(),
            moved=moved,
            deltas=deltas.reshape(-1, len(self.fields), self.embedding_dim),
        )


def anchors_of(table: pa.Table, fields: Sequence[str]) -> np.ndarray:
    """The anchors of a file's rows, int32 (n, F)."""
    return np.stack([table[f"anchor_{name}"].to_numpy() for name in fields], axis=1)


def tensor_of(table: pa.Table, name: str) -> np.ndarray:
    """A column of vectors, float32 (n, K)."""
    found: np.ndarray = table[name].combine_chunks().to_numpy_ndarray().astype(np.float32)
    return found


def checked_bytes(path: str, checksum: str) -> bytes:
    """A file's content, if its SHA-256 is what its manifest says. Raises ArtifactError."""
    try:
        content = storage.read_bytes(path)
        found = hashlib.sha256(content).hexdigest()
    except FileNotFoundError:
        content, found = b"", "missing"
    if found != checksum:
        raise ArtifactError(
            f"{path}: its content is not what _manifest.json says (SHA-256 {found}); "
            f"{anew(path.rpartition('/')[0])}"
        )
    return content


def anew(uri: str) -> str:
    """The remedy for the folder `uri` of a stage, whose files belong together."""
    return f"remove the folder {uri} and distil it again, or bring back a copy of the file"
