"""First pass: one part of the log, checked and split by block.

Protocol: a part is staged by one task, whatever happens to the others. Below its own folder
`staging/part-00000/` it leaves

 - `<block>-00000.arrow`..: usable rows as text, in runs of about `RUN_ROWS`, so that a task never
   holds more; each file sorted by time, and cut at the borders of time bins into cells of about
   `CELL_ROWS`, so that a fragment reads little more than its own rows, in whatever order they came
 - `values-00000.arrow`..: the values that each run's fields take (`staged_values.py`)
 - `ledger.json`, published last: counts, times, histograms; a part that has one is not read again

and beside it, below `quarantine/`, the rows that cannot be used.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from diet_ray import documents, storage
from diet_ray.logs.blocks import TIME_MS
from diet_ray.logs.cells import Cell, write_cells
from diet_ray.logs.cleaning import clean
from diet_ray.logs.sources.source import BadRow, Part, Source
from diet_ray.logs.staged_values import write_values

STAGING, QUARANTINE = "staging", "quarantine"
STAGING_FORMAT = 3  # what was staged or planned otherwise is begun again
BINS = 4096
RUN_ROWS = 1 << 19
CELL_ROWS = 1 << 11
QUARANTINE_ROWS = 1 << 16


@dataclass(frozen=True)
class Window:
    """A block's place in time, in milliseconds since the epoch; `end` is exclusive."""

    block: str
    start: int
    end: int

    def bins(self, times: np.ndarray) -> np.ndarray:
        """Which of the window's `BINS` equal bins each time falls into."""
        return (times - self.start) * BINS // (self.end - self.start)

    def bin_start(self, number: int) -> int:
        """First millisecond of a bin."""
        return self.start - (-number * (self.end - self.start) // BINS)


@dataclass(frozen=True)
class StagedFile:
    """Rows of one block and part, sorted by time."""

    part: int
    block: str
    path: str  # relative to the blocks folder
    first_ms: int
    last_ms: int


@dataclass(frozen=True)
class Ledger:
    """What is known of a staged part."""

    part: int
    rows: int  # read, with the unusable ones
    outside: int
    first_ms: int | None  # over all usable rows, in a block or not
    last_ms: int | None
    quarantined: dict[str, int]
    first_bad: dict[str, Any] | None
    files: tuple[StagedFile, ...]
    value_files: tuple[str, ...]  # relative to the blocks folder
    marks: dict[str, list[str]]  # field -> some of its values, evenly spread
    block_rows: dict[str, int]
    label_sums: dict[str, dict[str, int]]  # block -> task -> ones
    histograms: dict[str, Sequence[int]]  # block -> rows per bin


def part_folder(uri: str, part: int) -> str:
    """Where a part is staged."""
    return storage.join(uri, STAGING, f"part-{part:05d}")


def read_ledger(uri: str, part: int) -> Ledger:
    """A finished part's ledger. Raises FileNotFoundError, StorageError."""
    return documents.read_document(storage.join(part_folder(uri, part), "ledger.json"), Ledger)


def is_staged(uri: str, part: int) -> bool:
    """Whether a part is finished."""
    return storage.exists(storage.join(part_folder(uri, part), "ledger.json"))


class Stager:
    """Collects the rows of one part and writes them in runs of bounded size."""

    def __init__(
        self, source: Source, part: Part, number: int, uri: str, windows: Sequence[Window]
    ) -> None:
        self.part = part
        self.source, self.fields, self.tasks = source, source.fields, source.tasks
        self.number, self.uri, self.windows = number, uri, windows
        self.waiting: list[pa.Table] = []
        self.waiting_rows = self.rows = self.outside = 0
        self.first_ms: int | None = None
        self.last_ms: int | None = None
        self.bad: list[BadRow] = []
        self.first_bad: BadRow | None = None
        self.quarantined: Counter[str] = Counter()
        self.quarantine_files = 0
        self.runs = 0
        self.files: list[StagedFile] = []
        self.value_files: list[str] = []
        self.marks: dict[str, list[str]] = {field: [] for field in source.fields}
        self.block_rows: Counter[str] = Counter()
        self.label_sums: dict[str, Counter[str]] = {}
        self.histograms: dict[str, np.ndarray] = {}

    def stage(self, shared: Any) -> Ledger:
        """Read the part, write what it holds, publish its ledger."""
        for batch in self.source.read(self.part, shared):
            self.add(*clean(batch, self.tasks))
        return self.close()

    def add(self, rows: pa.Table, bad: list[BadRow]) -> None:
        """Take a batch of usable rows and the unusable ones met with it."""
        self.rows += rows.num_rows + len(bad)
        self.bad += bad
        self.quarantined.update(row.reason for row in bad)
        self.first_bad = self.first_bad or next(iter(bad), None)
        if len(self.bad) >= QUARANTINE_ROWS:
            self._write_quarantine()
        if rows.num_rows:
            bounds = pc.min_max(rows[TIME_MS]).as_py()
            seen = [ms for ms in (self.first_ms, self.last_ms) if ms is not None]
            self.first_ms, self.last_ms = min([bounds["min"], *seen]), max([bounds["max"], *seen])
            self.waiting.append(rows)
            self.waiting_rows += rows.num_rows
        if self.waiting_rows >= RUN_ROWS:
            self._write_run()

    def close(self) -> Ledger:
        """Write what waits, then the ledger."""
        if self.waiting_rows:
            self._write_run()
        if self.bad:
            self._write_quarantine()
        ledger = Ledger(
            part=self.number,
            rows=self.rows,
            outside=self.outside,
            first_ms=self.first_ms,
            last_ms=self.last_ms,
            quarantined=dict(self.quarantined),
            first_bad=self._place_of(self.first_bad),
            files=tuple(self.files),
            value_files=tuple(self.value_files),
            marks=self.marks,
            block_rows=dict(self.block_rows),
            label_sums={block: dict(sums) for block, sums in self.label_sums.items()},
            histograms={block: bins.tolist() for block, bins in self.histograms.items()},
        )
        place = storage.join(part_folder(self.uri, self.number), "ledger.json")
        documents.write_sealed(place, asdict(ledger))
        return ledger

    def _place_of(self, bad: BadRow | None) -> dict[str, Any] | None:
        return {"file": self.part.place, **asdict(bad)} if bad else None

    def _write_run(self) -> None:
        rows = pa.concat_tables(self.waiting)
        self.waiting, self.waiting_rows = [], 0
        times = rows[TIME_MS].to_numpy()
        order = np.argsort(times, kind="stable")
        times = times[order]
        blocks: dict[int, pa.Table] = {}
        for number, window in enumerate(self.windows):
            low, high = np.searchsorted(times, [window.start, window.end])
            if low < high:
                blocks[number] = rows.take(order[low:high])
                self._write_block(window, blocks[number], times[low:high])
        self.outside += len(times) - sum(block.num_rows for block in blocks.values())
        if blocks:
            self._write_values(blocks)
        self.runs += 1

    def _write_block(self, window: Window, rows: pa.Table, times: np.ndarray) -> None:
        block = window.block
        bins = window.bins(times)
        name = self._name(block)
        write_cells(storage.join(self.uri, name), _cells(rows, times, bins))
        self.files.append(StagedFile(self.number, block, name, int(times[0]), int(times[-1])))
        self.block_rows[block] += len(times)
        counts = np.bincount(bins, minlength=BINS)
        self.histograms[block] = self.histograms.get(block, 0) + counts
        sums = self.label_sums.setdefault(block, Counter())
        for task in self.tasks:
            sums[task] += pc.sum(rows[task]).as_py()

    def _write_values(self, blocks: dict[int, pa.Table]) -> None:
        name = self._name("values")
        marks = write_values(storage.join(self.uri, name), self.fields, blocks)
        self.value_files.append(name)
        for field in self.fields:
            self.marks[field] += marks[field]

    def _name(self, what: str) -> str:
        return f"{STAGING}/part-{self.number:05d}/{what}-{self.runs:05d}.arrow"

    def _write_quarantine(self) -> None:
        name = f"part-{self.number:05d}-{self.quarantine_files:05d}.parquet"
        table = pa.table(
            {
                "part": pa.array([self.number] * len(self.bad), pa.int32()),
                "file": pa.array([self.part.place.rpartition("/")[2]] * len(self.bad)),
                "row": pa.array([row.row for row in self.bad], pa.int64()),
                "reason": pa.array([row.reason for row in self.bad], pa.string()),
                "raw": pa.array([row.raw for row in self.bad], pa.string()),
            }
        )
        storage.write_parquet(storage.join(self.uri, QUARANTINE, name), table)
        self.quarantine_files += 1
        self.bad = []


def _cells(rows: pa.Table, times: np.ndarray, bins: np.ndarray) -> list[Cell]:
    """Rows in time order as cells of about `CELL_ROWS`, whole bins each; keys: first, last ms."""
    starts = np.flatnonzero(np.diff(bins, prepend=-1))
    _, first_of_cell = np.unique(starts // CELL_ROWS, return_index=True)
    bounds = [*starts[first_of_cell].tolist(), len(times)]
    return [
        ([int(times[low]), int(times[high - 1])], rows.slice(low, high - low))
        for low, high in itertools.pairwise(bounds)
    ]
