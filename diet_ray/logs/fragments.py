"""Second pass: one fragment of a block, encoded and in time order.

Protocol: a fragment is planned before it is written: neighbouring time bins of its block with at
most so many rows together (`fragment_limit`), or a single bin. Its rows are all staged rows in that
time range, ordered by time, part and row; so a fragment is a function of the log and the plan, and
one that exists need not be written again.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from diet_ray import storage
from diet_ray.config import LogsConfig
from diet_ray.logs.blocks import ROW_ID, TIME_MS, Fragment, write_fragment
from diet_ray.logs.cells import read_cells
from diet_ray.logs.encoder import Encoder
from diet_ray.logs.sources.source import PART, ROW, LogsError
from diet_ray.logs.staging import BINS, StagedFile, Window

FEWEST_FRAGMENTS = 16
"""Of a block: scored one by one, they keep a few workers busy until nearly the end."""
UNSEEN = b"unseen_rows"  # key of a fragment's metadata


@dataclass(frozen=True)
class Plan:
    """A fragment to be written: the rows of `block` from `start` (ms) until before `end`."""

    block: str
    path: str
    rows: int
    first_row_id: int
    start: int
    end: int


def fragment_limit(logs: LogsConfig, block_rows: int) -> int:
    """Most rows of a fragment of a block with so many rows."""
    fair = math.ceil(block_rows / FEWEST_FRAGMENTS)
    return min(logs.fragment_rows, max(logs.row_group_rows, fair))


def plan_block(window: Window, histogram: np.ndarray, most: int, first_row_id: int) -> list[Plan]:
    """Fragments of a block. histogram: (BINS,) rows per bin, not all zero; most: rows of one."""
    counts = histogram.tolist()
    starts, rows = [0], 0  # bins at which a fragment starts
    for number, count in enumerate(counts):
        if rows and count and rows + count > most:
            starts.append(number)
            rows = 0
        rows += count
    plans = []
    for number, (low, high) in enumerate(itertools.pairwise([*starts, BINS])):
        path = f"{window.block}/fragment-{number:05d}.parquet"
        rows, start, end = sum(counts[low:high]), window.bin_start(low), window.bin_start(high)
        plans.append(Plan(window.block, path, rows, first_row_id, start, end))
        first_row_id += rows
    return plans


def finished(plan: Plan, size: int, row_group_rows: int) -> Fragment:
    """The manifest's entry for a written fragment of so many bytes."""
    return Fragment(
        path=plan.path,
        rows=plan.rows,
        first_row_id=plan.first_row_id,
        row_groups=math.ceil(plan.rows / row_group_rows),
        bytes=size,
    )


def written_sizes(plans: Sequence[Plan], uri: str) -> dict[str, int]:
    """Path -> bytes of the planned fragments that are there, by one listing a block."""
    found: dict[str, int] = {}
    for block in {plan.block for plan in plans}:
        sizes = storage.sizes(storage.join(uri, block))
        found |= {f"{block}/{name}": size for name, size in sizes.items()}
    return {plan.path: found[plan.path] for plan in plans if plan.path in found}


def unseen_rows(plan: Plan, uri: str) -> dict[str, int]:
    """field -> rows of a written fragment whose value earlier history lacks, as its footer says."""
    with storage.open_parquet(storage.join(uri, plan.path)) as file:
        return json.loads(file.schema_arrow.metadata[UNSEEN])


@dataclass(frozen=True)
class Encoding:
    """How the rows of all fragments are written."""

    uri: str
    fields: tuple[str, ...]
    tasks: tuple[str, ...]
    row_group_rows: int


class FragmentWriter:
    """Writes planned fragments.

    known: block -> field -> ids, with id 0, that the historical blocks before it hold.
    """

    def __init__(
        self,
        encoding: Encoding,
        files: Sequence[StagedFile],
        known: Mapping[str, Mapping[str, int]],
        encoder: Encoder,
    ) -> None:
        self.uri, self.files, self.known = encoding.uri, files, known
        self.fields, self.tasks = encoding.fields, encoding.tasks
        self.row_group_rows = encoding.row_group_rows
        self.encoder = encoder

    def write(self, plan: Plan) -> dict[str, int]:
        """Write one planned fragment; returns what `unseen_rows` finds in it. Raises LogsError if
        the staged rows are not the planned."""
        rows = pa.concat_tables(list(self._staged(plan)))
        if rows.num_rows != plan.rows:
            raise LogsError(
                f"{storage.join(self.uri, plan.path)}: {rows.num_rows} staged rows, {plan.rows} "
                f"planned; remove {self.uri} and prepare again"
            )
        times = rows[TIME_MS].to_numpy()
        order = np.lexsort((rows[ROW].to_numpy(), rows[PART].to_numpy(), times))
        row_ids = np.arange(plan.first_row_id, plan.first_row_id + plan.rows)
        columns = {ROW_ID: pa.array(row_ids), TIME_MS: pa.array(times[order])}
        known, unseen = self.known.get(plan.block, {}), {}
        for field in self.fields:
            ids = self.encoder.encode(field, rows[field])[order]
            columns[field] = pa.array(ids)
            if field in known:
                unseen[field] = int(((ids == 0) | (ids >= known[field])).sum())
        for task in self.tasks:
            columns[task] = pa.array(rows[task].to_numpy()[order])
        place = storage.join(self.uri, plan.path)
        table = pa.table(columns).replace_schema_metadata({UNSEEN: json.dumps(unseen)})
        write_fragment(place, table, self.row_group_rows)
        return unseen

    def _staged(self, plan: Plan) -> Iterator[pa.Table]:
        for file in self.files:
            within = file.first_ms < plan.end and file.last_ms >= plan.start
            if within and file.block == plan.block:
                for rows in _rows_between(storage.join(self.uri, file.path), plan.start, plan.end):
                    part = pa.array(np.full(rows.num_rows, file.part, np.int64))
                    yield rows.append_column(PART, part)


def _rows_between(uri: str, start: int, end: int) -> Iterator[pa.Table]:
    """Rows of a staged file from `start` (ms) until before `end`; opens only their cells."""
    for _, rows in read_cells(uri, lambda key: key[0] < end and key[1] >= start):
        low, high = np.searchsorted(rows[TIME_MS].to_numpy(), [start, end])
        yield rows.slice(low, high - low)
