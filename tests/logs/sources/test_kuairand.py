from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from diet_ray.config import LogsConfig
from diet_ray.logs.sources import LogsError, csv_files, open_source
from diet_ray.logs.sources.kuairand import FEEDBACK, FIELDS, TASKS, USER, VIDEO, KuaiRand

INTERVALS = {
    "historical": ["2022-04-25"],
    "subsequent": "2022-04-26",
    "validation": "2022-04-27",
    "test": "2022-04-28",
}
USER_FIELDS = FIELDS[9:]
VIDEO_FIELDS = ("author_id", "video_type", "upload_type", "music_id", "music_type", "tag")


def interactions(users: list[int], videos: list[int]) -> pd.DataFrame:
    count = len(users)
    log = {"user_id": users, "video_id": videos, "hourmin": [100] * count}
    log |= {"time_ms": [1_650_816_000_000 + i for i in range(count)], "tab": [1] * count}
    log |= {name: [i % 2 for i in range(count)] for name in FEEDBACK}
    return pd.DataFrame(log)


def write_release(folder: Path) -> None:
    first = interactions([3, 1, 99], [20, 10, 20])
    first.to_csv(folder / "log_standard_1.csv", index=False)
    second = interactions([2, 3], [77, 10])[first.columns[::-1]]
    second.to_csv(folder / "log_standard_2.csv", index=False)
    interactions([1], [10]).to_csv(folder / "log_random_1.csv", index=False)
    users = pd.DataFrame({"user_id": [3, 1, 2], **{f: ["z", "x", "y"] for f in USER_FIELDS}})
    users.assign(onehot_feat0=[1, None, 3]).to_csv(folder / "user_features_x.csv", index=False)
    videos = pd.DataFrame({"video_id": [20, 10], **{f: ["b", "a"] for f in VIDEO_FIELDS}})
    videos.assign(tag=[None, "a,c"]).to_csv(folder / "video_features_basic_x.csv", index=False)


def config(folder: Path, **logs: Any) -> LogsConfig:
    return LogsConfig.model_validate(
        {"source": "kuairand", "path": str(folder), "intervals": INTERVALS, **logs}
    )


def read(logs: LogsConfig) -> pd.DataFrame:
    source = open_source(logs, 0)
    shared = source.load_shared()
    return pd.concat(
        [b.rows.to_pandas() for p in source.parts() for b in source.read(p, shared)],
        ignore_index=True,
    ).astype(object)


def test_joins_the_side_tables(tmp_path: Path) -> None:
    write_release(tmp_path)
    rows = read(config(tmp_path))
    assert list(rows.columns) == ["_row", "time_ms", *FIELDS, *TASKS]
    assert rows.user_id.tolist() == ["3", "1", "99", "2", "3"]
    assert rows.user_active_degree.where(rows.user_active_degree.notna(), None).tolist() == [
        "z",
        "x",
        None,
        "y",
        "z",
    ]
    assert rows.author_id.where(rows.author_id.notna(), None).tolist() == ["b", "a", "b", None, "a"]
    assert rows.tag.where(rows.tag.notna(), None).tolist() == [None, "a,c", None, None, "a,c"]
    assert rows.is_click.tolist() == [0, 1, 0, 0, 1]


def test_any_column_known_before_the_interaction_may_be_a_field(tmp_path: Path) -> None:
    write_release(tmp_path)
    rows = read(config(tmp_path, fields=["hourmin", "onehot_feat0"], tasks=["is_follow"]))
    assert rows.hourmin.tolist() == ["100"] * 5
    assert rows.onehot_feat0.where(rows.onehot_feat0.notna(), None).tolist() == [
        "1.0",
        None,
        None,
        "3.0",
        "1.0",
    ]


@pytest.mark.parametrize("field", FEEDBACK)
def test_feedback_is_refused_with_the_reason(tmp_path: Path, field: str) -> None:
    write_release(tmp_path)
    with pytest.raises(LogsError, match=f"'{field}' is feedback.*leak the label"):
        KuaiRand(config(tmp_path, fields=["user_id", field]))


