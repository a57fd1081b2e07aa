"""What an id costs while a log is prepared."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa

from diet_ray import storage
from diet_ray.bench.measure import Figure, Found, Goal, Measure, Needs, size
from diet_ray.bench.peaks import Peaks, in_child, own_ray, watched
from diet_ray.bench.scoring import PROCESS_BYTES
from diet_ray.config import RunConfig
from diet_ray.logs.prepare import prepare
from diet_ray.seeds import numpy_generator

DAY_MS = 86_400_000
FIRST_MS = 1_704_067_200_000  # 2024-01-01 UTC
LAST_ROWS = 1_000  # of each of the three blocks after the historical one
FILE_ROWS = 500_000
TIMES = 5  # that an id comes in the log with fewer
MOST_BYTES_PER_ID = 14
"""In one process, beside what each takes: 12 of the encoder's index, and a little while its parts
are sorted."""
RAW_BYTES_PER_ROW = 60  # of the raw log and of what is staged and encoded of it


@dataclass(frozen=True)
class Vocabulary(Measure):
    """Bytes an id takes in a worker, and in the driver, while a log is prepared.

    Two logs of one field and equally many rows are prepared, each by a process and a Ray of its
    own: in one every row has its own id, a text of 12 characters, in the other the same fifth of
    the ids comes five times, each time in the same order. So a part or a fragment holds as many
    different ids in both, and what the peak of a process rises from one to the other, over the ids
    that the one has more, is the vocabulary.
    """

    name: ClassVar[str] = "vocabulary"
    ids: int = size(5_000_000, "ids of the field, and rows")

    def needs(self) -> Needs:
        processes = 3  # a driver and two workers
        memory = processes * (PROCESS_BYTES + MOST_BYTES_PER_ID * self.ids)
        return Needs(memory, 2 * RAW_BYTES_PER_ROW * self.ids)

    def run(self, folder: str) -> Found:
        fewer = max(self.ids // TIMES, 1)
        few, many = (
            in_child(prepared_peaks, f"{folder}/{ids}", self.ids, ids) for ids in (fewer, self.ids)
        )
        per_id = 1 / max(self.ids - fewer, 1)
        workers = (many.largest_worker - few.largest_worker) * per_id
        driver = (many.driver - few.driver) * per_id
        of = f"{self.ids:,} ids in one field"
        return Found(
            [
                Figure(
                    f"bytes an id in the largest worker of a preparation, {of}",
                    workers,
                    Goal(high=16),
                    "B",
                    {
                        "few MB": few.largest_worker / 1e6,
                        "many MB": many.largest_worker / 1e6,
                    },
                ),
                Figure(
                    f"bytes an id in its driver, {of}",
                    driver,
                    unit="B",
                    parts={"few MB": few.driver / 1e6, "many MB": many.driver / 1e6},
                ),
            ]
        )


def prepared_peaks(folder: str, rows: int, ids: int) -> Peaks:
    """Peaks of a preparation of `rows` rows that hold `ids` ids; in a process of its own."""
    write_log(folder, rows, ids)
    config = RunConfig.model_validate(
        {
            "output": f"{folder}/run",
            "logs": {
                "source": "table",
                "path": f"{folder}/raw",
                "table": {"time_column": "time", "fields": ["id"], "tasks": {"click": "click"}},
                "intervals": {
                    "historical": ["2024-01-01"],
                    "subsequent": "2024-01-02",
                    "validation": "2024-01-03",
                    "test": "2024-01-04",
                },
            },
        }
    )
    with own_ray(), watched() as peaks:
        prepare(config)
    return peaks


def write_log(folder: str, rows: int, ids: int) -> None:
    """A raw log as Parquet files: a first day of `rows` rows, and three short ones."""
    order = numpy_generator(0, "ids").permutation(ids)[np.arange(rows) % ids]
    for number, start in enumerate(range(0, rows, FILE_ROWS)):
        part = order[start : start + FILE_ROWS]
        times = FIRST_MS + np.arange(start, start + len(part)) * DAY_MS // rows
        storage.write_parquet(f"{folder}/raw/part-{number:05d}.parquet", _table(part, times))
    times = FIRST_MS + DAY_MS + np.arange(3 * LAST_ROWS) * DAY_MS // LAST_ROWS
    last = np.arange(3 * LAST_ROWS) % ids
    storage.write_parquet(f"{folder}/raw/part-last.parquet", _table(last, times))


def _table(ids: np.ndarray, times: np.ndarray) -> pa.Table:
    return pa.table(
        {
            "time": times,
            "id": pa.array(_texts(ids)),
            "click": (ids % 2).astype(np.int64),
        }
    )


def _texts(ids: np.ndarray) -> Iterator[str]:
    """Each id as 12 characters."""
    return (f"u{number:011d}" for number in ids.tolist())
