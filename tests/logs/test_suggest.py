import itertools
import runpy
import sys
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from diet_ray.config import RunConfig, load_config
from diet_ray.logs.cleaning import clean
from diet_ray.logs.prepare import prepare
from diet_ray.logs.sources import LogsError, open_source
from diet_ray.logs.suggest import NAMES, SHARES, cut, quoted, suggest

ROOT = Path(__file__).parents[2]
KUAIRAND = ROOT.parent / "shared" / "data" / "kuairand-pure"
DAY_MS = 86_400_000
START = 1_700_000_000_000


def log(rows: int = 2_000, days: float = 30) -> pd.DataFrame:
    draw = np.random.default_rng(5)
    return pd.DataFrame(
        {
            "": np.arange(rows),  # as pandas writes an index
            "user": draw.integers(0, 90, rows),
            "item": draw.integers(0, 70, rows),
            "rating": draw.integers(1, 6, rows),
            "bought": draw.integers(0, 2, rows),
            "watch_time_ms": draw.integers(0, 10_000, rows),
            "at": START + np.sort(draw.integers(0, int(days * DAY_MS), rows)),
        }
    )


def loaded(text: str, folder: Path) -> RunConfig:
    path = folder / "suggested.yaml"
    path.write_text(text)
    return load_config(str(path))


def rows_by_block(config: RunConfig) -> tuple[dict[str, int], int]:
    """Usable rows of each block, and the unusable ones, by the obvious way."""
    source = open_source(config.logs, 0)
    times: list[int] = []
    bad = 0
    for part in source.parts():
        for batch in source.read(part, source.load_shared()):
            rows, flawed = clean(batch, source.tasks)
            times += rows["time_ms"].to_pylist()
            bad += len(flawed)
    at = np.array(times)
    counts = {}
    for name, interval in config.logs.intervals.named():
        start, end = interval.bounds_ms(config.logs.timezone)
        counts[name] = int(((at >= start) & (at < end)).sum())
    assert sum(counts.values()) == len(at)
    return counts, bad


@pytest.mark.parametrize("name", ["log.csv", "log.tsv.gz", "log.parquet"])
def test_a_table_of_ones_own_needs_no_edit(tmp_path: Path, name: str, ray_session: None) -> None:
    if name.endswith("parquet"):
        log().to_parquet(tmp_path / name)
    else:
        separator = "," if "csv" in name else "\t"
        log().to_csv(tmp_path / name, index=False, sep=separator)
    config = loaded(suggest(str(tmp_path / name)), tmp_path)
    schema = config.logs.table
    assert schema is not None
    assert schema.fields == ["user", "item"]
    assert schema.tasks == {"like": "rating >= 4", "bought": "bought"}
    assert schema.feedback == ["rating", "bought", "watch_time_ms"]
    assert (schema.time_column, schema.time_unit) == ("at", "ms")
    assert all(i.start.hour == 0 for _, i in config.logs.intervals.named())
    blocks = prepare(config.model_copy(update={"output": str(tmp_path / "run")}))
    assert blocks.quarantined == {}
    assert blocks.outside_intervals == 0
    shares = [block.rows / 2_000 for block in blocks.blocks]
    assert shares == pytest.approx(SHARES, abs=0.04)


def test_partitions_need_no_edit(tmp_path: Path) -> None:
    for day, rows in log().groupby(log()["at"] // DAY_MS):
        date = pd.Timestamp(day, unit="D").strftime("%Y-%m-%d")
        (tmp_path / f"date={date}").mkdir()
        rows.drop(columns="at").to_parquet(tmp_path / f"date={date}" / "part-0.parquet")
    config = loaded(suggest(f"{tmp_path}/date=*"), tmp_path)
    assert config.logs.table is not None
    assert config.logs.table.time_column == "date"
    counts, bad = rows_by_block(config)
    assert bad == 0
    assert min(counts.values()) > 0


NAME = st.text(min_size=1, max_size=12).filter(lambda t: t.isprintable() and "\0" not in t)
NAMED = st.sampled_from(
    ["user_id", "rating", "is_click", "action", "play_time_ms", "title", "time_ms", "true", "1e3"]
)
COLUMNS: dict[str, Any] = {
    "ids": lambda draw, n: draw.integers(0, 8, n),
    "labels": lambda draw, n: draw.integers(0, 2, n),
    "truths": lambda draw, n: draw.random(n) < 0.5,
    "words": lambda draw, n: draw.choice(["it's", 'a "b"', "x\ny", "c", "", "true"], n),
    "floats": lambda draw, n: draw.random(n),
    "gaps": lambda draw, n: pd.array(draw.choice([1, None], n)),
    "times": lambda draw, n: START + draw.integers(0, 10**9, n),
}


@given(
    st.dictionaries(NAME | NAMED, st.sampled_from(list(COLUMNS)), min_size=1, max_size=6),
    st.integers(40, 80),
    st.lists(st.integers(0, 40 * DAY_MS), min_size=6, max_size=9, unique=True),
    st.integers(0, 2**32),
)
@hypothesis.settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)
def test_what_is_suggested_loads(
    tmp_path: Path, kinds: dict[str, str], more: int, moments: list[int], seed: int
) -> None:
    """Whatever the columns are called and hold: a label, a user and a time are there."""
    draw = np.random.default_rng(seed)
    rows = len(moments) + more
    frame = {name: COLUMNS[kind](draw, rows) for name, kind in kinds.items()}
    frame |= {
        "event time": START + np.array([*moments, *draw.choice(moments, more)]),
        "who?": draw.integers(0, 2, rows) + 7,
        "y: n": [0, 1, *draw.integers(0, 2, rows - 2)],
    }
    table = pa.table({name: pa.array(column) for name, column in frame.items()})
    pq.write_table(table, tmp_path / "log.parquet")
    config = loaded(suggest(str(tmp_path / "log.parquet")), tmp_path)
    counts, bad = rows_by_block(config)
    assert bad == 0
    assert list(counts)[3:] == list(NAMES)[3:]
    assert min(counts.values()) > 0


