import os
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from diet_ray import telemetry
from diet_ray.config import LogsConfig
from diet_ray.logs.sources import LogsError, open_source, table
from diet_ray.storage import StorageError
from tests.recorded import Recorded

INTERVALS = {
    "historical": ["2024-01-01"],
    "subsequent": "2024-01-02",
    "validation": "2024-01-03",
    "test": "2024-01-04",
}


def log() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "user": [7, 8, 7, 9, 8],
            "genre": ["a", None, "b", "a", "c"],
            "rating": [5.0, 3.0, None, 4.0, 1.0],
            "at": [1_704_067_200 + i for i in range(5)],
            "dwell": [1, 2, 3, 4, 5],
        }
    )


def config(path: Path, logs: dict[str, Any] | None = None, **schema: Any) -> LogsConfig:
    described = {
        "format": "parquet",
        "time_column": "at",
        "time_unit": "s",
        "fields": ["user", "genre"],
        "tasks": {"like": "rating >= 4"},
        "feedback": ["dwell"],
    }
    return LogsConfig.model_validate(
        {
            "source": "table",
            "path": str(path),
            "intervals": INTERVALS,
            "table": {**described, **schema},
            **(logs or {}),
        }
    )


def read(logs: LogsConfig) -> list[dict[str, Any]]:
    source = open_source(logs, 0)
    shared = source.load_shared()
    return [
        row for p in source.parts() for b in source.read(p, shared) for row in b.rows.to_pylist()
    ]


@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_reads_what_is_there(tmp_path: Path, kind: str) -> None:
    if kind == "parquet":
        log().to_parquet(tmp_path / "a.parquet")
    else:
        log().to_csv(tmp_path / "a.csv", index=False)
    rows = read(config(tmp_path, format=kind))
    assert [row["user"] for row in rows] == ["7", "8", "7", "9", "8"]
    assert [row["genre"] for row in rows] == ["a", None, "b", "a", "c"]
    assert [row["like"] for row in rows] == [1.0, 0.0, None, 1.0, 0.0]
    assert [row["time_ms"] for row in rows] == [1_704_067_200_000 + 1000 * i for i in range(5)]
    assert [row["_row"] for row in rows] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_keys_of_partitions_are_columns(tmp_path: Path, kind: str) -> None:
    for day, index in (("2024-01-01", [0, 1, 2]), ("2024-01-02", [3, 4])):
        folder = tmp_path / f"day={day}"
        folder.mkdir()
        rows = log().iloc[index].drop(columns="at")
        if kind == "parquet":
            rows.to_parquet(folder / "part-0.parquet", index=False)
        else:
            rows.to_csv(folder / "part-0.csv", index=False)
        (folder / "_SUCCESS").touch()
    schema = {"format": kind, "time_column": "day", "time_unit": "%Y-%m-%d"}
    rows = read(config(tmp_path, fields=["user", "day"], **schema))
    assert [row["user"] for row in rows] == ["7", "8", "7", "9", "8"]
    assert [row["day"] for row in rows] == ["2024-01-01"] * 3 + ["2024-01-02"] * 2
    assert [row["time_ms"] // 1000 for row in rows] == [1_704_067_200] * 3 + [1_704_153_600] * 2


def test_a_column_of_the_file_goes_before_a_key(tmp_path: Path) -> None:
    (tmp_path / "user=1").mkdir()
    log().to_parquet(tmp_path / "user=1" / "a.parquet")
    assert [row["user"] for row in read(config(tmp_path))] == ["7", "8", "7", "9", "8"]


def test_other_delimiters_and_compressed(tmp_path: Path) -> None:
    log().to_csv(tmp_path / "a.tsv.gz", index=False, sep="\t")
    with pytest.raises(LogsError, match=r"one column, 'user.*: set logs\.table\.delimiter"):
        open_source(
            config(tmp_path, format="csv", tasks={"y": "user\tgenre\trating\tat\tdwell"}), 0
        )
    rows = read(config(tmp_path / "a.tsv.gz", format="csv", delimiter="\\t"))
    assert [row["user"] for row in rows] == ["7", "8", "7", "9", "8"]
    assert rows == read(config(tmp_path, format="csv", delimiter="\t"))


def test_row_groups_become_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "PART_ROWS", 2)
    pq.write_table(pa.Table.from_pandas(log()), tmp_path / "a.parquet", row_group_size=1)
    source = open_source(config(tmp_path), 0)
    assert [(p.first, p.rows, p.row_groups) for p in source.parts()] == [
        (0, 2, (0, 1)),
        (2, 2, (2, 3)),
        (4, 1, (4,)),
    ]
    assert [row["_row"] for row in read(config(tmp_path))] == [0, 1, 2, 3, 4]