def test_unknown_names_suggest_the_nearest(tmp_path: Path) -> None:
    write_release(tmp_path)
    with pytest.raises(LogsError, match="'usr_id'; did you mean 'user_id'"):
        KuaiRand(config(tmp_path, fields=["usr_id"]))
    with pytest.raises(LogsError, match=r"'is_clik'.*did you mean 'is_click'"):
        KuaiRand(config(tmp_path, tasks=["is_clik"]))


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(LogsError, match=r"no log_standard\*\.csv; download.*kuairand\.com"):
        KuaiRand(config(tmp_path))
    write_release(tmp_path)
    (tmp_path / "video_features_basic_x.csv").unlink()
    with pytest.raises(LogsError, match=r"'author_id'; video_features_basic\*\.csv missing"):
        KuaiRand(config(tmp_path))
    KuaiRand(config(tmp_path, fields=["user_id", "video_id"]))


def test_a_missing_column_names_its_file(tmp_path: Path) -> None:
    write_release(tmp_path)
    log = pd.read_csv(tmp_path / "log_standard_2.csv").drop(columns="long_view")
    log.to_csv(tmp_path / "log_standard_2.csv", index=False)
    with pytest.raises(LogsError, match=r"log_standard_2\.csv: no column long_view"):
        KuaiRand(config(tmp_path))


def test_a_damaged_side_table_is_named(tmp_path: Path) -> None:
    write_release(tmp_path)
    with (tmp_path / "user_features_x.csv").open("a") as file:
        file.write("5,short\n")
    with pytest.raises(LogsError, match=r"user_features_x\.csv: 1 rows with a wrong number"):
        KuaiRand(config(tmp_path)).load_shared()
    tables = KuaiRand(config(tmp_path, bad_rows_limit=0.5)).load_shared()
    assert tables[USER].keys.tolist() == [1, 2, 3]
    assert tables[VIDEO].keys.tolist() == [10, 20]


# Headers and a line of each file of KuaiRand-1K, as its public description has them.
RELEASE_1K = {
    "log_standard_4_08_to_4_21_1k.csv": """\
user_id,video_id,date,hourmin,time_ms,is_click,is_like,is_follow,is_comment,is_forward,is_hate,\
long_view,play_time_ms,duration_ms,profile_stay_time,comment_stay_time,is_profile_enter,is_rand,tab
0,3,20220421,2300,1650553200000,1,0,0,0,0,0,1,151024,104400,0,0,0,0,1
""",
    "log_standard_4_22_to_5_08_1k.csv": """\
user_id,video_id,date,hourmin,time_ms,is_click,is_like,is_follow,is_comment,is_forward,is_hate,\
long_view,play_time_ms,duration_ms,profile_stay_time,comment_stay_time,is_profile_enter,is_rand,tab
0,4369952,20220508,2300,1652022000000,0,1,0,0,0,0,0,0,9000,0,0,0,0,0
""",
    "log_random_4_22_to_5_08_1k.csv": "user_id,video_id\n0,3\n",
    "user_features_1k.csv": """\
user_id,user_active_degree,is_lowactive_period,is_live_streamer,is_video_author,follow_user_num,\
follow_user_num_range,fans_user_num,fans_user_num_range,friend_user_num,friend_user_num_range,\
register_days,register_days_range,onehot_feat0,onehot_feat1
0,high_active,0,0,1,5,"(0,10]",312,"[100,1k)",0,0,3624,730+,1,2
""",
    "video_features_basic_1k.csv": """\
video_id,author_id,video_type,upload_dt,upload_type,visible_status,video_duration,server_width,\
server_height,music_id,music_type,tag
3,7,NORMAL,2022-03-01,LongImport,public,104400,720,1280,11,9,"39,12"
4369952,8,AD,2022-03-02,ShortImport,public,,720,1280,12,9,
""",
    "video_features_statistic_1k.csv": "video_id,counts\n3,1\n",
}


@pytest.mark.parametrize("part_bytes", [64, 1 << 20])
def test_reads_the_layout_of_the_1k_release(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part_bytes: int
) -> None:
    monkeypatch.setattr(csv_files, "PART_BYTES", part_bytes)
    for name, text in RELEASE_1K.items():
        (tmp_path / name).write_text(text)
    rows = read(config(tmp_path)).drop(columns="_row")
    first = [1650553200000, "0", "3", "7", "1", "NORMAL", "LongImport", "11", "9", "39,12"]
    last = [1652022000000, "0", "4369952", "8", "0", "AD", "ShortImport", "12", "9", None]
    user = ["high_active", "0", "0", "1", "(0,10]", "[100,1k)", "0", "730+"]
    assert rows.where(rows.notna(), None).to_numpy().tolist() == [
        [*first, *user, 1, 1, 0],
        [*last, *user, 0, 0, 1],
    ]
