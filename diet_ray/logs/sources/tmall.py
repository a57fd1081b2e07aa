"""Tmall's raw log (IJCAI-15, repeat buyers): every action of 424,170 users, May to November 2014.

Files in `logs.path`: `user_log_format1.csv` (the actions) and `user_info_format1.csv` (the users).
Time stamps are month and day (`1111`, `511`) without year or clock time, so a row's time is the
midnight at which its day begins, and the finest time slot is a day. The field `weekday` stands for
it (1 Monday to 7 Sunday): every block but the last two holds each of its values several times,
while a day of the month would be known from at most three days, and a month never before it comes.
"""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc

from diet_ray import storage
from diet_ray.config import LogsConfig
from diet_ray.logs.blocks import TIME_MS
from diet_ray.logs.sources import csv_files
from diet_ray.logs.sources.actions import ACTIONS, TASKS, action_labels
from diet_ray.logs.sources.side_table import SideTable, load_side_table
from diet_ray.logs.sources.source import (
    ROW,
    LogsError,
    Part,
    RawBatch,
    choose,
    fingerprint_of,
    raw_file,
)
from diet_ray.logs.sources.values import as_integers, as_time_ms, weekday

LOG, USERS = "user_log_format1.csv", "user_info_format1.csv"
DOWNLOAD = "https://tianchi.aliyun.com/dataset/dataDetail?dataId=42"
YEAR = "2014"
LOG_FIELDS = ("user_id", "item_id", "cat_id", "seller_id", "brand_id")
USER_FIELDS = ("age_range", "gender")
FIELDS = (*LOG_FIELDS, *USER_FIELDS, "weekday")
# Besides a missing value; one id for "unknown" is enough.
UNKNOWN = {"age_range": "0", "gender": "2"}
CODES = {"click": "0", "cart": "1", "buy": "2", "favourite": "3"}
COLUMNS = {LOG: (*LOG_FIELDS, "time_stamp", "action_type"), USERS: ("user_id", *USER_FIELDS)}


class Tmall:
    """The source `tmall`."""

    def __init__(self, logs: LogsConfig) -> None:
        """Raises LogsError for missing files or columns, and for unknown fields or tasks."""
        assert logs.path is not None
        self.timezone, self.bad_rows_limit = logs.timezone, logs.bad_rows_limit
        self.tasks = choose("logs.tasks", logs.tasks, TASKS if logs.tasks is None else ACTIONS)
        self.fields = choose("logs.fields", logs.fields, FIELDS)
        self.user_fields = [field for field in self.fields if field in USER_FIELDS]
        names = (LOG, USERS) if self.user_fields else (LOG,)
        self.files = {name: raw_file(logs.path, name, DOWNLOAD) for name in names}
        for name, uri in self.files.items():
            missing = sorted(set(COLUMNS[name]) - set(csv_files.header(uri)))
            if missing:
                raise LogsError(
                    f"{uri}: no column {', '.join(missing)}; is it the raw file, with its header, "
                    f"from {DOWNLOAD}?"
                )

    def parts(self) -> list[Part]:
        return csv_files.parts(self.files[LOG])

    def load_shared(self) -> SideTable | None:
        """The users' features, if any is a field. Raises LogsError for a damaged file."""
        if not self.user_fields:
            return None
        return load_side_table(
            [self.files[USERS]], "user_id", self.user_fields, self.bad_rows_limit
        )

    def read(self, part: Part, shared: SideTable | None) -> Iterator[RawBatch]:
        types = {name: pa.string() for name in COLUMNS[LOG]}
        for raw, malformed in csv_files.read(part, types):
            times = _midnights(raw["time_stamp"], self.timezone)
            offered = {field: raw[field] for field in LOG_FIELDS}
            offered["weekday"] = weekday(times, self.timezone)
            if shared is not None:
                users = shared.look_up(as_integers(raw["user_id"]))
                offered |= {field: _known(users, field) for field in self.user_fields}
            columns = {ROW: raw[ROW], TIME_MS: times}
            columns |= {field: offered[field] for field in self.fields}
            columns |= action_labels(raw["action_type"], CODES, self.tasks)
            yield RawBatch(pa.table(columns), raw.drop_columns([ROW]), tuple(malformed))

    def fingerprint(self) -> str:
        return fingerprint_of(self.files.values())

    def source_bytes(self) -> int:
        return sum(storage.size(uri) for uri in self.files.values())


def _midnights(column: pa.ChunkedArray, timezone: str) -> pa.ChunkedArray:
    month_and_day = pc.utf8_lpad(column, 4, "0")
    dates = pc.binary_join_element_wise(YEAR, month_and_day, "")
    return as_time_ms(dates, "%Y%m%d", timezone)


def _known(users: pa.Table, field: str) -> pa.ChunkedArray:
    column = users[field].cast(pa.string())
    return pc.if_else(pc.equal(column, UNKNOWN[field]), None, column)
