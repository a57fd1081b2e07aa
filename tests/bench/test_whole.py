"""Slopes are those of what was measured; phases and the whole job are run and told."""

from __future__ import annotations

from pathlib import Path

import pytest

from diet_ray.bench import whole
from diet_ray.bench.peaks import in_child
from diet_ray.bench.whole import (
    DRIVER,
    PHASES,
    SECONDS,
    START_ROWS,
    WORKER,
    Job,
    Phases,
    Scale,
    phases_of,
    slopes,
)


def test_a_slope_is_that_beyond_the_start_up() -> None:
    start = {"scan": {SECONDS: 5.0, DRIVER: 300.0, WORKER: 200.0}}
    found = {
        1_000: {"scan": {SECONDS: 7.0, DRIVER: 300.0, WORKER: 400.0}},
        10_000: {"scan": {SECONDS: 25.0, DRIVER: 300.0, WORKER: 400.0}},
    }
    seconds, memory = slopes("scan", found, start)
    assert seconds.value == pytest.approx(1)  # 2 s and 20 s
    assert memory.value == pytest.approx(0)
    assert seconds.goal is not None
    assert seconds.goal.met(seconds.value)


def test_one_size_has_no_slope() -> None:
    of = {"scan": {SECONDS: 5.0, DRIVER: 300.0, WORKER: 200.0}}
    assert slopes("scan", {1_000: of}, of) == []


def test_sizes_go_up_by_tens() -> None:
    assert Scale().sizes() == [1_000_000, 10_000_000]
    assert Scale(largest=100_000_000).sizes() == [1_000_000, 10_000_000, 100_000_000]
    assert Scale(smallest=500, largest=600).sizes() == [500]


def test_phases_of_all_sizes_make_the_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def made(_function: object, _folder: str, rows: int, *_: int) -> Phases:
        asked.append(rows)
        return {phase: {SECONDS: rows / 1e4, DRIVER: 300.0, WORKER: 200.0} for phase in PHASES}

    monkeypatch.setattr(whole, "in_child", made)
    found = Scale(smallest=1_000_000, largest=10_000_000).run(str(tmp_path))
    assert asked == [START_ROWS, 1_000_000, 10_000_000]
    *found_slopes, few, many = found.figures
    assert len(found_slopes) == 2 * len(PHASES)
    assert all(figure.goal and figure.goal.met(figure.value) for figure in found_slopes)
    assert few.value == many.value == 1  # stage and reference take equally long
    (rows,) = found.tables.values()
    assert [row["Phase"] for row in rows] == 3 * list(PHASES)


@pytest.mark.slow
def test_every_phase_is_measured(tmp_path: Path) -> None:
    found = in_child(phases_of, str(tmp_path), 6_000, 50, 40)
    assert list(found) == list(PHASES)
    assert all(of[SECONDS] > 0 and of[DRIVER] > 0 for of in found.values())
    assert found["scan"][WORKER] > 0


@pytest.mark.slow
def test_the_whole_job_is_measured(tmp_path: Path) -> None:
    found = Job(rows=6_000, users=50, items=40, outer_steps=1).run(str(tmp_path))
    minutes, largest, share = found.figures
    assert minutes.value > 0
    assert largest.parts["driver GB"] > 0
    assert share.value == share.parts["stages s"] / share.parts["epoch s"] > 0
    (phases,) = found.tables.values()
    assert any("Reference" in row["Phase"] for row in phases)
