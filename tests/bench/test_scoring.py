"""Scoring's rivals compute the same numbers, and the figures are there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from diet_ray.bench.made import dense, made_blocks, network_names, run_config
from diet_ray.bench.measure import BenchError
from diet_ray.bench.scoring import (
    Alignment,
    LongScan,
    PerSample,
    Scan,
    aligned,
    aligned_per_sample,
    plain_loop,
    plain_uri,
    scan_of,
    shares,
)

ROWS = 300


@pytest.mark.usefixtures("ray_session")
def test_the_plain_loop_finds_the_scans_scores(tmp_path: Path) -> None:
    folder = str(tmp_path)
    config = run_config(f"{folder}/run", scoring={"batch_rows": 64})
    blocks = made_blocks(f"{folder}/blocks", [100, ROWS], ids=140, fragment_rows=ROWS // 2)
    block = blocks.historical[1]
    scan_of(config, blocks, folder)(block)
    for share in shares(block, 3):  # of two files
        plain_loop(config, blocks, share, folder)
    for fragment in block.fragments:
        plain = pq.read_table(plain_uri(folder, fragment.path))
        scanned = pq.read_table(f"{folder}/scan/{fragment.path}")
        assert plain["row_id"].equals(scanned["row_id"])
        np.testing.assert_allclose(plain["score"], scanned["score"], rtol=1e-6)


@pytest.mark.usefixtures("ray_session")
@pytest.mark.slow
def test_a_scan_is_measured(tmp_path: Path) -> None:
    found = Scan(rows=2_000, ids=700, workers=1, repeats=1).run(str(tmp_path))
    apart, included, side_by_side = found.figures
    assert apart.goal is not None
    assert included.value > 0
    assert side_by_side.value > 0
    assert included.parts["pipeline start s"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("bits", [16, 32])
def test_a_long_scan_is_measured(bits: int, tmp_path: Path) -> None:
    (figure,) = LongScan(rows=2_000, ids=700, workers=1, bits=bits).run(str(tmp_path)).figures
    assert figure.value > 0
    assert figure.parts["worker MB"] > 100


def test_a_long_scan_knows_two_widths(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="--bits 8; give 16 or 32"):
        LongScan(rows=2_000, bits=8).run(str(tmp_path))


def test_a_scan_needs_disk_for_its_rows() -> None:
    more, fewer = Scan(rows=2_000_000).needs(), Scan(rows=1_000_000).needs()
    assert more.disk == 2 * fewer.disk
    assert more.memory == fewer.memory


@pytest.mark.parametrize("name", network_names())
def test_both_ways_align_alike(name: str) -> None:
    with torch.no_grad():
        case = dense(name, rows=5, dtype=torch.float64)
        torch.testing.assert_close(aligned(case), aligned_per_sample(case))


def test_alignment_is_measured_for_each_network_exactly_and_by_difference() -> None:
    figures = Alignment(batch_rows=16, repeats=1).run("").figures
    ways = [figure.compared.partition(" / ")[0] for figure in figures]
    assert ways == ["alignment", "by difference"] * len(network_names())
    assert all(figure.goal and figure.value > 0 for figure in figures)


@pytest.mark.slow
def test_per_sample_gradients_take_time_and_memory() -> None:
    measure = PerSample(batch_rows=64, calls=1, repeats=1)
    figures = measure._figures("dcn")  # of one network: a process takes seconds to start
    told = [figure.compared.rpartition(": ")[2] for figure in figures]
    assert told == ["CPU time", "peak memory"]
    assert figures[1].parts["vmap MB"] > figures[1].parts["JVP MB"]
    assert measure.needs().memory < PerSample().needs().memory
