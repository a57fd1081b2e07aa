"""Raw logs: where they come from, and the time intervals that they are cut into."""

from __future__ import annotations

import itertools
from datetime import date, datetime, time, timedelta
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from diet_ray.config.section import (
    Buckets,
    HeldCount,
    NetworkSize,
    NonNegative,
    Place,
    PositiveInt,
    RowCount,
    Section,
    Share,
)


def _end_of(text: str) -> datetime:
    """The end that a bare date (through that day) or a date with a clock time (exclusive) means."""
    try:
        return datetime.combine(date.fromisoformat(text), time(0)) + timedelta(days=1)
    except ValueError:
        return datetime.fromisoformat(text)


class Interval(BaseModel):
    """A half-open time interval in the log's own time zone, written ``2022-04-25..2022-04-27``.

    A bare date as the end means *through* that day; an end with a clock time is exclusive.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    start: datetime
    end: datetime

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        if isinstance(value, date):
            value = value.isoformat()
        if not isinstance(value, str):
            return value
        first, separator, second = value.partition("..")
        try:
            end = _end_of(second if separator else first)
            return {"start": datetime.fromisoformat(first), "end": end}
        except (ValueError, OverflowError):
            raise ValueError(
                f"{value!r} is not an interval; write 2022-04-25..2022-04-27, one date, "
                "or 2022-04-25T00:00..2022-04-25T12:00"
            ) from None

    @model_validator(mode="after")
    def _not_empty(self) -> Interval:
        if self.start.tzinfo or self.end.tzinfo:
            raise ValueError(f"the interval {self} has an offset; set logs.timezone instead")
        if self.start >= self.end:
            raise ValueError(f"the interval {self} ends before it starts")
        return self

    def bounds_ms(self, timezone: str) -> tuple[int, int]:
        """First and one-past-last millisecond since the epoch."""
        zone = ZoneInfo(timezone)
        start, end = (
            round(t.replace(tzinfo=zone).timestamp() * 1000) for t in (self.start, self.end)
        )
        return start, end

    def __str__(self) -> str:
        return f"{self.start.isoformat()}..{self.end.isoformat()}"


class IntervalsConfig(Section):
    historical: Annotated[list[Interval], Field(min_length=1)]
    """Blocks D_1..D_T that are distilled, oldest first."""
    subsequent: Interval
    """The block on which a candidate is trained for one epoch after its warm-up."""
    validation: Interval
    """Chooses a candidate's warm-up epoch; never trained on."""
    test: Interval
    """Judges; never used to choose anything."""

    def named(self) -> list[tuple[str, Interval]]:
        """Block name and interval in stream order; historical ones are ``historical-1``.."""
        blocks = [(f"historical-{t}", i) for t, i in enumerate(self.historical, start=1)]
        return [
            *blocks,
            ("subsequent", self.subsequent),
            ("validation", self.validation),
            ("test", self.test),
        ]

    @model_validator(mode="after")
    def _in_time_order(self) -> IntervalsConfig:
        named = self.named()
        for (before, a), (after, b) in itertools.pairwise(named):
            if b.start < a.end:
                raise ValueError(
                    f"{after} ({b}) overlaps or precedes {before} ({a}); give the intervals in "
                    "time order without overlap"
                )
        return self


class TableConfig(Section):
    format: Literal["parquet", "csv"] = "parquet"
    """File format of the files at `logs.path`."""
    delimiter: str = ","
    """Between the values of a CSV file: one character, such as `;`, or `\\t` for a tab."""
    time_column: str
    """Column (or key of `key=value` folders) that holds the time of the interaction."""
    time_unit: str = "ms"
    """`s`, `ms`, `us`, `ns` since the epoch, or a strptime pattern such as `%Y-%m-%d %H:%M:%S`."""
    fields: Annotated[list[str], Field(min_length=1)]
    """Columns that are features; each becomes one categorical field."""
    tasks: Annotated[dict[str, str], Field(min_length=1)]
    """Task name to a 0/1 column, or to an expression such as `rating >= 4`."""
    feedback: list[str] = []
    """Columns known only after the interaction; naming one as a field is refused."""

    @field_validator("delimiter")
    @classmethod
    def _one_character(cls, value: str) -> str:
        value = "\t" if value == "\\t" else value
        if len(value) != 1 or not value.isascii() or value in '"\r\n':
            raise ValueError(
                f"{value!r} is not one character; write `,`, `;`, `|` or `\\t`. A file "
                "with a longer one, such as `::`, must be rewritten first"
            )
        return value


class SyntheticConfig(Section):
    rows: RowCount = 120_000
    """Rows of the whole log; row i is a pure function of (seed, i)."""
    users: HeldCount = 2_000
    items: HeldCount = 1_500
    categories: HeldCount = 20
    latent_dim: NetworkSize = 6
    """Width of the planted user and item vectors."""
    days: PositiveInt = 7
    """The log spans this many days from `start`, rows evenly in time."""
    start: date = date(2024, 1, 1)
    drift: NonNegative = 0.5
    """How far (radians) a user's taste turns over the log; 0 keeps it still."""
    rows_per_part: HeldCount = 32_768
    """Rows that one task generates at a time."""


class LogsConfig(Section):
    source: Literal["kuairand", "tmall", "taobao", "table", "synthetic"]
    """Where the raw log comes from."""
    path: Place | None = None
    """Folder of the raw files (any URI); for `table` also a file, a glob such as
    `raw/day=*/*.parquet`, or a folder with `day=1/` partitions. Not used by `synthetic`."""
    intervals: IntervalsConfig
    timezone: str = "UTC"
    """Time zone in which the intervals are meant."""
    fields: list[str] | None = None
    """Features to keep, in this order; default: all that the source offers."""
    tasks: list[str] | None = None
    """Tasks to keep, in this order; default: all that the source offers."""
    hash_buckets: dict[str, Buckets] = {}
    """Fields encoded as 1 + hash(value) mod buckets instead of by a vocabulary."""
    fragment_rows: HeldCount = 262_144
    """Most rows of a Parquet file, which one scoring worker reads, holds and scores at a time. A
    block has sixteen files at least, so that several workers end together, unless they would have
    fewer rows than a row group."""
    row_group_rows: HeldCount = 65_536
    """Rows per Parquet row group."""
    most_rows: RowCount | None = None
    """About how many rows of the raw log are kept, drawn one by one; default: all. For a first try:
    what a model learns of an id becomes less, and so do all scores."""
    bad_rows_limit: Share = 0.001
    """Share of unusable rows (quarantined, counted) above which the job stops."""
    table: TableConfig | None = None
    """Schema of a `table` source."""
    synthetic: SyntheticConfig = SyntheticConfig()

    @field_validator("timezone")
    @classmethod
    def _known_timezone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (ZoneInfoNotFoundError, ValueError):
            raise ValueError(
                f"{value!r} is not a time zone; use a name such as Asia/Shanghai"
            ) from None
        return value

    @model_validator(mode="after")
    def _source_is_described(self) -> LogsConfig:
        if self.source != "synthetic" and not self.path:
            raise ValueError(f"source {self.source!r} needs logs.path, the folder of its raw files")
        if self.source == "table" and self.table is None:
            raise ValueError("source 'table' needs logs.table (time_column, fields, tasks)")
        return self
