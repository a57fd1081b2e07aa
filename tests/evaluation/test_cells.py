"""One cell: what its result depends on, and that it depends on nothing else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from diet_ray import storage
from diet_ray.config import NetworkConfig
from diet_ray.evaluation.cells import Cell, read_cell, read_logits
from diet_ray.evaluation.methods import METHODS, REDUCED, REFERENCE_FREE
from diet_ray.evaluation.run import Run
from diet_ray.logs.blocks import read_block
from diet_ray.training.metrics import Metrics, measure
from diet_ray.training.reference import reference_uri
from tests.evaluation.prepared import Prepared, made_cell, publish_distilled, run_here

SELECTIONS = ("random", "kmeans", "el2n")
WITH_REFERENCE = set(METHODS) - set(REFERENCE_FREE)


def keys(run: Run, change: Callable[[Cell], Cell] = lambda cell: cell) -> dict[str, str]:
    return {method: change(made_cell(run, method)).key for method in METHODS}


def changed(before: dict[str, str], after: dict[str, str]) -> set[str]:
    return {method for method in before if before[method] != after[method]}


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ({"resources": {"evaluation_tasks": 1}, "name": "other"}, set()),
        ({"evaluation": {"seeds": 9, "candidates": [{"name": "dcn"}]}}, set()),
        ({"distill": {"rounds": 7}, "memory": {"keep": 0.1, "truth_blend": 0.5}}, set()),
        ({"benchmark": {"percentile": 50}}, {"el2n"}),
        ({"memory": {"ratio": 0.01}}, set(SELECTIONS)),
        ({"seed": 77}, set(METHODS)),
        ({"threads": 2}, set(METHODS)),
        ({"models": {"embedding_std": 0.02}}, set(METHODS)),
    ],
)
def test_a_setting_changes_the_cells_that_depend_on_it(
    prepared: Prepared, overrides: dict[str, Any], expected: set[str]
) -> None:
    run, candidate = prepared.run(), prepared.config().evaluation.candidates[0]
    other = prepared.run(**overrides)
    before = keys(run)
    protocol = run.config.evaluation.protocol
    after = keys(other, lambda cell: replace(cell, candidate=candidate, protocol=protocol))
    assert changed(before, after) == expected
    assert len(set(before.values())) == len(METHODS)


@pytest.mark.parametrize(
    ("keys_of_protocol", "expected"),
    [
        ({"batch_size": 32}, set(METHODS)),
        ({"learning_rate": 0.5}, set(METHODS)),
        ({"warm_up_batch_size": 8}, set(REDUCED)),
        ({"warm_up_learning_rate": 0.5}, set(REDUCED)),
        ({"epochs": 3}, set(REDUCED)),
    ],
)
def test_a_protocol_counts_where_it_is_followed(
    prepared: Prepared, keys_of_protocol: dict[str, Any], expected: set[str]
) -> None:
    run = prepared.run()
    protocol = run.config.evaluation.protocol.model_copy(update=keys_of_protocol)
    assert changed(keys(run), keys(run, lambda cell: replace(cell, protocol=protocol))) == expected


def test_a_candidate_is_its_network_whatever_it_is_called(prepared: Prepared) -> None:
    cell = made_cell(prepared.run(), "warm")
    labelled = cell.candidate.model_copy(update={"label": "small"})
    assert replace(cell, candidate=labelled).key == cell.key
    wider = NetworkConfig(name="dcn", parameters={"dnn_hidden_units": [9]})
    assert replace(cell, candidate=wider).key != cell.key
    assert replace(cell, seed=1).key != cell.key


def test_the_share_of_truth_counts_for_blended_labels_alone(prepared: Prepared) -> None:
    one, other = (prepared.run(memory={"truth_blend": share}) for share in (0.2, 0.4))
    for labels in ("soft", "hard"):
        assert made_cell(one, "random", labels=labels).key == made_cell(
            other, "random", labels=labels
        ).key  # fmt: skip
    blended = {made_cell(run, "random", labels="blended").key for run in (one, other)}
    assert len(blended) == 2
    assert len({made_cell(one, "random", labels=x).key for x in ("soft", "hard", "blended")}) == 3


def test_another_distilled_set_changes_only_its_own_method(prepared: Prepared) -> None:
    before = keys(prepared.run())
    publish_distilled(prepared.distilled, prepared.blocks, prepared.reference, first=7)
    assert changed(before, keys(prepared.run())) == {"distilled"}


def test_another_reference_changes_what_starts_from_it(prepared: Prepared) -> None:
    before = keys(prepared.run())
    path = storage.join(reference_uri(prepared.config(), 2), "reference.json")
    storage.write_json(path, {**storage.read_json(path), "identity": "f" * 64})
    assert changed(before, keys(prepared.run())) == WITH_REFERENCE


def test_the_key_says_nothing_about_the_place(prepared: Prepared) -> None:
    before = keys(prepared.run())
    assert keys(prepared.copy(prepared.folder.parent / "elsewhere").run()) == before


@pytest.mark.parametrize("method", [m for m in METHODS if m != "el2n"])
def test_a_cell_is_judged_kept_and_repeatable(prepared: Prepared, method: str) -> None:
    run = prepared.run()
    cell = made_cell(run, method, seed=1, candidate=run.config.evaluation.candidates[1])
    assert read_cell(cell) is None
    result = run_here(cell)
    assert read_cell(cell) == result
    epochs = run.config.evaluation.protocol.epochs if method in REDUCED else 0
    assert len(result.warm_up_auc) == epochs
    metrics, logits = Metrics(**result.test), read_logits(cell)
    test = read_block(run.blocks, run.blocks.block("test"))
    assert measure(logits, test.labels, run.blocks.tasks) == metrics
    assert 0.3 < metrics.auc < 1
    assert result.validation != result.test

    assert replace(run_here(cell), seconds=result.seconds) == result
    assert np.array_equal(read_logits(cell), logits)


def test_seeds_and_labels_differ(prepared: Prepared) -> None:
    run = prepared.run()
    cells = [
        *(made_cell(run, "random", seed=seed) for seed in (0, 1)),
        made_cell(run, "random", labels="hard"),
        made_cell(run, "distilled"),
        made_cell(run, "distilled", labels="hard"),
    ]
    assert len({run_here(cell).test["auc"] for cell in cells}) == len(cells)


def test_a_warm_start_is_the_reduced_methods_start(prepared: Prepared) -> None:
    """Without a warm-up, which alone tells them apart, two methods end alike."""
    run = prepared.run()
    warm, random = (made_cell(run, method) for method in ("warm", "random"))
    frozen = random.protocol.model_copy(update={"warm_up_learning_rate": 1e-30})
    assert run_here(replace(random, protocol=frozen)).test == run_here(warm).test


def test_results_of_one_method_lie_together(prepared: Prepared) -> None:
    own = NetworkConfig(name="tests.models.own_network:Own")
    cell = made_cell(prepared.run(), "warm", candidate=own)
    place = prepared.config().place("evaluation", "cells", "warm", "tests.models.own_network.Own")
    assert cell.uri() == f"{place}/{cell.key}.json"
    assert cell.uri("safetensors") == f"{place}/{cell.key}.safetensors"
