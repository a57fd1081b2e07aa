"""What all staged parts hold together: their ledgers, taken one at a time and added up, so that
no process holds the histograms of each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from diet_ray.logs.staging import BINS, Ledger, StagedFile


def total(counts: Iterable[dict[str, int]]) -> dict[str, int]:
    """By reason, block, task or field, the sum of all."""
    summed: Counter[str] = Counter()
    for count in counts:
        summed.update(count)
    return dict(sorted(summed.items()))


@dataclass
class StagedLog:
    """A ledger of the whole log; lists in the order of the parts."""

    rows: int = 0  # read, with the unusable ones
    outside: int = 0
    first_ms: int | None = None  # over all usable rows, in a block or not
    last_ms: int | None = None
    quarantined: dict[str, int] = field(default_factory=dict)
    first_bad: dict[str, Any] | None = None
    files: list[StagedFile] = field(default_factory=list)
    value_files: list[str] = field(default_factory=list)
    marks: dict[str, list[str]] = field(default_factory=dict)  # field -> values, evenly spread
    block_rows: dict[str, int] = field(default_factory=dict)
    label_sums: dict[str, dict[str, int]] = field(default_factory=dict)  # block -> task -> ones
    histograms: dict[str, np.ndarray] = field(default_factory=dict)  # block -> (BINS,) rows

    def add(self, part: Ledger) -> None:
        """Take the next part's ledger."""
        self.rows += part.rows
        self.outside += part.outside
        times = [self.first_ms, self.last_ms, part.first_ms, part.last_ms]
        known = [ms for ms in times if ms is not None]
        self.first_ms, self.last_ms = min(known, default=None), max(known, default=None)
        self.quarantined = total([self.quarantined, part.quarantined])
        self.first_bad = self.first_bad or part.first_bad
        self.files += part.files
        self.value_files += part.value_files
        for name, values in part.marks.items():
            self.marks.setdefault(name, []).extend(values)
        self.block_rows = total([self.block_rows, part.block_rows])
        for block, ones in part.label_sums.items():
            self.label_sums[block] = total([self.label_sums.get(block, {}), ones])
        for block, rows in part.histograms.items():
            histogram = self.histograms.setdefault(block, np.zeros(BINS, np.int64))
            histogram += np.asarray(rows, np.int64)


def staged_log(ledgers: Iterable[Ledger]) -> StagedLog:
    """The ledgers of all parts, in their order, as one."""
    log = StagedLog()
    for ledger in ledgers:
        log.add(ledger)
    return log
