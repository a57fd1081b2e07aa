import bz2
import gzip
import io
import json
import lzma
import subprocess
import sys
import zipfile
from pathlib import Path

import pyarrow as pa
import pytest

from diet_ray import telemetry
from diet_ray.logs.sources import csv_files
from diet_ray.logs.sources.source import LogsError, Part
from tests.recorded import Recorded

TEXT = {"a": pa.string(), "b": pa.string()}


def test_rows_keep_their_numbers_beside_malformed_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(csv_files, "BLOCK_BYTES", 64)
    lines = ["1,2,3" if i % 7 == 0 else "lonely" if i == 99 else f"{i},x" for i in range(100)]
    path = tmp_path / "log.csv"
    path.write_text("a,b\n" + "\n".join(lines) + "\n")
    rows, bad = [], []
    for table, malformed in csv_files.read(Part(str(path)), TEXT):
        rows += list(zip(table["_row"].to_pylist(), table["a"].to_pylist(), strict=True))
        bad += malformed
    assert rows == [(i, str(i)) for i in range(99) if i % 7]
    assert [b.row for b in bad] == [*range(0, 99, 7), 99]
    assert bad[0].reason == csv_files.WRONG_COLUMNS
    assert '"1,2,3"' in bad[0].raw


def test_missing_values_and_order_of_columns(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text('b,c,a\n,1,"x, y"\nNaN,1,NA\n')
    [(table, _)] = csv_files.read(Part(str(tmp_path / "log.csv")), TEXT)
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


def test_a_process_that_has_read_a_header_ends_quietly(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("a,b\n" + "1,2\n" * 2_000_000)
    code = f"from diet_ray.logs.sources import csv_files; csv_files.header({str(path)!r})"
    for _ in range(3):
        assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def everything(uri: str, names: list[str] | None = None) -> list[list[str]]:
    """The values of every whole or malformed line, part after part, at its numbered place."""
    lines = []
    for part in csv_files.parts(uri):
        numbered: dict[int, list[str]] = {}
        for table, malformed in csv_files.read(part, TEXT, names):
            for row in table.to_pylist():
                numbered[row["_row"]] = [row["a"], row["b"]]
            numbered |= {bad.row: json.loads(bad.raw)["text"].split(",") for bad in malformed}
        assert sorted(numbered) == list(range(len(numbered)))
        lines += [numbered[number] for number in range(len(numbered))]
    return lines


@pytest.mark.parametrize("headed", [True, False])
@pytest.mark.parametrize("end", ["\n", "\r\n", ""])
@pytest.mark.parametrize("part_bytes", [1, 2, 3, 5, 7, 16, 100, 10_000])
def test_parts_hold_every_line_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part_bytes: int, end: str, headed: bool
) -> None:
    monkeypatch.setattr(csv_files, "PART_BYTES", part_bytes)
    monkeypatch.setattr(csv_files, "SEEK_BYTES", 4)
    lines = [[str(i), "x" * (i % 9 + 1)] + ["more"] * (i % 5 == 3) for i in range(40)]
    text = (end or "\n").join(",".join(line) for line in [["a", "b"]] * headed + lines) + end
    (tmp_path / "log.csv").write_bytes(text.encode())
    uri = str(tmp_path / "log.csv")
    assert len(csv_files.parts(uri)) == -(-len(text) // part_bytes)
    assert everything(uri, None if headed else ["a", "b"]) == lines


def test_a_small_or_empty_file_is_one_part(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("")
    uri = str(tmp_path / "log.csv")
    assert csv_files.parts(uri) == [Part(uri)]
    assert everything(uri, ["a", "b"]) == []
    (tmp_path / "log.csv").write_text("a,b\n1,2\n")
    assert csv_files.parts(uri) == [Part(uri)]


def zipped(content: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("log.csv", content)
    return buffer.getvalue()


LINES = [[str(i), "x" * (i % 9 + 1)] for i in range(40)]
COMPRESS = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": lambda text: pa.compress(text, "zstd", asbytes=True),
    ".zip": zipped,
}


@pytest.mark.parametrize("ending", COMPRESS)
def test_a_compressed_file_is_one_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    monkeypatch.setattr(csv_files, "PART_BYTES", 5)
    text = "\n".join(",".join(line) for line in [["a", "b"], *LINES]) + "\n"
    uri = str(tmp_path / f"log.csv{ending}")
    Path(uri).write_bytes(COMPRESS[ending](text.encode()))
    assert csv_files.header(uri) == ["a", "b"]
    assert csv_files.parts(uri) == [Part(uri)]
    assert everything(uri) == LINES


@pytest.mark.parametrize("ending", COMPRESS)
def test_a_damaged_compressed_file_is_named(tmp_path: Path, ending: str) -> None:
    uri = str(tmp_path / f"log.csv{ending}")
    Path(uri).write_bytes(b"this is not compressed at all" * 9)
    with pytest.raises(LogsError, match=rf"log\.csv\{ending}: not a readable"):
        csv_files.header(uri)
    whole = COMPRESS[ending](b"a,b\n" + bytes(range(14, 120)) * 2_000)
    Path(uri).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(LogsError, match=rf"log\.csv\{ending}: not a readable"):
        list(csv_files.read(Part(uri), TEXT))


@pytest.mark.parametrize("part_bytes", [7, 10_000])
def test_other_delimiters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part_bytes: int) -> None:
    monkeypatch.setattr(csv_files, "PART_BYTES", part_bytes)
    uri = str(tmp_path / "log.tsv")
    Path(uri).write_text("a\tb\n1\tx,y\n2\tz\n")
    assert csv_files.header(uri, "\t") == ["a", "b"]
    rows = [
        (row["a"], row["b"])
        for part in csv_files.parts(uri)
        for table, _ in csv_files.read(part, TEXT, delimiter="\t")
        for row in table.to_pylist()
    ]
    assert rows == [("1", "x,y"), ("2", "z")]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_a_file_in_utf_16_is_told_so(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes("user,item\n1,2\n".encode(encoding))
    with pytest.raises(LogsError, match=r"a\.csv: not text in UTF-8, but perhaps in UTF-16; save"):
        csv_files.header(str(path))


def test_a_header_in_another_encoding_is_told_so(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes("größe,item\n1,2\n".encode("latin-1"))
    with pytest.raises(LogsError, match=r"a\.csv: not text in UTF-8 \(.*at byte 2\); save it so"):
        csv_files.header(str(path))


def test_a_first_line_without_end_is_not_read_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(csv_files, "SEEK_BYTES", 1 << 10)
    monkeypatch.setattr(csv_files, "BLOCK_BYTES", 1 << 12)
    path = tmp_path / "a.csv"
    path.write_bytes(b"x" * (1 << 14))
    with pytest.raises(LogsError, match=r"a\.csv: the first line does not end within"):
        csv_files.header(str(path))


def test_the_bytes_of_a_file_are_counted_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recorded: Recorded
) -> None:
    text = "\n".join(",".join(line) for line in [["a", "b"], *LINES]).encode()
    for name, content in (("plain.csv", text), ("small.csv.gz", gzip.compress(text))):
        (tmp_path / name).write_bytes(content)
    monkeypatch.setattr(csv_files, "PART_BYTES", 50)
    assert everything(str(tmp_path / "plain.csv")) == LINES
    counted = recorded.values(telemetry.READ_BYTES)
    assert len(counted) > 1
    assert sum(counted) == len(text)
    everything(str(tmp_path / "small.csv.gz"))
    assert recorded.values(telemetry.READ_BYTES)[len(counted) :] == [len(gzip.compress(text))]
