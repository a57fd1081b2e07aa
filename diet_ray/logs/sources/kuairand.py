"""KuaiRand's raw release (Gao et al., CIKM 2022); Pure, 1K and 27K share the layout.

Files directly below `logs.path`: `log_standard*.csv` (the interactions),
`user_features*.csv` and `video_features_basic*.csv`. A field is any column of the three that is
known before the interaction.
"""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

from diet_ray import storage
from diet_ray.config import LogsConfig
from diet_ray.logs.blocks import TIME_MS
from diet_ray.logs.sources import csv_files
from diet_ray.logs.sources.side_table import SideTable, load_side_table
from diet_ray.logs.sources.source import (
    ROW,
    LogsError,
    Part,
    RawBatch,
    choose,
    fingerprint_of,
    nearest,
)
from diet_ray.logs.sources.values import as_integers, as_numbers

FIELDS = (
    "user_id",
    "video_id",
    "author_id",
    "tab",
    "video_type",
    "upload_type",
    "music_id",
    "music_type",
    "tag",
    "user_active_degree",
    "is_lowactive_period",
    "is_live_streamer",
    "is_video_author",
    "follow_user_num_range",
    "fans_user_num_range",
    "friend_user_num_range",
    "register_days_range",
)
TASKS = ("is_click", "long_view", "is_like")
LABELS = (*TASKS, "is_follow", "is_comment", "is_forward", "is_hate", "is_profile_enter")
FEEDBACK = (*LABELS, "play_time_ms", "profile_stay_time", "comment_stay_time")
DOWNLOAD = "https://kuairand.com"
LOG, USER, VIDEO = "log_standard", "user_features", "video_features_basic"
KEYS = {USER: "user_id", VIDEO: "video_id"}


class KuaiRand:
    """The source `kuairand`."""

    def __init__(self, logs: LogsConfig) -> None:
        """Raises LogsError for missing files or columns, and for feedback named as a field."""
        assert logs.path is not None
        self.folder = logs.path
        self.bad_rows_limit = logs.bad_rows_limit
        self.files = {kind: self._find(kind) for kind in (LOG, USER, VIDEO)}
        if not self.files[LOG]:
            raise LogsError(
                f"{self.folder}: no {LOG}*.csv; download KuaiRand from {DOWNLOAD} and set "
                "logs.path to the folder of its raw files"
            )
        self.tasks = choose("logs.tasks", logs.tasks, TASKS if logs.tasks is None else LABELS)
        self.fields = tuple(FIELDS if logs.fields is None else logs.fields)
        _refuse_feedback(self.fields)
        self.log_columns = csv_files.header(self.files[LOG][0])
        self.homes = self._find_homes()
        self._check_columns()

    def _find(self, kind: str) -> list[str]:
        files = storage.list_files(self.folder, ".csv")
        return [uri for uri in files if uri.rpartition("/")[2].startswith(kind)]

    def _find_homes(self) -> dict[str, str]:
        """Which kind of file holds each field; the log where several do."""
        offered = {LOG: self.log_columns}
        for kind in (USER, VIDEO):
            offered[kind] = csv_files.header(self.files[kind][0]) if self.files[kind] else []
        homes = {}
        for field in self.fields:
            home = next((kind for kind in offered if field in offered[kind]), None)
            if home is None:
                absent = [f"{kind}*.csv" for kind in (USER, VIDEO) if not self.files[kind]]
                if absent:
                    remedy = f"{' and '.join(absent)} missing in {self.folder}: put it there"
                else:
                    known = {name for names in offered.values() for name in names}
                    remedy = nearest(field, sorted(known - set(FEEDBACK)))
                raise LogsError(
                    f"{self.folder}: no file has a column for field {field!r}; {remedy}"
                )
            homes[field] = home
        return homes

    def _check_columns(self) -> None:
        wanted = {LOG: {TIME_MS, *self.tasks}, USER: set(), VIDEO: set()}
        for field, kind in self.homes.items():
            wanted[kind].add(field)
        for kind, key in KEYS.items():
            if wanted[kind]:
                wanted[kind].add(key)
                wanted[LOG].add(key)
        for kind, columns in wanted.items():
            for uri in self.files[kind] if columns else ():
                missing = sorted(columns - set(csv_files.header(uri)))
                if missing:
                    raise LogsError(
                        f"{uri}: no column {', '.join(missing)}; is it the raw KuaiRand file, with "
                        "its header?"
                    )

    def parts(self) -> list[Part]:
        return [part for uri in self.files[LOG] for part in csv_files.parts(uri)]

    def load_shared(self) -> dict[str, SideTable]:
        """The side tables that hold fields, by kind. Raises LogsError for a damaged one."""
        tables = {}
        for kind, key in KEYS.items():
            fields = [field for field in self.fields if self.homes[field] == kind]
            if fields:
                tables[kind] = load_side_table(self.files[kind], key, fields, self.bad_rows_limit)
        return tables

    def read(self, part: Part, shared: dict[str, SideTable]) -> Iterator[RawBatch]:
        types = {name: pa.string() for name in self.log_columns}
        for raw, malformed in csv_files.read(part, types):
            columns = {ROW: raw[ROW], TIME_MS: as_integers(raw[TIME_MS])}
            features = {
                kind: table.look_up(as_integers(raw[KEYS[kind]])) for kind, table in shared.items()
            }
            for field in self.fields:
                home = self.homes[field]
                column = raw[field] if home == LOG else features[home][field]
                columns[field] = column.cast(pa.string())
            columns |= {task: as_numbers(raw[task]) for task in self.tasks}
            yield RawBatch(pa.table(columns), raw.drop_columns([ROW]), tuple(malformed))

    def fingerprint(self) -> str:
        return fingerprint_of(uri for kind in sorted(self.files) for uri in self.files[kind])

    def source_bytes(self) -> int:
        used = {LOG, *self.homes.values()}
        return sum(storage.size(uri) for kind in used for uri in self.files[kind])


def _refuse_feedback(fields: tuple[str, ...]) -> None:
    for field in fields:
        if field in FEEDBACK:
            raise LogsError(
                f"logs.fields: {field!r} is feedback, known only after the interaction; as a "
                "feature it would leak the label. Remove it from logs.fields"
            )
