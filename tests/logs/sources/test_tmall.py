from datetime import date, datetime, timedelta
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
from diet_ray.logs.sources.tmall import DOWNLOAD, FIELDS, Tmall
from diet_ray.logs.vocabulary import vocabulary_uri

ROOT = Path(__file__).parents[3]
SHANGHAI = ZoneInfo("Asia/Shanghai")
INTERVALS = {
    "historical": ["2014-05-11..2014-05-31"],
    "subsequent": "2014-06-01",
    "validation": "2014-06-02",
    "test": "2014-06-03",
}
LOG = """\
user_id,item_id,cat_id,seller_id,brand_id,time_stamp,action_type
10,323294,833,2882,2661,0829,0
10,844400,1271,2882,2661,829,2
20,575153,1271,2882,,1111,3
30,996875,1271,2882,2661,0511,1
99,996875,1271,2882,2661,0511,0
10,1,1,1,1,0230,0
10,1,1,1,1,,0
10,1,1,1,1,0601,7
10,1,1,1,0601,0
"""
USERS = """\
user_id,age_range,gender
30,0,2
10,6,0
20,,NULL
"""


def config(folder: Path, **logs: Any) -> LogsConfig:
    zone = {"timezone": "Asia/Shanghai"}
    return LogsConfig.model_validate(
        {"source": "tmall", "path": str(folder), "intervals": INTERVALS, **zone, **logs}
    )


def write(folder: Path, log: str = LOG, users: str = USERS) -> None:
    (folder / "user_log_format1.csv").write_text(log)
    (folder / "user_info_format1.csv").write_text(users)


def read(logs: LogsConfig) -> pd.DataFrame:
    source = open_source(logs, 0)
    shared = source.load_shared()
    tables = [b.rows.to_pandas() for p in source.parts() for b in source.read(p, shared)]
    rows = pd.concat(tables, ignore_index=True).astype(object)
    return rows.where(rows.notna(), None)


def midnight(month: int, day: int) -> int:
    return round(datetime(2014, month, day, tzinfo=SHANGHAI).timestamp() * 1000)


@pytest.mark.parametrize("part_bytes", [40, 1 << 20])
def test_a_row_is_one_action_with_its_users_features(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part_bytes: int
) -> None:
    monkeypatch.setattr(csv_files, "PART_BYTES", part_bytes)
    write(tmp_path)
    rows = read(config(tmp_path))
    assert list(rows.columns) == ["_row", "time_ms", *FIELDS, "click", "favourite", "buy"]
    own = ["6", "0"]
    nobody = [None, None]
    nothing = ["10", "1", "1", "1", "1", *own]
    assert rows.drop(columns="_row").to_numpy().tolist() == [
        [midnight(8, 29), "10", "323294", "833", "2882", "2661", *own, "5", 1, 0, 0],
        [midnight(8, 29), "10", "844400", "1271", "2882", "2661", *own, "5", 0, 0, 1],
        [midnight(11, 11), "20", "575153", "1271", "2882", None, *nobody, "2", 0, 1, 0],
        [midnight(5, 11), "30", "996875", "1271", "2882", "2661", *nobody, "7", 0, 0, 0],
        [midnight(5, 11), "99", "996875", "1271", "2882", "2661", *nobody, "7", 1, 0, 0],
        [None, *nothing, None, 1, 0, 0],
        [None, *nothing, None, 1, 0, 0],
        [midnight(6, 1), *nothing, "7", None, None, None],
    ]


def test_the_year_is_that_of_the_log(tmp_path: Path) -> None:
    write(tmp_path)
    weekdays = read(config(tmp_path, fields=["weekday"])).weekday[:4].astype(int).tolist()
    days = [(8, 29), (8, 29), (11, 11), (5, 11)]
    assert weekdays == [date(2014, month, day).isoweekday() for month, day in days]


