from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pytest

from diet_ray import storage
from diet_ray.config import LogsConfig, load_config
from diet_ray.logs.prepare import prepare
from diet_ray.logs.sources import LogsError, csv_files, open_source
from diet_ray.logs.sources.taobao import COLUMNS, DOWNLOAD, FIELDS, Taobao

ROOT = Path(__file__).parents[3]
SHANGHAI = ZoneInfo("Asia/Shanghai")
INTERVALS = {
    "historical": ["2017-11-25"],
    "subsequent": "2017-11-26",
    "validation": "2017-11-27",
    "test": "2017-11-28",
}
LINES = """\
1,2268318,2520377,pv,1511544070
1,2333346,2520771,buy,1511561733
2,2576651,149192,fav,1511572885
2,,149192,cart,1511593493
3,5,6,fly,1511593493
3,5,6,pv,soon
3,5,pv,1511593493
4,7,8,pv,-2134949234
4,7,8,buy,2122867355
"""


def config(folder: Path, **logs: Any) -> LogsConfig:
    zone = {"timezone": "Asia/Shanghai"}
    return LogsConfig.model_validate(
        {"source": "taobao", "path": str(folder), "intervals": INTERVALS, **zone, **logs}
    )


def write(folder: Path, text: str = LINES) -> None:
    (folder / "UserBehavior.csv").write_text(text)


def read(logs: LogsConfig) -> pd.DataFrame:
    source = open_source(logs, 0)
    tables = [b.rows.to_pandas() for p in source.parts() for b in source.read(p, None)]
    rows = pd.concat(tables, ignore_index=True).astype(object)
    return rows.where(rows.notna(), None)


@pytest.mark.parametrize("part_bytes", [40, 1 << 20])
def test_a_row_is_one_action(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part_bytes: int
) -> None:
    monkeypatch.setattr(csv_files, "PART_BYTES", part_bytes)
    write(tmp_path)
    rows = read(config(tmp_path))
    assert list(rows.columns) == ["_row", "time_ms", *FIELDS, "click", "favourite", "buy"]
    assert rows.drop(columns="_row").to_numpy().tolist() == [
        [1511544070000, "1", "2268318", "2520377", "1", 1, 0, 0],
        [1511561733000, "1", "2333346", "2520771", "6", 0, 0, 1],
        [1511572885000, "2", "2576651", "149192", "9", 0, 1, 0],
        [1511593493000, "2", None, "149192", "15", 0, 0, 0],
        [1511593493000, "3", "5", "6", "15", None, None, None],
        [None, "3", "5", "6", None, 1, 0, 0],
        [-2134949234000, "4", "7", "8", "6", 1, 0, 0],
        [2122867355000, "4", "7", "8", "13", 0, 0, 1],
    ]
    assert read(config(tmp_path, timezone="UTC")).hour[0] == "17"


def test_malformed_lines_keep_their_text(tmp_path: Path) -> None:
    write(tmp_path)
    source = open_source(config(tmp_path), 0)
    [batch] = source.read(source.parts()[0], None)
    [bad] = batch.malformed
    assert (bad.row, bad.reason) == (6, csv_files.WRONG_COLUMNS)
    assert "3,5,pv,1511593493" in bad.raw
    assert batch.raw.column_names == list(COLUMNS)
    assert batch.rows["_row"].to_pylist() == [0, 1, 2, 3, 4, 5, 7, 8]


def test_fields_and_tasks_may_be_chosen(tmp_path: Path) -> None:
    write(tmp_path)
    rows = read(config(tmp_path, fields=["hour", "user_id"], tasks=["cart", "buy"]))
    assert list(rows.columns[2:]) == ["hour", "user_id", "cart", "buy"]
    assert rows.cart.tolist() == [0, 0, 0, 1, None, 0, 0, 0]
    with pytest.raises(LogsError, match="'behavior_type' in this source"):
        Taobao(config(tmp_path, fields=["behavior_type"]))
    with pytest.raises(LogsError, match="did you mean 'favourite'"):
        Taobao(config(tmp_path, tasks=["favorite"]))


def test_a_missing_or_wrong_file_says_where_to_get_the_right_one(tmp_path: Path) -> None:
    with pytest.raises(LogsError, match=r"UserBehavior\.csv: no such file; download") as error:
        Taobao(config(tmp_path))
    assert DOWNLOAD in str(error.value)
    for text in ("user_id,item_id,category_id,behavior_type,timestamp\n", "1,2,3\n"):
        write(tmp_path, text)
        with pytest.raises(LogsError, match=r"UserBehavior\.csv: the first line is") as error:
            Taobao(config(tmp_path))
        assert DOWNLOAD in str(error.value)


def test_identity_and_size_are_the_files(tmp_path: Path) -> None:
    write(tmp_path)
    before = Taobao(config(tmp_path))
    told = before.fingerprint()
    assert before.source_bytes() == len(LINES)
    write(tmp_path, LINES + LINES)
    assert Taobao(config(tmp_path)).fingerprint() != told


# Block of each of the nine days, by the paper's appendix A.1.
BLOCK_OF_DAY = ["historical-1"] * 2 + ["historical-2"] * 2 + ["historical-3"] * 2
BLOCK_OF_DAY += ["subsequent", "validation", "test"]


@pytest.mark.usefixtures("ray_session")
def test_the_shipped_partition(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each day, from its first second to its last in Shanghai, lands in its block."""
    draw = np.random.default_rng(0)
    start = datetime(2017, 11, 25, tzinfo=SHANGHAI)
    at = [start + timedelta(days=d, seconds=s) for d in range(9) for s in (0, 0, 40_000, 86_399)]
    outside = [start - timedelta(seconds=1), start + timedelta(days=9)]
    seconds = [round(t.timestamp()) for t in at + outside] + [-2134949234, 2122867355]
    log = pd.DataFrame({"user": range(len(seconds)), "item": 1, "category": 2})
    log["behaviour"] = draw.choice(["pv", "buy", "cart", "fav"], len(log))
    log["seconds"] = seconds
    log = log.sample(frac=1, random_state=0)
    write(tmp_path, log.to_csv(index=False, header=False))
    monkeypatch.setattr(csv_files, "PART_BYTES", 200)
    run = load_config(
        str(ROOT / "configs" / "taobao.yaml"), [f"logs.path={tmp_path}", f"output={tmp_path}/run"]
    )
    blocks = prepare(run)
    assert (blocks.fields, blocks.tasks) == (FIELDS, ("click", "favourite", "buy"))
    assert blocks.outside_intervals == 4
    assert blocks.quarantined == {}
    days = (log["seconds"] - round(start.timestamp())) // 86_400
    for block in blocks.blocks:
        own = [day for day, name in enumerate(BLOCK_OF_DAY) if name == block.name]
        expected = log[days.isin(own)].sort_values("seconds", kind="stable")
        [fragment] = block.fragments
        rows = pd.read_parquet(storage.join(blocks.uri, fragment.path))
        assert (rows.time_ms // 1000).tolist() == expected.seconds.tolist()
        for task, code in {"click": "pv", "favourite": "fav", "buy": "buy"}.items():
            assert rows[task].tolist() == (expected.behaviour == code).astype(int).tolist()
