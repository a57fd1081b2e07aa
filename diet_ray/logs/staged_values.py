"""The values that occur in a staged run: written sorted, read by ranges of text.

A cell holds at most `CELL_VALUES` values of one field in one block, each once and in the order of
their text, a missing one first. The cells' first values are marks: about every `CELL_VALUES`-th
value that a field has in the whole log, from which `ranges` cuts it into pieces for one task each.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from diet_ray.logs.cells import Cell, read_cells, write_cells

CELL_VALUES = 1 << 12
RANGE_MARKS = 1 << 10

Range = tuple[str | None, str | None]  # from the first value until before the second; None: no end


def write_values(
    uri: str, fields: Sequence[str], blocks: Mapping[int, pa.Table]
) -> dict[str, list[str]]:
    """Write the values in a run's rows; returns field -> marks.

    blocks: number of a block in stream order -> the run's rows in it; at least one.
    """
    cells: list[Cell] = []
    marks: dict[str, list[str]] = {field: [] for field in fields}
    for field in fields:
        for block, rows in blocks.items():
            values = pc.unique(rows[field])
            values = values.take(pc.array_sort_indices(values, null_placement="at_start"))
            for start in range(0, len(values), CELL_VALUES):
                part = values.slice(start, CELL_VALUES)
                first, last = part[0].as_py() or "", part[-1].as_py() or ""
                cells.append(([field, block, first, last], pa.table({"value": part})))
                if start:
                    marks[field].append(first)
    write_cells(uri, cells)
    return marks


def ranges(marks: Iterable[str]) -> list[Range]:
    """Ranges that hold all text, each with about `RANGE_MARKS` of the marks."""
    cuts = sorted(marks)[RANGE_MARKS::RANGE_MARKS]
    return list(itertools.pairwise([None, *dict.fromkeys(cuts), None]))


def read_values(uri: str, field: str, within: Range, blocks: int) -> Iterator[pa.Table]:
    """A field's values in a range of text, with the block's number: columns value, block.

    Of the first `blocks` blocks. A missing value counts as the text of least order, the empty one.
    """
    low, high = within

    def wanted(key: list[Any]) -> bool:
        name, block, first, last = key
        inside = (low is None or last >= low) and (high is None or first < high)
        return name == field and block < blocks and inside

    for (_, block, first, last), cell in read_cells(uri, wanted):
        values = cell["value"]
        if low is not None and first < low:
            values = values.filter(pc.greater_equal(values, low))
        if high is not None and last >= high:
            values = values.filter(pc.less(values, high).fill_null(True))
        yield pa.table({"value": values, "block": pa.repeat(pa.scalar(block), len(values))})
