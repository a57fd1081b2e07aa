from pathlib import Path

import pyarrow as pa
import pytest

from diet_ray.logs.sources import csv_files
from diet_ray.logs.sources.source import LogsError

TEXT = {"a": pa.string(), "b": pa.string()}


def test_rows_keep_their_numbers_beside_malformed_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(csv_files, "BLOCK_BYTES", 64)
    lines = ["1,2,3" if i % 7 == 0 else "lonely" if i == 99 else f"{i},x" for i in range(100)]
    path = tmp_path / "log.csv"
    path.write_text("a,b\n" + "\n".join(lines) + "\n")
    rows, bad = [], []
    for table, malformed in csv_files.read(str(path), TEXT):
        rows += list(zip(table["_row"].to_pylist(), table["a"].to_pylist(), strict=True))
        bad += malformed
    assert rows == [(i, str(i)) for i in range(99) if i % 7]
    assert [b.row for b in bad] == [*range(0, 99, 7), 99]
    assert bad[0].reason == csv_files.WRONG_COLUMNS
    assert '"1,2,3"' in bad[0].raw


def test_missing_values_and_order_of_columns(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text('b,c,a\n,1,"x, y"\nNaN,1,NA\n')
    [(table, _)] = csv_files.read(str(tmp_path / "log.csv"), TEXT)
    assert table.column_names == ["_row", "a", "b"]
    assert table["a"].to_pylist() == ["x, y", "NA"]
    assert table["b"].to_pylist() == [None, None]


def test_a_file_without_header_is_named(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("")
    with pytest.raises(LogsError, match=r"log\.csv"):
        csv_files.header(str(tmp_path / "log.csv"))


def test_a_malformed_first_row_does_not_hide_the_header(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("a,b\n1\n2,3\n")
    assert csv_files.header(str(tmp_path / "log.csv")) == ["a", "b"]
