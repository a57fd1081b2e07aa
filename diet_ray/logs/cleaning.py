"""Which raw rows can be used; those that cannot keep their reason and their text."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from diet_ray.logs.blocks import TIME_MS
from diet_ray.logs.sources.source import ROW, BadRow, RawBatch

NO_TIME = "time stamp missing or unparsable"


def bad_label(task: str) -> str:
    """The reason for which a row without a usable label is refused."""
    return f"label {task} is not 0 or 1"


def clean(batch: RawBatch, tasks: Sequence[str]) -> tuple[pa.Table, list[BadRow]]:
    """The usable rows, their labels as uint8, and the others with the first reason that applies."""
    rows = batch.rows
    reasons = [NO_TIME, *(bad_label(task) for task in tasks)]
    flaws = [rows[TIME_MS].is_null().to_numpy()]
    for task in tasks:
        usable = pc.or_(pc.equal(rows[task], 0.0), pc.equal(rows[task], 1.0))
        flaws.append(~usable.fill_null(False).to_numpy())
    flawed = np.stack(flaws)  # (1 + K, n)
    at = np.flatnonzero(flawed.any(axis=0))
    bad = list(batch.malformed)
    if len(at):
        raw = batch.raw.take(at).to_pylist()
        numbers = rows[ROW].take(at).to_pylist()
        first = flawed[:, at].argmax(axis=0)
        for number, reason, row in zip(numbers, first, raw, strict=True):
            text = json.dumps(row, ensure_ascii=False, default=str)
            bad.append(BadRow(number, reasons[reason], text))
        rows = rows.filter(pa.array(~flawed.any(axis=0)))
    for task in tasks:
        place = rows.schema.get_field_index(task)
        rows = rows.set_column(place, task, rows[task].cast(pa.uint8()))
    return rows, sorted(bad, key=lambda row: row.row)