def test_the_bytes_of_the_columns_that_are_read_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recorded: Recorded
) -> None:
    monkeypatch.setattr(table, "PART_ROWS", 2)
    rows = log().assign(more="not read")
    pq.write_table(pa.Table.from_pandas(rows), tmp_path / "a.parquet", row_group_size=1)
    read(config(tmp_path))
    counted = recorded.values(telemetry.READ_BYTES)
    assert len(counted) == 3
    found = pq.read_metadata(tmp_path / "a.parquet")
    names = {"user", "genre", "at", "rating"}
    columns = [found.row_group(g).column(c) for g in range(5) for c in range(found.num_columns)]
    own = [column for column in columns if column.path_in_schema in names]
    assert len(own) == 4 * 5
    assert sum(counted) == sum(column.total_compressed_size for column in own)


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ({"fields": ["usr"]}, r"a\.parquet: no column 'usr'.*did you mean 'user'"),
        ({"time_column": "att"}, r"a\.parquet: no column 'att'.*did you mean 'at'"),
        ({"tasks": {"like": "ratin >= 4"}}, "no column 'ratin'; did you mean 'rating'"),
        ({"fields": ["user", "rating"]}, "'rating'.*task 'like' is made of it.*leak"),
        ({"fields": ["user", "dwell"]}, "'dwell'.*feedback.*leak"),
        ({"time_unit": "sec"}, "time_unit: 'sec' is no unit"),
        ({"fields": ["user", "user"]}, "'user' is named twice"),
        ({"tasks": {"user": "rating >= 4"}}, "'user' is named twice"),
        ({"format": "csv"}, r"no \*\.csv file"),
    ],
)
def test_refuses(tmp_path: Path, schema: dict[str, Any], message: str) -> None:
    log().to_parquet(tmp_path / "a.parquet")
    with pytest.raises(LogsError, match=message):
        open_source(config(tmp_path, **schema), 0)


def test_refuses_by_the_logs_own_keys(tmp_path: Path) -> None:
    log().to_parquet(tmp_path / "a.parquet")
    for logs, message in [
        ({"fields": ["gener"]}, "logs.fields: no 'gener'.*'genre'"),
        ({"tasks": ["lik"]}, "logs.tasks: no 'lik'.*'like'"),
        ({"hash_buckets": {"usr": 8}}, "logs.hash_buckets: no field 'usr'.*'user'"),
    ]:
        with pytest.raises(LogsError, match=message):
            open_source(config(tmp_path, logs), 0)


def test_a_column_that_one_file_lacks_is_named(tmp_path: Path) -> None:
    log().to_parquet(tmp_path / "a.parquet")
    log().drop(columns="genre").to_parquet(tmp_path / "b.parquet")
    with pytest.raises(LogsError, match=r"b\.parquet: no column 'genre'"):
        open_source(config(tmp_path), 0)


def test_a_list_is_no_field(tmp_path: Path) -> None:
    log().assign(genre=[["a"]] * 5).to_parquet(tmp_path / "a.parquet")
    with pytest.raises(LogsError, match="column 'genre' has type list"):
        open_source(config(tmp_path), 0)


def test_a_truncated_file_is_named(tmp_path: Path) -> None:
    log().to_parquet(tmp_path / "a.parquet")
    whole = (tmp_path / "a.parquet").read_bytes()
    (tmp_path / "a.parquet").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(StorageError, match=r"a\.parquet"):
        open_source(config(tmp_path), 0)


def test_fingerprint_follows_the_keys(tmp_path: Path) -> None:
    found = []
    for day in ("1", "2"):
        (tmp_path / f"day={day}").mkdir()
        log().to_parquet(tmp_path / f"day={day}" / "a.parquet")
        os.utime(tmp_path / f"day={day}" / "a.parquet", (1, 1))
        found.append(open_source(config(tmp_path / f"day=[{day}]"), 0).fingerprint())
    assert found[0] != found[1]


def test_fingerprint_follows_the_files(tmp_path: Path) -> None:
    log().to_parquet(tmp_path / "a.parquet")
    before = open_source(config(tmp_path), 0).fingerprint()
    assert open_source(config(tmp_path), 0).fingerprint() == before
    log().iloc[:3].to_parquet(tmp_path / "b.parquet")
    assert open_source(config(tmp_path), 0).fingerprint() != before


