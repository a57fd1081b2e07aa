import logging
import os
import runpy
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from diet_ray import storage, telemetry
from diet_ray.config import RunConfig, load_config
from diet_ray.logs import prepare as preparing
from diet_ray.logs.blocks import BlocksError, open_blocks, read_block
from diet_ray.logs.prepare import prepare, summarise
from diet_ray.logs.sources import LogsError
from diet_ray.logs.sources.kuairand import FIELDS, TASKS
from tests.recorded import Recorded

ROOT = Path(__file__).parents[2]
KUAIRAND = ROOT.parent / "shared" / "data" / "kuairand-pure"
START = 1_704_067_200_000  # 2024-01-01 UTC
DAY = 86_400_000
INTERVALS = {
    "historical": ["2024-01-01", "2024-01-02"],
    "subsequent": "2024-01-03",
    "validation": "2024-01-04",
    "test": "2024-01-05",
}
NAMES = ["historical-1", "historical-2", "subsequent", "validation", "test"]

pytestmark = pytest.mark.usefixtures("ray_session")


def made_log(rows: int = 900) -> pd.DataFrame:
    """Unsorted, with ties in time, missing values, values that appear late, rows outside."""
    draw = np.random.default_rng(1)
    at = START + np.sort(draw.integers(0, 6 * DAY // 600_000, rows)) * 600_000
    age = (at - START) / (6 * DAY)
    item = (draw.random(rows) * (20 + 60 * age)).astype(int)
    return pd.DataFrame(
        {
            "user": [None if u == 3 else f"u{u}" for u in draw.integers(0, 40, rows)],
            "item": item,
            "rating": draw.integers(1, 6, rows),
            "at": at,
        }
    ).iloc[draw.permutation(rows)]


def write_log(folder: Path, log: pd.DataFrame, files: int = 3) -> None:
    folder.mkdir(exist_ok=True)
    for number, index in enumerate(np.array_split(np.arange(len(log)), files)):
        part = pa.Table.from_pandas(log.iloc[index], preserve_index=False)
        pq.write_table(part, folder / f"{number}.parquet")


def config(tmp_path: Path, output: str = "run", **logs: Any) -> RunConfig:
    schema = {
        "time_column": "at",
        "fields": ["user", "item"],
        "tasks": {"good": "rating >= 4", "best": "rating == 5"},
    }
    return RunConfig.model_validate(
        {
            "output": str(tmp_path / output),
            "logs": {
                "source": "table",
                "path": str(tmp_path / "log"),
                "intervals": INTERVALS,
                "table": schema,
                "fragment_rows": 60,
                "row_group_rows": 25,
                **logs,
            },
        }
    )


def reference(log: pd.DataFrame) -> tuple[dict[str, pd.DataFrame], dict[str, dict[str, int]]]:
    """The blocks and vocabulary sizes, by the obvious way in one process."""
    known: dict[str, list[str | None]] = {"user": [None] * 0, "item": []}
    blocks, sizes, first = {}, {}, 0
    for day, name in enumerate(NAMES):
        start = START + day * DAY
        rows = log[(log["at"] >= start) & (log["at"] < start + DAY)]
        rows = rows.sort_values("at", kind="stable")
        columns: dict[str, Any] = {"row_id": range(first, first + len(rows)), "time_ms": rows["at"]}
        for field in ("user", "item"):
            text = [None if pd.isna(v) else str(v) for v in rows[field]]
            if name not in ("validation", "test"):
                new = set(text) - set(known[field])
                known[field] += sorted(new, key=lambda v: (v is not None, v or ""))
            ids = {value: number for number, value in enumerate(known[field], start=1)}
            columns[field] = [ids.get(value, 0) for value in text]
        columns["good"] = rows["rating"] >= 4
        columns["best"] = rows["rating"] == 5
        blocks[name] = pd.DataFrame(columns).astype("int64").reset_index(drop=True)
        sizes[name] = {field: len(values) + 1 for field, values in known.items()}
        first += len(rows)
    return blocks, sizes


def unseen(log: pd.DataFrame, name: str) -> dict[str, float]:
    """field -> share of a block's rows whose value no historical block before it holds."""
    day = (log["at"] - START) // DAY
    own, before = log[day == NAMES.index(name)], log[day < min(NAMES.index(name), 2)]
    if not len(before):
        return {}
    known = {f: set(before[f].fillna("missing")) for f in ("user", "item")}
    return {f: float((~own[f].fillna("missing").isin(k)).mean()) for f, k in known.items()}


def stored(uri: str, name: str) -> pd.DataFrame:
    block = open_blocks(uri).block(name)
    tables = [pq.read_table(storage.join(uri, f.path)) for f in block.fragments]
    return pa.concat_tables(tables).to_pandas().astype("int64")


def all_bytes(uri: str) -> dict[str, bytes]:
    return {
        str(path.relative_to(uri)): path.read_bytes()
        for path in sorted(Path(uri).rglob("*"))
        if path.is_file()
    }


def test_equals_the_obvious_way(tmp_path: Path) -> None:
    log = made_log()
    write_log(tmp_path / "log", log)
    blocks = prepare(config(tmp_path))
    expected, sizes = reference(log)
    assert [b.name for b in blocks.blocks] == NAMES
    assert [b.role for b in blocks.blocks] == ["historical"] * 2 + NAMES[2:]
    for block in blocks.blocks:
        rows = expected[block.name]
        pd.testing.assert_frame_equal(stored(blocks.uri, block.name), rows)
        assert block.rows == len(rows)
        assert block.vocabulary_sizes == sizes[block.name]
        assert block.label_rates == pytest.approx(rows[["good", "best"]].mean().to_dict())
        assert block.unseen == pytest.approx(unseen(log, block.name))
        assert read_block(blocks, block).ids.tolist() == rows[["user", "item"]].to_numpy().tolist()
        for fragment in block.fragments:
            metadata = pq.read_metadata(storage.join(blocks.uri, fragment.path))
            assert fragment.rows <= 60
            assert metadata.num_row_groups == fragment.row_groups
            assert metadata.row_group(0).num_rows <= 25
    assert (expected["validation"]["item"] == 0).any()
    assert blocks.outside_intervals == (log["at"] >= START + 5 * DAY).sum()
    assert blocks.quarantined == {}
    types = pq.read_schema(storage.join(blocks.uri, blocks.blocks[0].fragments[0].path))
    assert [str(t) for t in types.types] == ["int64", "int64", "int32", "int32", "uint8", "uint8"]
    assert open_blocks(blocks.uri) == blocks
    assert not storage.exists(storage.join(blocks.uri, "staging"))


class BackToFront:
    """Stands in for a Ray Data pipeline: one process, last task first."""

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        self.rows = rows[::-1]

    def map(self, task: Callable[..., dict[str, Any]], fn_args: tuple[Any, ...]) -> "BackToFront":
        self.rows = [task(row, *fn_args) for row in self.rows]
        return self

    def iter_rows(self) -> list[dict[str, Any]]:
        return self.rows


def test_bytes_do_not_depend_on_who_did_what_when(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_log(tmp_path / "log", made_log())
    parallel = prepare(config(tmp_path, "parallel"))
    monkeypatch.setattr(preparing, "one_task_each", BackToFront)
    serial = prepare(config(tmp_path, "serial"))
    assert all_bytes(serial.uri) == all_bytes(parallel.uri)


def test_hashed_field_has_constant_size(tmp_path: Path) -> None:
    write_log(tmp_path / "log", made_log())
    blocks = prepare(config(tmp_path, hash_buckets={"item": 16}))
    assert all("item" not in b.unseen for b in blocks.blocks)
    assert {b.vocabulary_sizes["item"] for b in blocks.blocks} == {17}
    ids = stored(blocks.uri, "test")["item"]
    assert ids.between(1, 16).all()
    assert not storage.exists(storage.join(blocks.uri, "vocabulary/item.parquet"))


def test_what_cannot_help_is_named_also_when_blocks_are_published(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = made_log().assign(day=lambda t: t["at"] // DAY, one="x", row=range(900))
    write_log(tmp_path / "log", log)
    schema = {
        "time_column": "at",
        "fields": ["item", "day", "one", "row"],
        "tasks": {"good": "rating >= 4", "never": "rating >= 6"},
    }
    monkeypatch.setattr(logging.getLogger("diet_ray"), "propagate", True)
    for _ in range(2):
        caplog.clear()
        blocks = prepare(config(tmp_path, table=schema))
        warned = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
        assert [text.split()[1:3] for text in warned] == [
            ["field", "'day'"],
            ["field", "'one'"],
            ["field", "'row'"],
            ["task", "'never'"],
        ]
        assert "100% of subsequent, 100% of validation, 100% of test" in warned[0]
        assert "rows with a value that earlier history lacks:" in summarise(blocks)


def test_a_second_run_does_nothing_and_another_log_is_refused(tmp_path: Path) -> None:
    write_log(tmp_path / "log", made_log())
    blocks = prepare(config(tmp_path))
    before = all_bytes(blocks.uri)
    changed = {p: os.stat(storage.join(blocks.uri, p)).st_mtime_ns for p in before}
    assert prepare(config(tmp_path, bad_rows_limit=0.5)) == blocks
    assert changed == {p: os.stat(storage.join(blocks.uri, p)).st_mtime_ns for p in before}
    with pytest.raises(LogsError, match=f"fingerprint {blocks.fingerprint}, this run's is") as no:
        prepare(config(tmp_path, fragment_rows=61))
    assert "another output, or remove the folder" in str(no.value)
    assert all_bytes(blocks.uri) == before


def test_some_rows_of_a_log_are_a_log_of_their_own(tmp_path: Path) -> None:
    write_log(tmp_path / "log", made_log())
    whole, some = prepare(config(tmp_path)), prepare(config(tmp_path, "some", most_rows=450))
    assert some.fingerprint != whole.fingerprint
    for block, part in zip(whole.blocks, some.blocks, strict=True):
        assert 0 < part.rows < block.rows
    with pytest.raises(LogsError, match="another log or configuration"):
        prepare(config(tmp_path, most_rows=450))


class Killed(Exception):
    pass


def test_continues_after_the_finished_parts_and_fragments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_log(tmp_path / "log", made_log())
    whole = prepare(config(tmp_path, "whole"))

    def killed(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(preparing, "_describe", killed)
        with pytest.raises(Killed):
            prepare(config(tmp_path))
    uri = Path(tmp_path / "run" / "blocks")
    (uri / "staging" / "part-00001" / "ledger.json").unlink()
    (uri / "test" / "fragment-00000.parquet").unlink()
    kept = [uri / "staging/part-00000/ledger.json", uri / "historical-1/fragment-00000.parquet"]
    changed = [path.stat().st_mtime_ns for path in kept]
    with monkeypatch.context() as patch:
        patch.setattr(preparing, "_describe", killed)
        with pytest.raises(Killed):
            prepare(config(tmp_path))
    assert changed == [path.stat().st_mtime_ns for path in kept]
    assert prepare(config(tmp_path)).blocks == whole.blocks
    assert all_bytes(str(uri)) == all_bytes(whole.uri)


def test_unfinished_work_for_another_log_is_begun_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = made_log()
    write_log(tmp_path / "log", log.assign(user="other"))

    def killed(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(preparing, "_describe", killed)
        with pytest.raises(Killed):
            prepare(config(tmp_path))
    write_log(tmp_path / "log", log)
    blocks = prepare(config(tmp_path))
    pd.testing.assert_frame_equal(stored(blocks.uri, "test"), reference(log)[0]["test"])


def test_bad_rows_are_quarantined_up_to_the_limit(tmp_path: Path, recorded: Recorded) -> None:
    log = made_log()
    rating = log["rating"].astype("float64")
    rating.iloc[[5, 700]] = None
    write_log(tmp_path / "log", log.assign(rating=rating, at=log["at"].astype("float64")))
    with pytest.raises(LogsError) as error:
        prepare(config(tmp_path))
    message = str(error.value)
    assert "2 of 900 rows cannot be used, more than logs.bad_rows_limit=0.001" in message
    assert "2 with 'label good is not 0 or 1'" in message
    assert "0.parquet: label good" in message
    assert '"rating": null' in message
    assert "blocks/quarantine" in message
    assert "--set logs.bad_rows_limit=0.003" in message
    blocks = prepare(config(tmp_path, bad_rows_limit=0.003))
    assert blocks.quarantined == {"label good is not 0 or 1": 2}
    assert recorded.values(telemetry.QUARANTINED_ROWS) == [2, 2]  # also of what was refused
    bad = pd.read_parquet(storage.join(blocks.uri, "quarantine"))
    assert list(zip(bad.part, bad.row, strict=True)) == [(0, 5), (2, 100)]


def test_empty_blocks_tell_where_the_log_is(tmp_path: Path) -> None:
    write_log(tmp_path / "log", made_log())
    intervals = {**INTERVALS, "historical": ["2023-12-01", "2024-01-02"], "test": "2024-03-01"}
    with pytest.raises(LogsError) as error:
        prepare(config(tmp_path, intervals=intervals))
    message = str(error.value)
    assert "no row in historical-1 (2023-12-01" in message
    assert "test (2024-03-01" in message
    assert "the log goes from 2024-01-01T00:" in message


def test_an_error_in_a_task_comes_out_clear(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    folder.mkdir()
    made_log().to_csv(folder / "a.csv", index=False)
    (folder / "b.csv").write_bytes(b"user,item,rating,at\n\xff\xfe\xff,1,2,3\n")
    schema = {
        "format": "csv",
        "time_column": "at",
        "fields": ["user"],
        "tasks": {"good": "rating >= 4"},
    }
    with pytest.raises(LogsError, match=r"b\.csv: not a readable CSV file") as error:
        prepare(config(tmp_path, table=schema))
    assert type(error.value) is LogsError
    assert str(error.value).endswith("; replace it"), "and nothing of Ray's own"


SYNTHETIC = """
output: {output}
logs:
  source: synthetic
  synthetic: {{rows: 6000, users: 50, items: 40, days: 5, rows_per_part: {part}}}
  intervals: {{historical: [2024-01-01, 2024-01-02], subsequent: 2024-01-03,
    validation: 2024-01-04, test: 2024-01-05}}
  fragment_rows: 500
"""


def test_a_killed_job_continues(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGKILL to the driver while parts are staged; the next start ends with the same bytes."""
    monkeypatch.setattr(sys, "argv", ["prepare.py"])
    runs = {}
    for name in ("whole", "killed"):
        path = tmp_path / f"{name}.yaml"
        path.write_text(SYNTHETIC.format(output=tmp_path / name, part=200))
        runs[name] = path
    job = subprocess.Popen(
        [sys.executable, ROOT / "jobs" / "prepare.py", "--config", runs["killed"]],
        env={**os.environ, "PYTHONPATH": str(ROOT), "RAY_ADDRESS": ""},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    staging = tmp_path / "killed" / "blocks" / "staging"
    until = time.monotonic() + 90
    while not list(staging.glob("part-*/ledger.json")):
        assert job.poll() is None, "the job ended before it could be killed"
        assert time.monotonic() < until
        time.sleep(0.02)
    os.kill(job.pid, signal.SIGKILL)
    job.wait()
    assert not (tmp_path / "killed" / "blocks" / "manifest.json").exists()
    for path in runs.values():
        assert run_job(path) == 0
    killed, whole = (all_bytes(str(tmp_path / name / "blocks")) for name in ("killed", "whole"))
    assert killed == whole


def run_job(path: Path, *arguments: str) -> int:
    """Exit status of the job, run in this process."""
    sys.argv[1:] = ["--config", str(path), *arguments]
    try:
        runpy.run_path(str(ROOT / "jobs" / "prepare.py"), run_name="__main__")
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


def test_job_says_what_it_made_or_what_is_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["prepare.py"])
    path = tmp_path / "run.yaml"
    path.write_text(SYNTHETIC.format(output=tmp_path / "run", part=6000))
    assert run_job(path) == 0
    shown = capsys.readouterr().out
    assert "historical-1          1,200" in shown
    assert "user_id 51" in shown
    assert run_job(path) == 0
    assert "published already" in capsys.readouterr().out
    assert run_job(path, "--set", "seed=1") == 2
    problem = capsys.readouterr().err
    assert "another log or configuration" in problem
    assert "Traceback" not in problem


@pytest.mark.skipif(not KUAIRAND.exists(), reason=f"no KuaiRand-Pure in {KUAIRAND}")
def test_kuairand_pure(tmp_path: Path) -> None:
    run = load_config(
        str(ROOT / "configs" / "kuairand_pure.yaml"),
        [f"logs.path={KUAIRAND}", f"output={tmp_path}"],
    )
    blocks = prepare(run)
    assert blocks.fields == FIELDS
    assert blocks.tasks == TASKS
    log = pd.read_csv(next(KUAIRAND.glob("log_standard*.csv")))
    outside = len(log)
    for name, interval in run.logs.intervals.named():
        start, end = interval.bounds_ms("Asia/Shanghai")
        rows = log[(log.time_ms >= start) & (log.time_ms < end)]
        block = blocks.block(name)
        assert block.rows == len(rows)
        assert block.label_rates == pytest.approx(rows[list(TASKS)].mean().to_dict())
        assert (np.diff(stored(blocks.uri, name).time_ms) >= 0).all()
        outside -= len(rows)
    assert blocks.outside_intervals == outside
    rates = sum(b.label_rates["is_click"] * b.rows for b in blocks.blocks) / (len(log) - outside)
    assert rates == pytest.approx(0.442, abs=0.001)
    assert blocks.quarantined == {}


@pytest.mark.parametrize(
    ("tasks", "time_unit", "told"),
    [
        (
            {"good": "word"},
            "ms",
            "logs.table.tasks.good: 'word' does not give 0 and 1: write an expression that does",
        ),
        ({"good": "rating"}, "ms", "logs.table.tasks.good: 'rating' does not give 0 and 1: write"),
        (
            {"good": "rating >= 4"},
            "%Y",
            "logs.table.time_unit '%Y' is not how column 'at' writes times: set it to s, ms, us",
        ),
    ],
)
def test_a_log_that_is_misread_needs_no_other_limit(
    tmp_path: Path, tasks: dict[str, str], time_unit: str, told: str
) -> None:
    """Most rows are unusable since the configuration says something else than the log."""
    write_log(tmp_path / "log", made_log().assign(word="yes"))
    schema = {"time_column": "at", "time_unit": time_unit, "fields": ["user"], "tasks": tasks}
    with pytest.raises(LogsError) as error:
        prepare(config(tmp_path, table=schema))
    assert told in str(error.value)
    assert "--set logs.bad_rows_limit" not in str(error.value)


@pytest.mark.parametrize("damage", ["missing", "cut"])
def test_published_blocks_that_are_not_whole_are_refused(tmp_path: Path, damage: str) -> None:
    write_log(tmp_path / "log", made_log())
    blocks = prepare(config(tmp_path))
    before = all_bytes(blocks.uri)
    path = Path(blocks.uri, blocks.blocks[1].fragments[0].path)
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-1])
    message = f"{path}: .*; remove the folder {blocks.uri} and prepare the log again"
    with pytest.raises(BlocksError, match=message):
        prepare(config(tmp_path))
    shutil.rmtree(blocks.uri)
    assert prepare(config(tmp_path)) == blocks
    assert all_bytes(blocks.uri) == before


def test_times_beyond_the_calendar_are_told(tmp_path: Path) -> None:
    write_log(tmp_path / "log", made_log().assign(at=lambda log: log["at"] * 500))
    with pytest.raises(LogsError, match=r"the log goes from 852,0.* ms from 1970 to 852,.*unit"):
        prepare(config(tmp_path))