@given(st.text(max_size=30))
def test_quoted_text_is_read_as_it_is(text: str) -> None:
    if not any("\ud800" <= c <= "\udfff" for c in text):
        line = quoted(text)
        assert "\n" not in line
        assert yaml.safe_load(f"[{line}]  # {line}") == [text]
        assert yaml.safe_load(f"{line}: 1  # {line}") == {text: 1}


@given(st.lists(st.integers(0, 10**10), min_size=6, max_size=300).filter(lambda t: len(set(t)) > 5))
def test_cuts_cover_the_log_and_no_block_is_empty(offsets: list[int]) -> None:
    times = np.sort(np.array(offsets)) + START
    cuts = cut(times, int(times[0]), int(times[-1]))
    assert len(cuts) == len(NAMES)
    assert cuts[0].start <= times[0]
    assert times[-1] < cuts[-1].end
    for before, after in itertools.pairwise(cuts):
        assert before.end == after.start
    for one in cuts:
        inside = ((times >= one.start) & (times < one.end)).sum()
        assert inside > 0
        assert one.share == pytest.approx(inside / len(times))


@pytest.mark.parametrize(
    ("days", "step"), [(60, DAY_MS), (2, 3_600_000), (0.05, 60_000), (0.001, 1_000)]
)
def test_cuts_are_as_round_as_the_span_allows(days: float, step: int) -> None:
    times = START + np.arange(1_000) * int(days * DAY_MS) // 1_000
    cuts = cut(times, int(times[0]), int(times[-1]))
    assert all(one.start % step == 0 for one in cuts)
    assert [one.share for one in cuts] == pytest.approx(SHARES, abs=0.03)


def test_too_few_times() -> None:
    with pytest.raises(LogsError, match="5 different times, too few for 6 blocks"):
        cut(np.arange(5) + START, START, START + 4)


def test_few_and_frequent_tasks_are_chosen(tmp_path: Path) -> None:
    draw = np.random.default_rng(1)
    rates = {"a": 0.02, "b": 0.5, "c": 0.3, "d": 0.1, "rare": 0.001}
    labels = {f"is_{name}": (draw.random(2_000) < rate) * 1 for name, rate in rates.items()}
    log().drop(columns=["rating", "bought"]).assign(**labels).to_csv(tmp_path / "l.csv")
    text = suggest(str(tmp_path / "l.csv"))
    config = loaded(text, tmp_path)
    assert config.logs.table is not None
    assert list(config.logs.table.tasks) == ["is_b", "is_c"]
    assert "# is_rare: is_rare  # 0." in text
    assert set(labels) < set(config.logs.table.feedback)


@pytest.mark.parametrize(
    ("without", "message"),
    [
        (["at"], "no column looks like a time"),
        (["rating", "bought"], "no column looks like a label"),
        (["user", "item"], "no column looks like a feature"),
    ],
)
def test_says_what_is_missing(tmp_path: Path, without: list[str], message: str) -> None:
    log().drop(columns=without).to_parquet(tmp_path / "log.parquet")
    with pytest.raises(LogsError, match=message):
        suggest(str(tmp_path))


def test_the_job_prints_or_writes_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    log().to_parquet(tmp_path / "log.parquet")
    job = str(ROOT / "jobs" / "prepare.py")
    monkeypatch.setattr(sys, "argv", [job, "--suggest", str(tmp_path)])
    runpy.run_path(job, run_name="__main__")
    printed = capsys.readouterr().out
    assert printed == suggest(str(tmp_path))
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--output", str(tmp_path / "new.yaml")])
    runpy.run_path(job, run_name="__main__")
    assert (tmp_path / "new.yaml").read_text() == printed
    monkeypatch.setattr(sys, "argv", [job, f"--suggest={tmp_path}/absent"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(job, run_name="__main__")
    assert ended.value.code == 2
    assert "absent: no such file or folder" in capsys.readouterr().err


@pytest.mark.skipif(not KUAIRAND.exists(), reason=f"no KuaiRand-Pure in {KUAIRAND}")
def test_kuairand_pure(tmp_path: Path) -> None:
    config = loaded(suggest(f"{KUAIRAND}/log_standard*.csv"), tmp_path)
    schema = config.logs.table
    assert schema is not None
    assert (schema.time_column, schema.time_unit) == ("time_ms", "ms")
    assert schema.fields == ["user_id", "video_id", "hourmin", "tab"]
    assert {"is_click", "long_view"} < set(schema.tasks)
    counts, bad = rows_by_block(config)
    assert bad == 0
    rows = sum(counts.values())
    assert [count / rows for count in counts.values()] == pytest.approx(SHARES, abs=0.04)
