"""Damaged raw logs: rows, quarantined rows, or an error of ours; and nothing half-published."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diet_ray.config import LogsConfig
from diet_ray.logs.sources import open_source
from diet_ray.logs.staging import Stager, Window, is_staged, read_ledger
from diet_ray.logs.suggest import suggest
from tests.fuzz.damage import damages, fuzzed, only_our_errors

ROWS = 40
START, DAY = 1_704_067_200, 86_400
DAYS = {
    "historical": ["2024-01-01"],
    "subsequent": "2024-01-02",
    "validation": "2024-01-03",
    "test": "2024-01-04",
}
FORMATS = ["csv", "parquet"]


def log() -> pd.DataFrame:
    draw = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "user": draw.integers(0, 9, ROWS),
            "item": [f"item {n}" for n in draw.integers(0, 9, ROWS)],
            "rating": draw.integers(1, 6, ROWS).astype(float),
            "at": START + np.arange(ROWS) * 4 * DAY // ROWS,
        }
    )


def as_bytes(kind: str) -> bytes:
    if kind == "csv":
        return log().to_csv(index=False).encode()
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pandas(log(), preserve_index=False), sink, row_group_size=15)
    return sink.getvalue()


WHOLE = {kind: as_bytes(kind) for kind in FORMATS}


def config(path: Path, kind: str, **schema: Any) -> LogsConfig:
    table = {
        "format": kind,
        "time_column": "at",
        "time_unit": "s",
        "fields": ["user", "item"],
        "tasks": {"good": "rating >= 4"},
        **schema,
    }
    return LogsConfig.model_validate(
        {"source": "table", "path": str(path), "intervals": DAYS, "table": table}
    )


def staged_rows(logs: LogsConfig, folder: Path) -> int:
    """Rows of all parts, staged in this process as a task would."""
    source = open_source(logs, 0)
    shared = source.load_shared()
    windows = [Window(n, *i.bounds_ms("UTC")) for n, i in logs.intervals.named()]
    rows = 0
    for number, part in enumerate(source.parts()):
        try:
            Stager(source, part, number, str(folder), windows).stage(shared)
        except BaseException:
            assert not is_staged(str(folder), number), "half a part is no part"
            raise
        rows += read_ledger(str(folder), number).rows
    return rows


@pytest.mark.parametrize("kind", FORMATS)
def test_a_whole_log_is_staged(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"a.{kind}"
    path.write_bytes(WHOLE[kind])
    assert staged_rows(config(path, kind), tmp_path / "staged") == ROWS


@pytest.mark.parametrize("kind", FORMATS)
@fuzzed
@given(damage=damages)
def test_a_damaged_log(kind: str, damage: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("log")
    path = folder / f"a.{kind}"
    path.write_bytes(damage(WHOLE[kind]))
    with only_our_errors():
        staged_rows(config(path, kind), folder / "staged")


@pytest.mark.parametrize("kind", FORMATS)
@fuzzed
@given(damage=damages)
def test_a_suggestion_for_a_damaged_log(
    kind: str, damage: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("log") / f"a.{kind}"
    path.write_bytes(damage(WHOLE[kind]))
    with only_our_errors():
        suggest(str(path))


CELLS = st.none() | st.sampled_from(
    [
        "",
        "x",
        "-1",
        "1e400",
        "nan",
        "inf",
        "9" * 400,
        "9" * 5_000,
        "0x1",
        "2024-01-01",
        "\N{SNOWMAN}",
    ]
)
KINDS = [
    pa.string(),
    pa.large_string(),
    pa.string_view(),
    pa.binary(),
    pa.int8(),
    pa.uint64(),
    pa.float16(),
    pa.decimal128(5, 2),
    pa.bool_(),
    pa.date32(),
    pa.time32("s"),
    pa.time64("ns"),
    pa.timestamp("s"),
    pa.timestamp("ns", "Asia/Shanghai"),
    pa.duration("ms"),
    pa.null(),
    pa.dictionary(pa.int8(), pa.string()),
    pa.dictionary(pa.int8(), pa.binary()),
    pa.list_(pa.int8()),
    pa.struct([("a", pa.int8())]),
    pa.month_day_nano_interval(),
]


def of_kind(kind: pa.DataType) -> pa.Array:
    """A column of some type: empty values where it takes no number."""
    try:
        return pa.array([n % 3 for n in range(ROWS)]).cast(kind)
    except pa.ArrowException:
        return pa.nulls(ROWS, kind)


@fuzzed
@given(
    column=st.sampled_from(["user", "item", "rating", "at"]),
    kind=st.sampled_from(KINDS),
    unit=st.sampled_from(["s", "ms", "us", "ns", "%Y", "%Y-%m-%d", "%s", "%c", "%%", "%f", "%z"]),
    task=st.sampled_from(["rating >= 4", "rating", "rating == 'x'", "rating in [1, 2]"]),
)
def test_columns_of_every_type(
    column: str, kind: pa.DataType, unit: str, task: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("log")
    table = pa.Table.from_pandas(log(), preserve_index=False)
    place = table.schema.get_field_index(column)
    try:
        pq.write_table(table.set_column(place, column, of_kind(kind)), folder / "a.parquet")
    except pa.ArrowException:
        return  # a type that Parquet does not hold
    with only_our_errors():
        logs = config(folder / "a.parquet", "parquet", time_unit=unit, tasks={"good": task})
        staged_rows(logs, folder / "staged")
    with only_our_errors():
        suggest(str(folder / "a.parquet"))


@fuzzed
@given(cells=st.lists(CELLS, min_size=4, max_size=4), unit=st.sampled_from(["s", "ns", "%Y-%m-%d"]))
def test_cells_of_every_kind(
    cells: list[str | None], unit: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("log")
    frame = log().astype(object)
    frame.iloc[3] = cells
    frame.to_csv(folder / "a.csv", index=False)
    with only_our_errors():
        assert staged_rows(config(folder / "a.csv", "csv", time_unit=unit), folder / "s") == ROWS
