"""One cell: what its result depends on, and that it depends on nothing else."""

from __future__ import annotations

from dataclasses import replace

import pytest

from diet_ray import storage
from diet_ray.config import RunConfig
from diet_ray.evaluation.cells import Cell, cell_key, read_cell, run_cell
from diet_ray.evaluation.methods import METHODS, REDUCED
from diet_ray.memory.artifact import ArtifactError
from diet_ray.training.metrics import Metrics
from tests.evaluation.prepared import Prepared, publish_distilled
from tests.made import small_config

CELLS = [Cell(method, "dcn", 0) for method in METHODS]


def keys(prepared: Prepared, config: RunConfig | None = None) -> dict[str, str]:
    run = config or prepared.config
    return {c.method: cell_key(run, prepared.blocks, prepared.distilled, c) for c in CELLS}


def changed(before: dict[str, str], after: dict[str, str]) -> set[str]:
    return {method for method in before if before[method] != after[method]}


def test_another_distilled_set_changes_only_its_own_method(prepared: Prepared) -> None:
    before = keys(prepared)
    publish_distilled(prepared.distilled, prepared.blocks, prepared.reference, first=7)
    assert changed(before, keys(prepared)) == {"distilled"}


def test_another_size_changes_the_reduced_methods(prepared: Prepared) -> None:
    before = keys(prepared)
    publish_distilled(prepared.distilled, prepared.blocks, prepared.reference, rows=41)
    assert changed(before, keys(prepared)) == set(REDUCED)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"resources": {"evaluation_tasks": 1}}, set()),
        ({"evaluation": {"seeds": 9}}, set()),
        ({"distill": {"rounds": 7}}, set()),
        ({"evaluation": {"protocol": {"batch_size": 32}}}, set(METHODS)),
        ({"seed": 77}, set(METHODS)),
    ],
)
def test_a_setting_changes_the_cells_that_depend_on_it(
    prepared: Prepared, changes: dict[str, object], expected: set[str]
) -> None:
    config = small_config(prepared.config.output, **changes)
    assert changed(keys(prepared), keys(prepared, config)) == expected


def test_the_key_does_not_depend_on_the_other_candidates(prepared: Prepared) -> None:
    alone = prepared.config.evaluation.model_copy(
        update={"candidates": prepared.config.evaluation.candidates[:1]}
    )
    config = prepared.config.model_copy(update={"evaluation": alone})
    assert keys(prepared, config) == keys(prepared)


def run(prepared: Prepared, cell: Cell) -> tuple[str, dict[str, object], list[float]]:
    key = cell_key(prepared.config, prepared.blocks, prepared.distilled, cell)
    result = run_cell(prepared.config, prepared.blocks, prepared.distilled, cell, key)
    return key, result.test, result.validation_auc


@pytest.mark.parametrize("method", METHODS)
def test_a_cell_is_judged_kept_and_repeatable(prepared: Prepared, method: str) -> None:
    cell = Cell(method, "wukong", 1)
    key, test, epochs = run(prepared, cell)
    kept = read_cell(prepared.config, cell, key)
    assert kept is not None
    assert (kept.test, kept.validation_auc) == (test, epochs)
    assert len(epochs) == (prepared.config.evaluation.protocol.epochs if method in REDUCED else 0)
    metrics = Metrics(**kept.test)
    assert set(metrics.auc_by_task) == set(prepared.blocks.tasks)
    assert 0.3 < metrics.auc < 1
    assert run(prepared, cell) == (key, test, epochs)


def test_seeds_differ(prepared: Prepared) -> None:
    first, second = (run(prepared, Cell("warm", "dcn", seed))[1] for seed in (0, 1))
    assert first["auc"] != second["auc"]


def test_a_result_under_another_key_does_not_count(prepared: Prepared) -> None:
    cell = Cell("warm", "dcn", 0)
    assert read_cell(prepared.config, cell, "any") is None
    key = run(prepared, cell)[0]
    assert read_cell(prepared.config, cell, key) is not None
    assert read_cell(prepared.config, cell, "other") is None
    assert storage.exists(cell.uri(prepared.config))


def test_a_distilled_set_that_is_missing_is_named(prepared: Prepared) -> None:
    gone = replace(prepared, distilled=prepared.distilled + "0")
    with pytest.raises(ArtifactError, match=r"stage=20/.*manifest"):
        keys(gone)
