"""First pass: one part of the log, checked and split by block.

Protocol: a part is staged by one task, whatever happens to the others. Below its own folder
`staging/part-00000/` it leaves

 - `<block>-00000.parquet`..: usable rows as text, each file sorted by time and no larger than
   `RUN_ROWS`, so that a task never holds more
 - `values.parquet`: one row per block, one list column per field: the values that occur
 - `ledger.json`, published last: counts, times, histograms; a part that has one is not read again

and beside it, below `quarantine/`, the rows that cannot be used.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from diet_ray import storage
from diet_ray.logs.blocks import TIME_MS
from diet_ray.logs.cleaning import clean
from diet_ray.logs.sources.source import BadRow, Part, Source

STAGING, QUARANTINE = "staging", "quarantine"
BINS = 4096
RUN_ROWS = 1 << 19
RUN_GROUP_ROWS = 1 << 14
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
    block_rows: dict[str, int]
    label_sums: dict[str, dict[str, int]]  # block -> task -> ones
    histograms: dict[str, list[int]]  # block -> rows per bin


def part_folder(uri: str, part: int) -> str:
    """Where a part is staged."""
    return storage.join(uri, STAGING, f"part-{part:05d}")


def read_ledger(uri: str, part: int) -> Ledger:
    """A finished part's ledger. Raises FileNotFoundError, StorageError."""
    content = storage.read_json(storage.join(part_folder(uri, part), "ledger.json"))
    content["files"] = tuple(StagedFile(**file) for file in content["files"])
    return Ledger(**content)


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
        self.files: list[StagedFile] = []
        self.block_rows: Counter[str] = Counter()
        self.label_sums: dict[str, Counter[str]] = {}
        self.histograms: dict[str, np.ndarray] = {}
        self.values: dict[str, dict[str, pa.Array]] = {}

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
        """Write what waits, then values, then the ledger."""
        if self.waiting_rows:
            self._write_run()
        if self.bad:
            self._write_quarantine()
        storage.write_parquet(values_uri(self.uri, self.number), self._value_table())
        ledger = Ledger(
            part=self.number,
            rows=self.rows,
            outside=self.outside,
            first_ms=self.first_ms,
            last_ms=self.last_ms,
            quarantined=dict(self.quarantined),
            first_bad=self._place_of(self.first_bad),
            files=tuple(self.files),
            block_rows=dict(self.block_rows),
            label_sums={block: dict(sums) for block, sums in self.label_sums.items()},
            histograms={block: bins.tolist() for block, bins in self.histograms.items()},
        )
        place = storage.join(part_folder(self.uri, self.number), "ledger.json")
        storage.write_json(place, asdict(ledger))
        return ledger

    def _place_of(self, bad: BadRow | None) -> dict[str, Any] | None:
        return {"file": self.part.place, **asdict(bad)} if bad else None

    def _write_run(self) -> None:
        rows = pa.concat_tables(self.waiting)
        self.waiting, self.waiting_rows = [], 0
        times = rows[TIME_MS].to_numpy()
        order = np.argsort(times, kind="stable")
        times = times[order]
        used = 0
        for window in self.windows:
            low, high = np.searchsorted(times, [window.start, window.end])
            if low < high:
                self._write_block(window, rows.take(order[low:high]), times[low:high])
                used += int(high - low)
        self.outside += len(times) - used

    def _write_block(self, window: Window, rows: pa.Table, times: np.ndarray) -> None:
        block = window.block
        run = sum(file.block == block for file in self.files)
        name = f"{STAGING}/part-{self.number:05d}/{block}-{run:05d}.parquet"
        storage.write_parquet(storage.join(self.uri, name), rows, RUN_GROUP_ROWS)
        self.files.append(StagedFile(self.number, block, name, int(times[0]), int(times[-1])))
        self.block_rows[block] += len(times)
        bins = np.bincount(window.bins(times), minlength=BINS)
        self.histograms[block] = self.histograms.get(block, 0) + bins
        sums = self.label_sums.setdefault(block, Counter())
        for task in self.tasks:
            sums[task] += pc.sum(rows[task]).as_py()
        known = self.values.setdefault(block, {})
        for field in self.fields:
            chunks = [*rows[field].chunks, *([known[field]] if field in known else [])]
            known[field] = pc.unique(pa.chunked_array(chunks))

    def _value_table(self) -> pa.Table:
        blocks = list(self.values)
        columns: dict[str, pa.Array] = {}
        for field in self.fields:
            values = [self.values[block][field] for block in blocks]
            ends = np.cumsum([0, *(len(v) for v in values)])
            flat = pa.concat_arrays(values) if values else pa.array([], pa.string())
            columns[field] = pa.ListArray.from_arrays(pa.array(ends, pa.int32()), flat)
        table = pa.table(columns)
        return table.replace_schema_metadata({"blocks": ",".join(blocks)})

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


def values_uri(uri: str, part: int) -> str:
    """File of the values that occur in a part."""
    return storage.join(part_folder(uri, part), "values.parquet")


def read_values(uri: str, part: int, field: str) -> dict[str, pa.Array]:
    """block -> the values of a field that occur in a part, each once, in no order."""
    with storage.open_parquet(values_uri(uri, part)) as file:
        blocks = file.schema_arrow.metadata[b"blocks"].decode().split(",")
        lists = file.read([field], use_threads=False)[field].combine_chunks()
    if not len(lists):
        return {}
    return {block: lists[i].values for i, block in enumerate(blocks)}
