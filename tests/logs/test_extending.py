from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from diet_ray.config import LogsConfig
from diet_ray.logs import staged_values, staging
from diet_ray.logs.extending import extend_vocabularies
from diet_ray.logs.sources import open_source
from diet_ray.logs.staged_log import StagedLog, staged_log
from diet_ray.logs.staging import Stager, Window
from diet_ray.logs.vocabulary import vocabulary_uri

WINDOWS = tuple(Window(f"b{t}", 100 * t, 100 * (t + 1)) for t in range(4))
GROWING = ["b0", "b1", "b2"]

pytestmark = pytest.mark.usefixtures("ray_session")


def made_log(rows: int = 400) -> pd.DataFrame:
    """Unsorted; values that come with time, some of them missing."""
    draw = np.random.default_rng(5)
    at = draw.integers(0, 400, rows)
    few = draw.integers(0, 3, rows)
    many = (draw.random(rows) * (20 + at)).astype(int)
    return pd.DataFrame(
        {
            "at": at,
            "few": np.where((few == 0) & (at >= 100), None, np.char.add("v", few.astype(str))),
            "many": [None if value == 7 else f"é{value}" for value in many],
            "y": 1,
        }
    )


def stage(folder: Path, log: pd.DataFrame) -> StagedLog:
    """The log as two files, in several runs each."""
    raw = folder / "raw"
    raw.mkdir()
    for number, index in enumerate(np.array_split(np.arange(len(log)), 2)):
        log.iloc[index].to_csv(raw / f"{number}.csv", index=False)
    intervals = {"historical": ["2024-01-01"], "subsequent": "2024-01-02"}
    intervals |= {"validation": "2024-01-03", "test": "2024-01-04"}
    table = {"format": "csv", "time_column": "at", "fields": ["few", "many"], "tasks": {"y": "y"}}
    content = {"source": "table", "path": str(raw), "intervals": intervals, "table": table}
    source = open_source(LogsConfig.model_validate(content), 0)
    return staged_log(
        Stager(source, part, number, str(folder), WINDOWS).stage(None)
        for number, part in enumerate(source.parts())
    )


@pytest.mark.parametrize("range_marks", [1, staged_values.RANGE_MARKS])
def test_vocabularies_are_the_obvious_ones_however_they_are_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, range_marks: int
) -> None:
    monkeypatch.setattr(staging, "RUN_ROWS", 1)
    monkeypatch.setattr(staged_values, "CELL_VALUES", 8)
    monkeypatch.setattr(staged_values, "RANGE_MARKS", range_marks)
    log = made_log()
    staged = stage(tmp_path, log)
    extended = extend_vocabularies(str(tmp_path), ["few", "many"], GROWING, staged)
    pieces = list((tmp_path / "staging" / "vocabulary").glob("many-*.arrow"))
    assert (len(pieces) > 10) == (range_marks == 1)
    for field, vocabulary in extended.items():
        values: list[str | None] = []
        sizes, added = [], []
        for window in WINDOWS[: len(GROWING)]:
            inside = (log["at"] >= window.start) & (log["at"] < window.end)
            texts = {None if pd.isna(v) else v for v in log[field][inside]} - set(values)
            values += sorted(texts, key=lambda v: (v is not None, v or ""))
            added += [window.block] * len(texts)
            sizes.append(len(values) + 1)
        written = pq.read_table(vocabulary_uri(str(tmp_path), field))
        assert written["value"].to_pylist() == values
        assert written["block"].to_pylist() == added
        assert vocabulary.sizes == sizes
        found = vocabulary.index.open().look_up(written["value"].combine_chunks())
        assert found.tolist() == list(range(1, len(values) + 1))
