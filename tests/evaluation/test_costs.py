"""What the cost of an epoch is measured on, and where."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest
import ray
from torch import Tensor

from diet_ray.config import ProtocolConfig
from diet_ray.evaluation import costs
from diet_ray.evaluation.run import Run
from diet_ray.logs.blocks import read_block
from diet_ray.memory import artifact
from diet_ray.training import candidate
from tests.evaluation.prepared import DISTILLED_ROWS, Prepared

OWN = ProtocolConfig(batch_size=64, learning_rate=0.001)


def test_an_epoch_of_distillation_sees_every_new_row_once(
    prepared: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[Any, ...]] = []
    monkeypatch.setattr(costs, "meta_gradient", lambda *arguments: calls.append(arguments))
    run = prepared.run(distill={"target_batch": 70, "inner": {"steps": 6, "window": 3}})
    costs._distillation(run)()
    assert len(calls) == 5  # of 300 rows, at most 70 at a time
    labels = np.concatenate([call[6].numpy() for call in calls])
    expected = read_block(run.blocks, run.blocks.historical[-1]).labels
    assert np.array_equal(labels.sum(axis=0), expected.sum(axis=0))
    assert max(len(call[6]) for call in calls) <= 70
    for call in calls:
        assert len(call[2]) == DISTILLED_ROWS
        assert len(call[4]) == 4, "inner steps: the mean of 3 to 6"


def test_the_proxies_of_a_distillation_take_turns(
    prepared: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[Any, ...]] = []
    monkeypatch.setattr(costs, "meta_gradient", lambda *arguments: calls.append(arguments))
    proxies = prepared.config().evaluation.candidates
    inner = {"networks": [network.model_dump() for network in proxies], "start": "fresh"}
    run = prepared.run(distill={"target_batch": 70, "inner": inner})
    costs._distillation(run)()
    sizes = [costs._network(run, network).parameter_count for network in proxies]
    assert sizes[0] != sizes[1]
    assert [len(call[1]) for call in calls] == [sizes[number % 2] for number in range(5)]


def test_the_meta_gradient_of_a_cost_is_the_real_one(prepared: Prepared) -> None:
    costs._distillation(prepared.run(distill={"target_batch": 300}))()


def test_an_epoch_of_distilled_training_is_a_pass_over_the_set(
    prepared: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Tensor] = []
    run, protocol = prepared.run(), ProtocolConfig(warm_up_batch_size=7)
    network = costs._network

    def spied(run: Run, config: Any) -> Any:
        dense = network(run, config)
        dense.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        return dense

    monkeypatch.setattr(costs, "_network", spied)
    costs._distilled_training(run, protocol)()
    assert {len(batch) for batch in seen} == {7, DISTILLED_ROWS % 7}
    found = np.concatenate([batch.numpy() for batch in seen]).reshape(DISTILLED_ROWS, -1)
    kept = artifact.read(run.distilled).embeddings(run.reference().table)
    assert sorted(found.tolist()) == sorted(kept.reshape(DISTILLED_ROWS, -1).tolist())


def test_an_epoch_of_full_training_is_a_pass_over_all_blocks(
    prepared: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocks: list[str] = []
    sizes: set[int] = set()
    read = candidate.iterate_batches

    def spied(of: Any, block: Any, size: int) -> Any:
        blocks.append(block.name)
        sizes.add(size)
        return read(of, block, size)

    monkeypatch.setattr(candidate, "iterate_batches", spied)
    costs._full_training(prepared.run(), ProtocolConfig(batch_size=29, learning_rate=0.001))()
    assert sizes == {29}
    assert blocks == ["historical-1", "historical-2", "subsequent"]


@pytest.mark.usefixtures("ray_session")
def test_every_phase_is_measured(prepared: Prepared) -> None:
    table = costs.measure_costs(prepared.run(distill={"target_batch": 300}), OWN, OWN)
    assert table["phase"].tolist() == ["full training", "distillation", "distilled training"]
    assert (table["seconds_per_epoch"] > 0).all()
    assert (table["peak_bytes"] >= 0).all()
    assert set(table["device"]) == {"cpu"}


@pytest.mark.slow
@pytest.mark.usefixtures("ray_session")
def test_every_phase_has_a_process_that_did_nothing_before(
    prepared: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    def process(*_: object) -> dict[str, object]:
        return {"process": os.getpid()}

    before = {ray.get(ray.remote(process).remote())["process"] for _ in range(3)}
    monkeypatch.setattr(costs, "_measured", process)
    found = [*costs.measure_costs(prepared.run(), OWN, OWN)["process"]]
    found += costs.measure_costs(prepared.run(), OWN, OWN)["process"].tolist()
    assert len(set(found)) == 6
    assert not before & set(found)
