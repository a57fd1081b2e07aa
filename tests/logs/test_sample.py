import gzip
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from diet_ray.logs import sample
from diet_ray.logs.sample import extremes, take_sample
from diet_ray.logs.sources.source import LogsError


def log(rows: int = 5_000, first: int = 0) -> pd.DataFrame:
    number = np.arange(first, first + rows)
    return pd.DataFrame({"n": number, "f": number % 7, "at": 1_700_000_000 + number})


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz", "a.parquet"])
def test_a_small_table_is_taken_whole(tmp_path: Path, name: str) -> None:
    if name.endswith("parquet"):
        log().to_parquet(tmp_path / name)
    else:
        log().to_csv(tmp_path / name, index=False)
    found = take_sample(str(tmp_path))
    assert (found.whole, found.total) == (True, 5_000)
    assert found.format == ("parquet" if name.endswith("parquet") else "csv")
    assert found.rows.column_names == ["n", "f", "at"]
    assert [int(n) for n in found.rows["n"].to_pylist()] == list(range(5_000))


def test_a_large_csv_is_sampled_from_its_first_to_its_last_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sample, "CSV_PIECES", 10)
    monkeypatch.setattr(sample, "PIECE_BYTES", 200)
    for first, rows in ((100_000, 3_000), (103_000, 100), (103_100, 1_900)):
        log(rows, first).to_csv(tmp_path / f"{first}.csv", index=False)
    found = take_sample(str(tmp_path))
    numbers = [int(n) for n in found.rows["n"].to_pylist()]
    line = len("100000,1,1700100000\n")
    assert not found.whole
    assert len(numbers) <= 10 * (200 // line + 1)
    assert numbers == sorted(set(numbers))
    assert (numbers[0], numbers[-1]) == (100_000, 104_999)
    assert max(np.diff(numbers)) <= 5_000 / 9
    assert found.total == pytest.approx(5_000, rel=0.2)


def test_row_groups_are_spread_and_extremes_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sample, "SAMPLE_ROWS", 100)
    monkeypatch.setattr(sample, "ROW_GROUPS", 4)
    table = pa.Table.from_pandas(log().iloc[::-1], preserve_index=False)
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=50)
    pq.write_table(pa.Table.from_pandas(log(50, 9_000)), tmp_path / "b.parquet")
    found = take_sample(str(tmp_path))
    numbers = found.rows["n"].to_pylist()
    assert not found.whole
    assert found.total == 5_050
    assert 100 <= len(numbers) <= 200
    assert {n // 50 for n in numbers} == {99, 66, 32, 180}
    assert pc.min_max(extremes(found, "n")).as_py() == {"min": 0, "max": 9_049}


def test_compressed_files_are_read_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sample, "SAMPLE_ROWS", 100)
    monkeypatch.setattr(sample, "COMPRESSED_FILES", 3)
    for part in range(9):
        log(1_000, first=10_000 + part * 1_000).to_csv(tmp_path / f"{part}.csv.gz", index=False)
    found = take_sample(str(tmp_path))
    numbers = np.array([int(n) for n in found.rows["n"].to_pylist()])
    assert 100 <= len(numbers) <= 200
    assert set(numbers // 1_000) == {10, 14, 18}
    assert len(set(np.diff(numbers[numbers < 11_000]))) == 1
    assert found.total == pytest.approx(9_000, rel=0.1)


def test_keys_are_columns_and_a_column_that_a_file_lacks_is_none(tmp_path: Path) -> None:
    for day in ("1", "2"):
        (tmp_path / f"day={day}").mkdir()
        rows = log(10) if day == "1" else log(10).drop(columns="f")
        rows.to_parquet(tmp_path / f"day={day}" / "a.parquet")
    found = take_sample(str(tmp_path))
    assert found.rows.column_names == ["n", "at", "day"]
    assert found.rows["day"].to_pylist() == ["1"] * 10 + ["2"] * 10


@pytest.mark.parametrize("delimiter", sample.DELIMITERS)
def test_the_delimiter_is_found(tmp_path: Path, delimiter: str) -> None:
    log(5).assign(f="a b").to_csv(tmp_path / "a.csv", index=False, sep=delimiter)
    found = take_sample(str(tmp_path))
    assert found.delimiter == delimiter
    assert found.rows["f"].to_pylist() == ["a b"] * 5


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"1;2;5.0\n3;4;1.0\n", "holds the value 1, so it names no columns"),
        ("a.csv", b"a,b\n", "no row"),
        ("a.csv", b"", "not a readable CSV file"),
        ("a.csv.gz", gzip.compress(b"", mtime=0), "not a readable CSV file"),
    ],
)
def test_refuses(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(LogsError, match=message):
        take_sample(str(tmp_path))


def test_files_that_do_not_belong_together_are_told(tmp_path: Path) -> None:
    log(5).to_parquet(tmp_path / "a.parquet")
    log(5).assign(f="x").to_parquet(tmp_path / "b.parquet")
    with pytest.raises(LogsError, match="different types under one name"):
        take_sample(str(tmp_path))
