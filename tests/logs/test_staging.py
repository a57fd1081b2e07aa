import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from diet_ray import storage
from diet_ray.config import LogsConfig
from diet_ray.logs import staging
from diet_ray.logs.cells import read_cells
from diet_ray.logs.sources import open_source
from diet_ray.logs.staged_values import read_values
from diet_ray.logs.staging import Stager, Window, is_staged, read_ledger

INTERVALS: dict[str, Any] = {
    "historical": ["2024-01-01"],
    "subsequent": "2024-01-02",
    "validation": "2024-01-03",
    "test": "2024-01-04",
}
WINDOWS = (Window("historical-1", 100, 200), Window("subsequent", 200, 300))


def every(key: list[Any]) -> bool:
    return True


def stage(folder: Path, table: pd.DataFrame) -> str:
    table.to_csv(folder / "log.csv", index=False)
    schema = {"format": "csv", "time_column": "at", "fields": ["f"], "tasks": {"y": "y"}}
    logs = LogsConfig.model_validate(
        {"source": "table", "path": str(folder), "intervals": INTERVALS, "table": schema}
    )
    source = open_source(logs, 0)
    uri = str(folder / "blocks")
    assert not is_staged(uri, 0)
    Stager(source, source.parts()[0], 0, uri, WINDOWS).stage(None)
    assert is_staged(uri, 0)
    return uri


@pytest.mark.parametrize("run_rows", [1, 1 << 19])
def test_ledger_says_what_was_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_rows: int
) -> None:
    monkeypatch.setattr(staging, "RUN_ROWS", run_rows)
    monkeypatch.setattr(staging, "QUARANTINE_ROWS", 1)
    log = pd.DataFrame(
        {
            "at": [250, 150, 100, 199, 300, 99, None, 210],
            "f": ["c", "a", "b", "a", "x", "x", "x", None],
            "y": [1, 1, 0, 1, 1, 1, 1, 7],
        }
    )
    uri = stage(tmp_path, log)
    ledger = read_ledger(uri, 0)
    assert (ledger.rows, ledger.outside) == (8, 2)
    assert (ledger.first_ms, ledger.last_ms) == (99, 300)
    assert ledger.block_rows == {"historical-1": 3, "subsequent": 1}
    assert ledger.label_sums == {"historical-1": {"y": 2}, "subsequent": {"y": 1}}
    assert sum(ledger.quarantined.values()) == 2
    assert ledger.first_bad is not None
    assert ledger.first_bad["row"] == 6
    assert {b: sum(h) for b, h in ledger.histograms.items()} == ledger.block_rows
    places = [storage.join(uri, name) for name in ledger.value_files]
    values = pa.concat_tables(
        table for place in places for table in read_values(place, "f", (None, None), len(WINDOWS))
    )
    pairs = zip(values["block"].to_pylist(), values["value"].to_pylist(), strict=True)
    assert set(pairs) == {(0, "a"), (0, "b"), (1, "c")}
    kept = [
        rows for file in ledger.files for _, rows in read_cells(storage.join(uri, file.path), every)
    ]
    assert sorted(pa.concat_tables(kept)["time_ms"].to_pylist()) == [100, 150, 199, 250]
    bad = pd.read_parquet(storage.join(uri, "quarantine"))
    assert bad.row.tolist() == [6, 7]
    assert bad.file.tolist() == ["log.csv"] * 2


def test_a_part_without_usable_rows(tmp_path: Path) -> None:
    uri = stage(tmp_path, pd.DataFrame({"at": [500], "f": ["a"], "y": [1]}))
    assert read_ledger(uri, 0).files == ()
    assert read_ledger(uri, 0).value_files == ()


def test_cells_are_whole_bins_in_time_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(staging, "CELL_ROWS", 10)
    draw = np.random.default_rng(3)
    at = draw.integers(100, 300, 200)
    uri = stage(tmp_path, pd.DataFrame({"at": at, "f": at, "y": at % 2}))
    for file, window in zip(read_ledger(uri, 0).files, WINDOWS, strict=True):
        cells = read_cells(storage.join(uri, file.path), every)
        times = [cell["time_ms"].to_numpy() for _, cell in cells]
        inside = (at >= window.start) & (at < window.end)
        assert np.concatenate(times).tolist() == sorted(at[inside])
        assert [key for key, _ in cells] == [[t[0], t[-1]] for t in times]
        bins = [set(window.bins(t)) for t in times]
        assert all(not a & b for a, b in itertools.combinations(bins, 2))
        most = np.bincount(window.bins(at[inside])).max()
        assert len(cells) > 1
        assert all(len(t) <= 10 + most for t in times)
