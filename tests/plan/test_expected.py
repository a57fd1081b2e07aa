"""Rows that are expected before a log is prepared, and those that its manifest states."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from diet_ray.config import RunConfig
from diet_ray.plan.expected import blocks_of, interval_shares
from tests.made import made_blocks, small_config

INTERVALS = {
    "historical": ["2024-01-01..2024-01-03", "2024-01-04"],
    "subsequent": "2024-01-05",
    "validation": "2024-01-06",
    "test": "2024-01-07..2024-01-08",
}
SYNTHETIC = {"rows": 8_000, "days": 8, "start": "2024-01-01"}


def config(folder: Path, **logs: Any) -> RunConfig:
    given = {"source": "synthetic", "synthetic": SYNTHETIC, "intervals": INTERVALS, **logs}
    return small_config(str(folder), logs=given)


def test_published_blocks_are_taken_as_they_are(tmp_path: Path) -> None:
    blocks = made_blocks(str(tmp_path / "blocks"))
    assert blocks_of(config(tmp_path)) == blocks


def test_a_synthetic_log_says_itself_when_its_rows_are(tmp_path: Path) -> None:
    blocks = blocks_of(config(tmp_path))
    assert [block.rows for block in blocks.blocks] == [3_000, 1_000, 1_000, 1_000, 2_000]
    assert [block.role for block in blocks.blocks[:2]] == ["historical", "historical"]
    assert blocks.outside_intervals == 0
    assert all(size > 1 for size in blocks.blocks[0].vocabulary_sizes.values())


def test_rows_outside_the_intervals_are_expected_there(tmp_path: Path) -> None:
    longer = {**SYNTHETIC, "start": "2023-12-28", "days": 16}
    blocks = blocks_of(config(tmp_path, synthetic=longer))
    assert [block.rows for block in blocks.blocks] == [1_500, 500, 500, 500, 1_000]
    assert blocks.outside_intervals == 4_000


def test_any_other_log_is_taken_to_lie_evenly_within_the_intervals(tmp_path: Path) -> None:
    logs = config(tmp_path, source="kuairand", path="raw").logs
    assert interval_shares(logs) == pytest.approx([3 / 8, 1 / 8, 1 / 8, 1 / 8, 2 / 8])
