from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from diet_ray.config import LogsConfig
from diet_ray.logs.sources import LogsError, open_source, table
from diet_ray.storage import StorageError

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


def test_fingerprint_follows_the_files(tmp_path: Path) -> None:
    log().to_parquet(tmp_path / "a.parquet")
    before = open_source(config(tmp_path), 0).fingerprint()
    assert open_source(config(tmp_path), 0).fingerprint() == before
    log().to_parquet(tmp_path / "b.parquet")
    assert open_source(config(tmp_path), 0).fingerprint() != before
