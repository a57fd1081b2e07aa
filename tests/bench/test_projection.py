"""The projection is arithmetic: it scales as it should, and states what it assumes."""

from __future__ import annotations

from dataclasses import asdict, replace

import pytest

from diet_ray.bench.projection import (
    Cluster,
    Log,
    Projection,
    gradient_bytes,
    outer_bytes,
    table_of,
)

SMALL = Log(
    blocks=2,
    rows_per_block=1_000,
    ids=100,
    fields=2,
    tasks=1,
    embedding_dim=4,
    dense_parameters=50,
    ratio=0.1,
    batch_rows=10,
    unique_share=0.5,
    outer_steps=3,
    shards=4,
    inner_steps=6,
    window=2,
    inner_batch=5,
    target_batch=7,
    scans=1,
)
ONE = Cluster(nodes=1, gpus=1, peak_flop=1_000, reached=0.5, network_bits=8e9, storage_bytes=1e9)


def test_bytes_of_a_step_are_those_of_its_rows() -> None:
    row = 2 * 4 * 4
    assert gradient_bytes(SMALL) == 0.5 * 10 * row
    assert outer_bytes(SMALL) == 4 * row * (6 * 5 + 7 + 2 * 5)


def test_a_scan_computes_a_forward_pass_of_every_row() -> None:
    scan = next(row for row in table_of(SMALL, ONE) if row["Phase"] == "scan")
    assert scan["Bound by"] == "compute"
    assert scan["Hours"] * 3_600 == pytest.approx(2_000 * 2 * 50 / (1_000 * 0.5))
    assert scan["Held by a process, GB"] == pytest.approx(100 * 4 * 4 / 1e9)


def test_a_distilled_row_is_its_anchor_labels_and_a_delta_with_moments() -> None:
    distil = next(row for row in table_of(SMALL, ONE) if row["Phase"] == "distil")
    assert distil["Held by a process, GB"] == pytest.approx(200 * (8 + 4 + 3 * 32) / 1e9)


def test_twice_the_gpus_take_half_the_compute() -> None:
    one, two = (table_of(SMALL, replace(ONE, gpus=gpus)) for gpus in (1, 2))
    for slow, fast in zip(one, two, strict=True):
        assert fast["compute h"] == pytest.approx(slow["compute h"] / 2)


def test_every_assumption_stands_beside_the_table() -> None:
    found = Projection().run("")
    phases, assumptions = found.tables["On paper"], found.tables["Assumptions"]
    assert [row["Phase"] for row in phases] == ["prepare", "reference", "scan", "distil"]
    assert {row["Constant"] for row in assumptions} == {*asdict(Log()), *asdict(Cluster())}
    assert found.figures[0].value == pytest.approx(sum(row["Hours"] for row in phases))
