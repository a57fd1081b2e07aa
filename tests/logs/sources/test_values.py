import datetime as dt

import pyarrow as pa
import pytest

from diet_ray.logs.sources.values import (
    as_integers,
    as_numbers,
    as_text,
    as_time_ms,
    hour_of_day,
    weekday,
)

MIDNIGHT = 1_704_038_400_000  # 2024-01-01 00:00 in Shanghai


def chunked(values: list, kind: pa.DataType | None = None) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array(values, kind)])


def test_text_keeps_values_and_loses_nan() -> None:
    assert as_text(chunked([1, None])).to_pylist() == ["1", None]
    assert as_text(chunked([1.5, float("nan")])).to_pylist() == ["1.5", None]
    assert as_text(chunked(["a", ""]).dictionary_encode()).to_pylist() == ["a", ""]
    with pytest.raises(pa.ArrowInvalid, match="not one categorical value"):
        as_text(chunked([[1]]))


def test_numbers() -> None:
    assert as_numbers(chunked(["1", "x", None, "2.5", "inf"])).to_pylist() == [
        1.0,
        None,
        None,
        2.5,
        None,
    ]
    assert as_numbers(chunked([True, False, None])).to_pylist() == [1.0, 0.0, None]


def test_integers_keep_all_digits_beside_garbage() -> None:
    large = 1_650_812_741_436_000_001
    texts = chunked([str(large), "x", "7.9", None, "9" * 30])
    assert as_integers(texts).to_pylist() == [large, None, 7, None, None]
    assert as_integers(chunked([2.0, float("nan")])).to_pylist() == [2, None]


@pytest.mark.parametrize(
    ("values", "unit"),
    [
        ([MIDNIGHT // 1000], "s"),
        ([float(MIDNIGHT // 1000)], "s"),
        ([str(MIDNIGHT)], "ms"),
        ([MIDNIGHT * 1_000 + 7], "us"),
        ([MIDNIGHT * 1_000_000 + 7], "ns"),
        (["2024-01-01 00:00:00"], "%Y-%m-%d %H:%M:%S"),
        (["2023-12-31 16:00 +0000"], "%Y-%m-%d %H:%M %z"),
        ([dt.datetime(2024, 1, 1)], "ms"),
        ([dt.datetime(2023, 12, 31, 16, tzinfo=dt.UTC)], "ms"),
        ([dt.date(2024, 1, 1)], "ms"),
    ],
)
def test_times(values: list, unit: str) -> None:
    column = chunked([*values, None])
    assert as_time_ms(column, unit, "Asia/Shanghai").to_pylist() == [MIDNIGHT, None]


def test_hour_and_weekday_are_those_of_the_zone() -> None:
    before = dt.datetime(2017, 11, 26, 15, 59, tzinfo=dt.UTC)  # a Sunday
    moments = [before, before + dt.timedelta(minutes=1), dt.datetime(1902, 5, 8, tzinfo=dt.UTC)]
    times = chunked([round(moment.timestamp() * 1000) for moment in moments] + [None])
    assert hour_of_day(times, "UTC").to_pylist() == ["15", "16", "0", None]
    assert weekday(times, "UTC").to_pylist() == ["7", "7", "4", None]
    assert hour_of_day(times, "Asia/Shanghai").to_pylist()[:2] == ["23", "0"]
    assert weekday(times, "Asia/Shanghai").to_pylist()[:2] == ["7", "1"]


def test_what_is_no_time_is_null() -> None:
    texts = chunked(["2024-13-01", "", None])
    assert as_time_ms(texts, "%Y-%m-%d", "UTC").null_count == 3
    assert as_time_ms(chunked(["x", "nan", str(10**17)]), "ms", "UTC").null_count == 3


def test_a_number_of_thousands_of_digits_is_none() -> None:
    digits = "9" * 5_000
    expected = [None, 1.0, None]
    assert as_numbers(chunked([digits, "1", "x"])).to_pylist() == expected
    assert as_numbers(chunked([digits, "1", "x"], pa.string_view())).to_pylist() == expected
    assert as_integers(chunked([digits, "1", "x"])).to_pylist() == expected
    assert as_time_ms(chunked([digits, "1", "x"]), "ms", "UTC").to_pylist() == expected
