from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from diet_ray import storage
from diet_ray.config import LogsConfig
from diet_ray.logs import staging
from diet_ray.logs.sources import open_source
from diet_ray.logs.staging import Stager, Window, is_staged, read_ledger, read_values

INTERVALS: dict[str, Any] = {
    "historical": ["2024-01-01"],
    "subsequent": "2024-01-02",
    "validation": "2024-01-03",
    "test": "2024-01-04",
}
WINDOWS = (Window("historical-1", 100, 200), Window("subsequent", 200, 300))


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
    values = read_values(uri, 0, "f")
    assert {b: sorted(v.to_pylist()) for b, v in values.items()} == {
        "historical-1": ["a", "b"],
        "subsequent": ["c"],
    }
    kept = [pd.read_parquet(storage.join(uri, file.path)) for file in ledger.files]
    assert sorted(pd.concat(kept).time_ms) == [100, 150, 199, 250]
    bad = pd.read_parquet(storage.join(uri, "quarantine"))
    assert bad.row.tolist() == [6, 7]
    assert bad.file.tolist() == ["log.csv"] * 2


def test_a_part_without_usable_rows(tmp_path: Path) -> None:
    uri = stage(tmp_path, pd.DataFrame({"at": [500], "f": ["a"], "y": [1]}))
    assert read_ledger(uri, 0).files == ()
    assert read_values(uri, 0, "f") == {}