def refused(logs: LogsConfig) -> str:
    with pytest.raises(LogsError) as caught:
        read(logs)
    return str(caught.value)


def test_feedback_that_is_no_column_guards_nothing(tmp_path: Path) -> None:
    log().to_parquet(tmp_path / "a.parquet")
    told = refused(config(tmp_path, feedback=["dwel"]))
    assert told.startswith("logs.table.feedback: no column 'dwel', so it would guard nothing")
    assert told.endswith("did you mean 'dwell'?")


@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_a_copy_of_a_file_is_refused(tmp_path: Path, kind: str) -> None:
    for name in ("a", "b"):
        if kind == "csv":
            log().to_csv(tmp_path / f"{name}.csv", index=False)
        else:
            log().to_parquet(tmp_path / f"{name}.parquet")
    told = refused(config(tmp_path, format=kind))
    assert told.startswith(f"{tmp_path}/b.{kind}: the same as {tmp_path}/a.{kind}, so its rows")


@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_files_without_rows_may_be_alike(tmp_path: Path, kind: str) -> None:
    for name, rows in (("a", log().iloc[:0]), ("b", log().iloc[:0]), ("c", log())):
        if kind == "csv":
            rows.to_csv(tmp_path / f"{name}.csv", index=False)
        else:
            rows.astype(log().dtypes).to_parquet(tmp_path / f"{name}.parquet")
    assert len(read(config(tmp_path, format=kind))) == 5


@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_a_column_twice_is_refused(tmp_path: Path, kind: str) -> None:
    if kind == "csv":
        (tmp_path / "a.csv").write_text("user,user,genre,rating,at,dwell\n1,2,a,5,1704067200,1\n")
    else:
        table = pa.Table.from_pandas(log(), preserve_index=False)
        pq.write_table(table.append_column("user", table["user"]), tmp_path / "a.parquet")
    told = refused(config(tmp_path, format=kind))
    assert f"a.{kind}: 2 columns are called 'user' (logs.table); rename all but one" in told


@pytest.mark.parametrize("unit", ["%Q", "%", "%Y %Y", "%Y-%m-%d %"])
def test_a_pattern_that_is_none_is_refused(tmp_path: Path, unit: str) -> None:
    log().to_parquet(tmp_path / "a.parquet")
    told = refused(config(tmp_path, time_unit=unit))
    assert told.startswith(f"logs.table.time_unit: {unit!r} is no strptime pattern (")
    assert told.endswith("write one such as '%Y-%m-%d %H:%M:%S'")


@pytest.mark.parametrize(
    ("column", "values", "told"),
    [
        ("at", pa.array([1] * 5, pa.time32("s")), "column 'at' as the time cannot be read from th"),
        ("at", pa.array([1] * 5, pa.duration("s")), "column 'at' as the time cannot be read from "),
        ("rating", pa.array([b"a"] * 5), "column 'rating' as task like"),
        ("user", pa.array([b"\xff"] * 5), "column 'user' as a field: "),
    ],
)
def test_a_type_that_cannot_be_read_is_told(
    tmp_path: Path, column: str, values: pa.Array, told: str
) -> None:
    table = pa.Table.from_pandas(log(), preserve_index=False)
    place = table.schema.get_field_index(column)
    pq.write_table(table.set_column(place, column, values), tmp_path / "a.parquet")
    assert f"a.parquet: {told}" in refused(config(tmp_path))


def test_a_damaged_raw_file_is_never_to_be_removed(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    log().to_parquet(path)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(StorageError, match=r"a\.parquet: .*; replace it by a whole copy") as caught:
        read(config(tmp_path))
    assert "remove" not in str(caught.value)


def test_views_of_text_are_text(tmp_path: Path) -> None:
    """Also in the raw rows that a quarantine takes."""
    table = pa.Table.from_pandas(log(), preserve_index=False)
    views = table.set_column(1, "genre", table["genre"].cast(pa.string_view()))
    pq.write_table(views, tmp_path / "a.parquet")
    source = open_source(config(tmp_path), 0)
    (batch,) = source.read(source.parts()[0], None)
    assert batch.raw.take([1, 2])["genre"].to_pylist() == [None, "b"]
    assert [row["genre"] for row in read(config(tmp_path))] == ["a", None, "b", "a", "c"]
