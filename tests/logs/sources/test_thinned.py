"""A share of a log's rows, the same whoever reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest

from diet_ray.config import LogsConfig
from diet_ray.logs.sources import RawBatch, Source, open_source
from diet_ray.logs.sources.source import ROW, BadRow, Part
from diet_ray.logs.sources.thinned import Thinned, rows_of

ROWS = 4_000
INTERVALS = {
    "historical": ["2024-01-01"],
    "subsequent": "2024-01-02",
    "validation": "2024-01-03",
    "test": "2024-01-04",
}


def synthetic(most_rows: int | None = None, rows_per_part: int = 1_000) -> Source:
    made = {"rows": ROWS, "rows_per_part": rows_per_part}
    given = {"source": "synthetic", "intervals": INTERVALS, "synthetic": made}
    return open_source(LogsConfig.model_validate({**given, "most_rows": most_rows}), seed=3)


def read(source: Source) -> list[RawBatch]:
    shared = source.load_shared()
    return [batch for part in source.parts() for batch in source.read(part, shared)]


def rows(source: Source) -> pa.Table:
    return pa.concat_tables([batch.rows for batch in read(source)])


def test_about_as_many_rows_as_asked_are_kept_and_none_is_changed() -> None:
    whole, kept = rows(synthetic()), rows(synthetic(ROWS // 4))
    deviation = (ROWS * 0.25 * 0.75) ** 0.5
    assert abs(kept.num_rows - ROWS // 4) < 5 * deviation
    assert kept.select([ROW]).num_rows < whole.num_rows
    by_number = {row[ROW]: row for row in whole.to_pylist()}
    assert all(by_number[row[ROW]] == row for row in kept.to_pylist())


def test_the_same_rows_again_and_others_of_another_log_or_seed() -> None:
    first, again = rows(synthetic(1_000)), rows(synthetic(1_000))
    assert first.equals(again)
    other = Thinned(synthetic(), 1_000, seed=4)
    assert not rows(other).equals(first)
    fingerprints = {s.fingerprint() for s in (synthetic(), synthetic(1_000), other)}
    assert len(fingerprints) == 3


def test_a_log_that_has_no_more_keeps_all() -> None:
    assert rows(synthetic(ROWS * 2)).equals(rows(synthetic()))


def test_malformed_rows_are_thinned_like_the_others() -> None:
    class Malformed:
        fields, tasks = ("a",), ("b",)

        def parts(self) -> list[Part]:
            return [Part("file", rows=2 * ROWS)]

        def load_shared(self) -> None:
            pass

        def read(self, part: Part, shared: Any) -> Any:
            table = pa.table({ROW: pa.array(range(ROWS), pa.int64())})
            bad = tuple(BadRow(number, "bad", "") for number in range(ROWS, 2 * ROWS))
            yield RawBatch(table, table, bad)

        def fingerprint(self) -> str:
            return ""

        def source_bytes(self) -> int:
            return 0

    (batch,) = read(Thinned(Malformed(), ROWS, seed=0))
    assert batch.rows.num_rows == batch.raw.num_rows
    for kept in (batch.rows.num_rows, len(batch.malformed)):
        assert ROWS / 3 < kept < 2 * ROWS / 3


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_rows_are_counted_without_reading_the_log(tmp_path: Path, suffix: str) -> None:
    table = pa.table(
        {"t": [1_704_067_200 + i for i in range(ROWS)], "u": [7] * ROWS, "y": [1] * ROWS}
    )
    if suffix == "csv":
        pacsv.write_csv(table, tmp_path / "log.csv")
    else:
        pq.write_table(table, tmp_path / "log.parquet", row_group_size=ROWS // 3)
    schema = {
        "format": suffix,
        "time_column": "t",
        "time_unit": "s",
        "fields": ["u"],
        "tasks": {"y": "y"},
    }
    given = {"source": "table", "path": str(tmp_path), "intervals": INTERVALS, "table": schema}
    source = open_source(LogsConfig.model_validate(given), seed=0)
    assert rows_of(source) == pytest.approx(ROWS, rel=0.01)
    assert rows_of(Thinned(source, ROWS // 2, seed=0)) == ROWS // 2
