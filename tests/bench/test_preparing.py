"""The logs that are prepared hold what is asked for; bytes an id are told."""

from __future__ import annotations

from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from diet_ray.bench import preparing
from diet_ray.bench.peaks import Peaks, in_child
from diet_ray.bench.preparing import LAST_ROWS, Vocabulary, prepared_peaks, write_log


def test_a_log_has_so_many_rows_and_ids(tmp_path: Path) -> None:
    write_log(str(tmp_path), rows=500, ids=70)
    table = pq.read_table(tmp_path / "raw")
    assert table.num_rows == 500 + 3 * LAST_ROWS
    assert pc.count_distinct(table["id"]).as_py() == 70
    first = table["id"].to_pylist()[:70]
    assert len(set(first)) == 70  # each once before any comes again
    assert {len(text) for text in table["id"].to_pylist()} == {12}


def test_bytes_an_id_are_the_rise_over_the_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    made = {
        250_000: Peaks(driver=200_000_000, workers={7: 300_000_000, 8: 250_000_000}),
        1_250_000: Peaks(driver=230_000_000, workers={7: 300_000_000, 8: 312_000_000}),
    }
    monkeypatch.setattr(preparing, "in_child", lambda _function, _folder, _rows, ids: made[ids])
    worker, driver = Vocabulary(ids=1_250_000).run("").figures
    assert worker.value == 12
    assert driver.value == 30
    assert worker.goal is not None


def test_more_ids_need_more_memory() -> None:
    assert Vocabulary(ids=10_000_000).needs().memory > Vocabulary().needs().memory


@pytest.mark.slow
def test_a_preparation_is_watched(tmp_path: Path) -> None:
    peaks = in_child(prepared_peaks, str(tmp_path), 3_000, 70)
    assert peaks.driver > 0
    assert peaks.largest_worker > 0
