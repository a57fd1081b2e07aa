"""Raw columns of any type become text, numbers or times; what cannot be parsed becomes null."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as kinds

LARGEST_TIME_MS = 10**15  # the year 33658; beyond it a number is no time stamp
WHOLE_NUMBER = r"^[+-]?[0-9]{1,18}$|^[+-]?[1-8][0-9]{18}$"
LONGEST_NUMBER = 400  # characters; 1e308 has 309 digits
PER_MILLISECOND = {"us": 1_000, "ns": 1_000_000}


def without_views(table: pa.Table) -> pa.Table:
    """The table with views of text and bytes as plain ones: rows cannot be taken out of views."""
    for place, kind in enumerate(table.schema.types):
        plain = {pa.string_view(): pa.string(), pa.binary_view(): pa.binary()}.get(kind)
        if plain is not None:
            name = table.schema.names[place]
            table = table.set_column(place, name, table.column(place).cast(plain))
    return table


def as_text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column as strings; NaN is null. Raises pa.ArrowInvalid for nested types."""
    if kinds.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if kinds.is_floating(column.type):
        column = _without_nan(column)
    if kinds.is_nested(column.type):
        raise pa.ArrowInvalid(f"type {column.type} is not one categorical value")
    return column.cast(pa.string())


def as_numbers(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column as float64, null where there is no finite number."""
    if kinds.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if _is_text(column.type):
        column = column.cast(pa.string()) if kinds.is_string_view(column.type) else column
        short = pc.less_equal(pc.binary_length(column), LONGEST_NUMBER)
        column = pc.if_else(short, column, None)
        try:
            column = column.cast(pa.float64())
        except pa.ArrowInvalid:
            loose = pd.to_numeric(column.to_pandas().astype(object), errors="coerce")
            column = pa.chunked_array([pa.array(loose.to_numpy(np.float64), from_pandas=True)])
    column = column.cast(pa.float64(), safe=False)
    return pc.if_else(pc.is_finite(column), column, None)


def as_integers(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column as int64, null where there is no number; fractions are cut off."""
    if kinds.is_integer(column.type) and column.type != pa.uint64():
        return column.cast(pa.int64())
    if _is_text(column.type):
        try:
            return column.cast(pa.int64())
        except pa.ArrowInvalid:
            whole = pc.match_substring_regex(column, WHOLE_NUMBER)
            exact = pc.if_else(whole, column, None)
            loose = _truncated(as_numbers(pc.if_else(whole, None, column)))
            return pc.coalesce(exact.cast(pa.int64()), loose)
    return _truncated(as_numbers(column))


def as_time_ms(column: pa.ChunkedArray, unit: str, timezone: str) -> pa.ChunkedArray:
    """A column as milliseconds since the epoch (int64), null where it holds no time.

    Arrow time stamps and dates explain themselves; other columns are numbers in `unit` (s, ms,
    us, ns), or text in the strptime pattern `unit`. What names no zone is meant in `timezone`.
    """
    if kinds.is_timestamp(column.type) or kinds.is_date(column.type):
        instants = column if kinds.is_timestamp(column.type) else column.cast(pa.timestamp("ms"))
        if instants.type.tz is None:
            instants = _placed(instants, timezone)
        times = instants.cast(pa.timestamp("ms", "UTC"), safe=False).cast(pa.int64())
    elif "%" in unit:
        times = _parsed(as_text(column), unit, timezone)
    elif unit == "s":
        seconds = as_numbers(column)
        times = _truncated(pc.floor(pc.multiply(seconds, 1000.0)))
    else:
        numbers = as_integers(column)
        times = pc.divide(numbers, PER_MILLISECOND.get(unit, 1))
    return pc.if_else(pc.less(pc.abs(times), LARGEST_TIME_MS), times, None)


def hour_of_day(times_ms: pa.ChunkedArray, timezone: str) -> pa.ChunkedArray:
    """The hour of these times (int64) on the zone's clocks as text, 0 to 23."""
    return pc.hour(times_ms.cast(pa.timestamp("ms", timezone))).cast(pa.string())


def weekday(times_ms: pa.ChunkedArray, timezone: str) -> pa.ChunkedArray:
    """The weekday of these times (int64) in the zone as text, 1 (Monday) to 7 (Sunday)."""
    local = times_ms.cast(pa.timestamp("ms", timezone))
    return pc.day_of_week(local, count_from_zero=False).cast(pa.string())


def _placed(naive: pa.ChunkedArray, timezone: str) -> pa.ChunkedArray:
    return pc.assume_timezone(naive, timezone, ambiguous="earliest", nonexistent="latest")


def _parsed(text: pa.ChunkedArray, pattern: str, timezone: str) -> pa.ChunkedArray:
    zoned = "%z" in pattern
    instants = pd.to_datetime(
        text.to_pandas().astype(object), format=pattern, errors="coerce", utc=zoned
    )
    column = pa.chunked_array([pa.Array.from_pandas(instants)])
    if not zoned:
        column = _placed(column.cast(pa.timestamp("us"), safe=False), timezone)
    return column.cast(pa.timestamp("ms", "UTC"), safe=False).cast(pa.int64())


def _is_text(kind: pa.DataType) -> bool:
    return kinds.is_string(kind) or kinds.is_large_string(kind) or kinds.is_string_view(kind)


def _without_nan(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.if_else(pc.is_nan(column), None, column)


def _truncated(numbers: pa.ChunkedArray) -> pa.ChunkedArray:
    usable = pc.less(pc.abs(numbers), 2.0**62)
    return pc.if_else(usable, numbers, None).cast(pa.int64(), safe=False)