def test_users_are_needed_only_for_their_features(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "user_info_format1.csv").unlink()
    with pytest.raises(LogsError, match=r"user_info_format1\.csv: no such file; download") as error:
        Tmall(config(tmp_path))
    assert DOWNLOAD in str(error.value)
    rows = read(config(tmp_path, fields=["brand_id", "user_id"], tasks=["cart"]))
    assert list(rows.columns[2:]) == ["brand_id", "user_id", "cart"]
    assert rows.cart.tolist() == [0, 0, 0, 1, 0, 0, 0, None]


def test_missing_files_and_columns_say_where_to_get_the_right_ones(tmp_path: Path) -> None:
    with pytest.raises(LogsError, match=r"user_log_format1\.csv: no such file; download"):
        Tmall(config(tmp_path))
    write(tmp_path, LOG.replace("seller_id,brand_id", "merchant_id,brand"))
    with pytest.raises(LogsError, match=r"format1\.csv: no column brand_id, seller_id;") as error:
        Tmall(config(tmp_path))
    assert DOWNLOAD in str(error.value)
    write(tmp_path, users="user_id,age_range\n")
    with pytest.raises(LogsError, match=r"user_info_format1\.csv: no column gender"):
        Tmall(config(tmp_path))


def test_the_action_is_no_field(tmp_path: Path) -> None:
    write(tmp_path)
    with pytest.raises(LogsError, match="'action_type' in this source"):
        Tmall(config(tmp_path, fields=["action_type"]))


def test_identity_and_size_are_the_files(tmp_path: Path) -> None:
    write(tmp_path)
    before = Tmall(config(tmp_path))
    told = before.fingerprint()
    assert before.source_bytes() == len(LOG) + len(USERS)
    write(tmp_path, users=USERS + "40,1,1\n")
    assert Tmall(config(tmp_path)).fingerprint() != told


def block_of(day: date) -> str | None:
    """By the paper's appendix A.1."""
    months = {5: "historical-1", 6: "historical-2", 7: "historical-3", 8: "subsequent"}
    last = {date(2014, 9, 1): "validation", date(2014, 9, 2): "test"}
    return months.get(day.month, last.get(day))


@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize("part_bytes", [1_000, 1 << 20])
def test_the_shipped_partition(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part_bytes: int
) -> None:
    """Each day lands in its block; the rows of one day keep the order of the file."""
    draw = np.random.default_rng(0)
    days = [date(2014, 5, 11) + timedelta(days=n) for n in range(186)]
    log = pd.DataFrame({"day": days * 3}).sample(frac=1, random_state=0)
    log["item_id"] = [f"item{n}" for n in range(len(log))]
    log["action_type"] = draw.integers(0, 4, len(log))
    raw = log.assign(user_id=draw.integers(0, 50, len(log)), cat_id=1, seller_id=2, brand_id=3)
    raw["time_stamp"] = [f"{day:%m%d}" for day in log.day]
    columns = LOG.partition("\n")[0].split(",")
    write(tmp_path, raw[columns].to_csv(index=False))
    monkeypatch.setattr(csv_files, "PART_BYTES", part_bytes)
    run = load_config(
        str(ROOT / "configs" / "tmall.yaml"), [f"logs.path={tmp_path}", f"output={tmp_path}/run"]
    )
    blocks = prepare(run)
    assert (blocks.fields, blocks.tasks) == (FIELDS, ("click", "favourite", "buy"))
    block_names = log.day.map(block_of)
    assert blocks.outside_intervals == block_names.isna().sum() == 3 * (186 - 115)
    assert blocks.quarantined == {}
    items = pd.read_parquet(vocabulary_uri(blocks.uri, "item_id")).set_index("id").value
    for block in blocks.blocks:
        expected = log[block_names == block.name].sort_values("day", kind="stable")
        [fragment] = block.fragments
        rows = pd.read_parquet(storage.join(blocks.uri, fragment.path))
        assert rows.time_ms.tolist() == [midnight(d.month, d.day) for d in expected.day]
        for task, code in {"click": 0, "favourite": 3, "buy": 2}.items():
            assert rows[task].tolist() == (expected.action_type == code).astype(int).tolist()
        if block.role not in ("validation", "test"):
            assert rows.item_id.map(items).tolist() == expected.item_id.tolist()
