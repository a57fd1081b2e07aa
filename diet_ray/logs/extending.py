"""Between the passes: the vocabularies are extended by what the staged runs hold.

Protocol: a field's values are cut into ranges of text. One task per range finds the first block of
each value and writes the range's pieces below `staging/vocabulary/`; one task per field joins the
pieces in the order of ids to the vocabulary's file, and makes the index that encodes with it. It
hands the index to Ray's object store part by part, and keeps no part that it has handed over.
Nothing is kept of a run that breaks off: all this is done again.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import ray

from diet_ray import storage
from diet_ray.logs.cells import Cell, read_cells, write_cells
from diet_ray.logs.encoder import Index, IndexPart, load_index
from diet_ray.logs.staged_log import StagedLog
from diet_ray.logs.staged_values import Range, ranges, read_values
from diet_ray.logs.staging import STAGING
from diet_ray.logs.vocabulary import grow, write_vocabulary
from diet_ray.progress import phase
from diet_ray.runtime import plain_errors


@dataclass(frozen=True)
class SharedIndex:
    """Where the object store holds an index; carried to tasks, each maps its node's copy."""

    parts: list[ray.ObjectRef]  # of an IndexPart each
    missing: int
    key: str

    def open(self) -> Index:
        return Index(ray.get(self.parts), self.missing, self.key)


@dataclass(frozen=True)
class Extended:
    """A field's vocabulary, published."""

    sizes: list[int]  # number of ids after each block that adds any, with id 0
    index: SharedIndex


def extend_vocabularies(
    uri: str, fields: Sequence[str], blocks: Sequence[str], staged: StagedLog
) -> dict[str, Extended]:
    """Publish the vocabulary of each of these fields.

    blocks: those that add values, in stream order, as the first of the log's windows.
    """
    files = ray.put(staged.value_files)
    begun: dict[str, ray.ObjectRefGenerator] = {}
    for field in fields:
        counts = [
            _grow_range.remote(uri, field, number, within, files, len(blocks))
            for number, within in enumerate(ranges(staged.marks[field]))
        ]
        begun[field] = _join_ranges.remote(uri, field, blocks, *counts)
    extended: dict[str, Extended] = {}
    with phase("extending vocabularies", len(fields), "fields") as progress, plain_errors():
        for field, (facts, *parts) in begun.items():
            sizes, missing, key = ray.get(facts)
            extended[field] = Extended(sizes, SharedIndex(parts, missing, key))
            progress.advance()
    return extended


def _piece_uri(uri: str, field: str, number: int) -> str:
    return storage.join(uri, STAGING, "vocabulary", f"{field}-{number:05d}.arrow")


@ray.remote
def _grow_range(
    uri: str, field: str, number: int, within: Range, files: list[str], blocks: int
) -> list[int]:
    """Write what each block adds in a range, a cell per block; returns how many values."""

    def found() -> Iterator[pa.Table]:
        for name in files:
            yield from read_values(storage.join(uri, name), field, within, blocks)

    values = grow(found())
    ends = np.searchsorted(values["block"].to_numpy(), np.arange(blocks), side="right")
    bounds = list(itertools.pairwise([0, *ends.tolist()]))
    cells: list[Cell] = [
        ([block], values.select(["value"]).slice(low, high - low))
        for block, (low, high) in enumerate(bounds)
    ]
    write_cells(_piece_uri(uri, field, number), cells)
    return [high - low for low, high in bounds]


@ray.remote
def _join_ranges(
    uri: str, field: str, blocks: Sequence[str], *counts: list[int]
) -> Iterator[tuple[list[int], int, str] | IndexPart]:
    """Write a field's vocabulary from its pieces; yields its sizes and its index: the id of the
    missing value, the key, then the parts."""

    def added() -> Iterator[tuple[str, pa.Array]]:
        for block, name in enumerate(blocks):
            for number in range(len(counts)):
                yield name, _added_by(block, _piece_uri(uri, field, number))

    write_vocabulary(uri, field, added())
    sizes = (np.cumsum(np.sum(counts, axis=0)) + 1).tolist()
    index = load_index(uri, field, sizes[-1] - 1)
    yield sizes, index.missing, index.key
    while index.parts:
        yield index.parts.pop(0)


def _added_by(block: int, piece: str) -> pa.Array:
    [(_, values)] = read_cells(piece, lambda key: key == [block])
    return values["value"].combine_chunks()
