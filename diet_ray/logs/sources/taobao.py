"""Taobao's raw log (UserBehavior): every action of 987,994 users, 2017-11-25 to 2017-12-03.

One file in `logs.path`, `UserBehavior.csv`, without a header: user, item, category, behaviour
(`pv`, `buy`, `cart`, `fav`), Unix seconds. The field `hour` is the hour of the day, 0 to 23, in
`logs.timezone`. Some 55,000 time stamps lie outside the nine days, down to negative ones and up to
the year 2037; they are times, so such rows are counted as outside the intervals.
"""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

from diet_ray import storage
from diet_ray.config import LogsConfig
from diet_ray.logs.blocks import TIME_MS
from diet_ray.logs.sources import csv_files
from diet_ray.logs.sources.actions import ACTIONS, TASKS, action_labels
from diet_ray.logs.sources.source import (
    ROW,
    LogsError,
    Part,
    RawBatch,
    choose,
    fingerprint_of,
    raw_file,
)
from diet_ray.logs.sources.values import as_time_ms, hour_of_day

LOG = "UserBehavior.csv"
DOWNLOAD = "https://tianchi.aliyun.com/dataset/dataDetail?dataId=649"
LOG_FIELDS = ("user_id", "item_id", "category_id")
FIELDS = (*LOG_FIELDS, "hour")
CODES = {"click": "pv", "cart": "cart", "buy": "buy", "favourite": "fav"}
COLUMNS = (*LOG_FIELDS, "behavior_type", "timestamp")


class Taobao:
    """The source `taobao`."""

    def __init__(self, logs: LogsConfig) -> None:
        """Raises LogsError for a missing or wrong file, and for unknown fields or tasks."""
        assert logs.path is not None
        self.timezone = logs.timezone
        self.tasks = choose("logs.tasks", logs.tasks, TASKS if logs.tasks is None else ACTIONS)
        self.fields = choose("logs.fields", logs.fields, FIELDS)
        self.file = raw_file(logs.path, LOG, DOWNLOAD)
        self._check_first_line()

    def _check_first_line(self) -> None:
        values = csv_files.header(self.file)
        if len(values) != len(COLUMNS) or values[3] not in CODES.values():
            raise LogsError(
                f"{self.file}: the first line is {','.join(values)!r}, not {', '.join(COLUMNS)} "
                f"without a header; is it the raw file from {DOWNLOAD}?"
            )

    def parts(self) -> list[Part]:
        return csv_files.parts(self.file)

    def load_shared(self) -> None:
        """Nothing: every part is complete."""

    def read(self, part: Part, shared: None) -> Iterator[RawBatch]:
        del shared
        types = {name: pa.string() for name in COLUMNS}
        for raw, malformed in csv_files.read(part, types, COLUMNS):
            times = as_time_ms(raw["timestamp"], "s", self.timezone)
            offered = {field: raw[field] for field in LOG_FIELDS}
            offered["hour"] = hour_of_day(times, self.timezone)
            columns = {ROW: raw[ROW], TIME_MS: times}
            columns |= {field: offered[field] for field in self.fields}
            columns |= action_labels(raw["behavior_type"], CODES, self.tasks)
            yield RawBatch(pa.table(columns), raw.drop_columns([ROW]), tuple(malformed))

    def fingerprint(self) -> str:
        return fingerprint_of([self.file])

    def source_bytes(self) -> int:
        return storage.size(self.file)
