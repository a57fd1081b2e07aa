"""Estimates are counts of what is left, times the pace; here a second a step."""

from __future__ import annotations

from typing import Any

import pytest

from diet_ray import storage
from diet_ray.config import CotrainConfig, NetworkConfig
from diet_ray.evaluation.cells import Cell
from diet_ray.plan import estimates
from diet_ray.plan.estimates import PIPELINE_START, PROCESS_START, SCAN_START
from diet_ray.plan.expected import blocks_of
from diet_ray.plan.steps import PUBLISHED
from tests.evaluation.prepared import STAGES, Prepared, made_cell, run_here
from tests.made import small_config
from tests.plan.paces import SteadyPace

ROWS = 300  # of every block


@pytest.fixture(autouse=True)
def two_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimates.os, "cpu_count", lambda: 2)
    monkeypatch.setattr(estimates.ray, "is_initialized", lambda: False)


@pytest.mark.parametrize(
    ("most", "threads", "limit", "expected"),
    [(1, 1, {}, 1), (5, 1, {}, 2), (5, 2, {}, 1), (5, 4, {}, 1), (5, 2, {"CPU": 8}, 4)],
)
def test_processes_share_the_cpus(most: int, threads: int, limit: Any, expected: int) -> None:
    config = small_config("unused", threads=threads, resources={"cluster_limit": limit})
    assert estimates.processes(config, most) == expected


def test_a_log_that_is_not_prepared(tmp_path: Any) -> None:
    config = small_config(str(tmp_path), logs={"synthetic": {"rows": 1_000}})
    step = estimates.preparation(config, blocks_of(config), SteadyPace())
    assert step.seconds == pytest.approx(2 * (1_000 / 2 + PIPELINE_START))
    assert "1,000 rows" in step.amount


def test_a_reference_is_every_block_that_is_left(prepared: Prepared) -> None:
    config, blocks = prepared.config(), prepared.blocks
    assert estimates.reference_model(config, blocks, SteadyPace()).amount == PUBLISHED
    storage.remove(storage.join(config.place("reference"), f"t={STAGES}", "reference.json"))
    step = estimates.reference_model(config, blocks, SteadyPace())
    assert step.seconds == pytest.approx(PROCESS_START + ROWS)


def test_a_distillation_is_gradients_and_scans(prepared: Prepared) -> None:
    storage.remove(prepared.config().place("distilled"))
    config = prepared.config(resources={"meta_workers": 2, "scoring_workers": [1, 1]})
    distill = config.distill
    step = estimates.distillation(config, prepared.blocks, SteadyPace())
    gradients = distill.rounds * distill.outer_steps * distill.logical_shards / 2
    boundary = SCAN_START + ROWS
    targets = distill.rounds * (SCAN_START + ROWS)
    stage = PROCESS_START + gradients + boundary + targets
    assert step.seconds == pytest.approx(2 * PROCESS_START + STAGES * stage)
    plain = config.model_copy(
        update={
            "memory": config.memory.model_copy(update={"new_rows": "random"}),
            "distill": distill.model_copy(update={"hard_fraction": 1.0}),
        }
    )
    step = estimates.distillation(plain, prepared.blocks, SteadyPace())
    assert step.seconds == pytest.approx(2 * PROCESS_START + STAGES * (PROCESS_START + gradients))


@pytest.mark.parametrize(
    ("method", "rows"),
    [
        ("full", (STAGES + 1) * ROWS),
        ("prefix", (STAGES + 1) * ROWS),
        ("warm", ROWS),
        ("random", ROWS + 2 * (40 + ROWS)),  # two epochs over 40 rows, judged on validation
    ],
)
def test_a_training_is_its_rows_and_those_it_is_judged_on(
    prepared: Prepared, method: str, rows: int
) -> None:
    cell = made_cell(prepared.run(), method)
    step = estimates.trainings("Check", [cell], SteadyPace())
    assert step.seconds == pytest.approx(PROCESS_START + (rows + 2 * ROWS) / 2)


def test_a_co_training_is_one_and_judges_by_every_seed(prepared: Prepared) -> None:
    protocol = CotrainConfig(seeds=3)
    first = prepared.config().evaluation.candidates[0]
    cell = Cell(prepared.run(), "random", "soft", first, protocol, 0)
    step = estimates.trainings("Check", [cell], SteadyPace())
    assert step.seconds == pytest.approx(PROCESS_START + (1 + 3 * 2 * ROWS) / 2)


def test_a_training_that_is_there_is_left_out(prepared: Prepared) -> None:
    cells = [made_cell(prepared.run(), "warm", seed) for seed in (0, 1, 1)]
    both = estimates.trainings("Check", cells, SteadyPace())
    assert both.amount == "2 trainings"
    run_here(cells[0])
    one = estimates.trainings("Check", cells, SteadyPace())
    assert one.amount == "1 trainings (1 are there)"
    assert one.seconds < both.seconds
    assert estimates.trainings("Check", cells[:1], SteadyPace()).amount == PUBLISHED
    assert estimates.trainings("Check", [], SteadyPace()).amount == "none"


def test_of_many_networks_a_few_are_measured(prepared: Prepared) -> None:
    networks = [NetworkConfig(name="dcn", label=str(number)) for number in range(40)]
    cells = [made_cell(prepared.run(), "warm", candidate=network) for network in networks]
    for cell, seed in zip(cells, range(40), strict=True):
        object.__setattr__(cell, "seed", seed)  # else equal networks are one training
    pace = SteadyPace()
    step = estimates.trainings("Check", cells, pace)
    assert step.amount == "40 trainings"
    assert 1 < len(pace.asked) <= estimates.MEASURED
