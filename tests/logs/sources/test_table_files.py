from pathlib import Path

import pytest

from diet_ray import storage
from diet_ray.logs.sources.source import LogsError
from diet_ray.logs.sources.table_files import compression_of, find_files, format_of

NAMES = [
    "a.csv",
    "b.csv.gz",
    "_SUCCESS",
    ".a.csv.crc",
    "_old.csv",
    "README.md",
    "day=1/part-0.csv",
    "day=1/_SUCCESS",
    "day=2/hour=3/part-0.csv",
    "_temporary/day=9/part-0.csv",
    "old/c.csv",
    "old/d.txt",
]


def write(root: str, names: list[str]) -> str:
    for name in names:
        storage.write_bytes(storage.join(root, name), b"x\n1\n")
    return root


@pytest.fixture(params=["path", "file", "memory", "s3"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A table's folder on several filesystems."""
    if request.param == "s3":
        return write(request.getfixturevalue("s3_folder") + "/raw", NAMES)
    places = {"path": str(tmp_path / "raw"), "file": f"file://{tmp_path}/my raw"}
    return write(places.get(request.param, f"memory://{tmp_path.name}/raw"), NAMES)


@pytest.mark.parametrize(
    ("below", "expected"),
    [
        ("", ["a.csv", "b.csv.gz", "day=1/part-0.csv", "day=2/hour=3/part-0.csv"]),
        ("/", ["a.csv", "b.csv.gz", "day=1/part-0.csv", "day=2/hour=3/part-0.csv"]),
        ("/a.csv", ["a.csv"]),
        ("/_old.csv", ["_old.csv"]),
        ("/*.csv", ["a.csv"]),
        ("/?.csv*", ["a.csv", "b.csv.gz"]),
        ("/day=*", ["day=1/part-0.csv", "day=2/hour=3/part-0.csv"]),
        ("/day=[2-9]", ["day=2/hour=3/part-0.csv"]),
        ("/day=*/part-*.csv", ["day=1/part-0.csv"]),
        ("/**/part-*", ["day=1/part-0.csv", "day=2/hour=3/part-0.csv"]),
        ("/old/*", ["c.csv", "d.txt"]),
        ("/o*/d.txt", ["old/d.txt"]),
        (
            "/**/*.csv",
            ["a.csv", "day=1/part-0.csv", "day=2/hour=3/part-0.csv", "old/c.csv"],
        ),
    ],
)
def test_finds(root: str, below: str, expected: list[str]) -> None:
    kind, files = find_files(root + below, "csv")
    assert kind == "csv"
    assert [file.name for file in files] == expected
    assert all(storage.is_file(file.uri) for file in files)


def test_folders_are_keys(tmp_path: Path) -> None:
    odd = "city=S%C3%A3o%20P/kind=__HIVE_DEFAULT_PARTITION__/x.csv"
    root = write(str(tmp_path / "outer=no"), ["a.csv", "day=1/hour=02/x.csv", odd])
    keys = {file.name: file.keys for file in find_files(root)[1]}
    assert keys["a.csv"] == {}
    assert keys["day=1/hour=02/x.csv"] == {"day": "1", "hour": "02"}
    assert keys[odd] == {"city": "São P", "kind": None}
    assert [f.keys for f in find_files(root + "/day=1/*")[1]] == [{"hour": "02"}]


@pytest.mark.parametrize(
    ("name", "format", "compression"),
    [
        ("a.csv", "csv", None),
        ("a.TSV", "csv", None),
        ("a.csv.gz", "csv", "gzip"),
        ("a.tsv.zst", "csv", "zstd"),
        ("part-0.snappy.parquet", "parquet", None),
        ("a.parquet.gz", None, "gzip"),
        ("a.json", None, None),
        ("a", None, None),
    ],
)
def test_the_end_of_a_name_tells(name: str, format: str | None, compression: str | None) -> None:
    assert (format_of(name), compression_of(name)) == (format, compression)


def test_a_files_format_is_taken_from_its_name_or_from_what_is_wanted(tmp_path: Path) -> None:
    root = write(str(tmp_path), ["a.parquet", "plain"])
    assert find_files(f"{root}/a.parquet")[0] == "parquet"
    assert find_files(f"{root}/plain")[0] == "csv"
    assert find_files(f"{root}/plain", "parquet")[0] == "parquet"


@pytest.mark.parametrize(
    ("names", "below", "message"),
    [
        (["a.csv"], "/absent", r"absent: no such file or folder; set logs\.path"),
        (["a.csv"], "/absent/*.csv", r"absent: no such file or folder"),
        (["a.csv"], "/*.parquet", r"\*\.parquet: no file matches"),
        (["README.md"], "", r"no \*\.parquet file directly below it or in partitions; set logs"),
        (["old/a.parquet"], "", r"\(old/ is not searched: it is no key=value folder\).*a glob"),
        (["a.csv"], "", r"no \*\.parquet file there, but a\.csv; set logs.table.format to csv"),
        (["a.csv"], "/a.csv", r"no \*\.parquet file there, but a\.csv"),
        (["a.csv", "b.parquet"], "", r"two formats, such as a\.csv and b\.parquet; .*a glob"),
        (["a.csv", "day=1/b.parquet"], "/**", r"two formats, such as"),
    ],
)
def test_refuses(tmp_path: Path, names: list[str], below: str, message: str) -> None:
    with pytest.raises(LogsError, match=message):
        find_files(write(str(tmp_path / "raw"), names) + below, "parquet")
