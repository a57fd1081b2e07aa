"""Which network a shard trains, and where it starts."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from diet_ray.config import NetworkConfig, RunConfig
from diet_ray.distill.proxy import inner_start, proxy_networks, turn
from diet_ray.models.functional import FlatNetwork, flatten_parameters
from diet_ray.training.reference import load_reference, reference_uri
from tests.distill.prepared import Prepared, run_config
from tests.networks import small_network


def with_networks(prepared: Prepared, *names: str, **distill: Any) -> RunConfig:
    inner = {"networks": [small_network(name).model_dump() for name in names], "start": "fresh"}
    return run_config(prepared.folder, distill={"inner": inner, **distill})


def test_without_networks_the_proxy_is_the_references(prepared: Prepared) -> None:
    config = run_config(prepared.folder)
    assert proxy_networks(config) == [config.reference.network]
    assert {turn(config, step, shard) for step in range(3) for shard in range(3)} == {0}


@pytest.mark.parametrize(
    ("shards", "turns"), [(1, [[0], [1], [2], [0]]), (2, [[0, 1], [2, 0], [1, 2], [0, 1]])]
)
def test_networks_alternate_over_shards_and_steps(
    prepared: Prepared, shards: int, turns: list[list[int]]
) -> None:
    config = with_networks(prepared, "dcn", "wukong", "finalmlp", logical_shards=shards)
    found = [[turn(config, step, shard) for shard in range(shards)] for step in range(4)]
    assert found == turns


def test_a_start_fits_the_network_of_its_turn(prepared: Prepared) -> None:
    config = with_networks(prepared, "dcn", "wukong")
    reference = load_reference(reference_uri(config, 1))

    def parameters(name: str) -> int:
        return FlatNetwork(reference.fresh(small_network(name), 0)).parameter_count

    starts = [inner_start(config, 1, 0, 0, shard) for shard in range(3)]
    expected = [parameters(name) for name in ("dcn", "wukong", "dcn")]
    assert [len(theta) for theta in starts] == expected
    assert not (starts[0] == starts[2]).all(), "each turn is a draw of its own"
    assert len(inner_start(config, 2, 1)) == parameters("dcn"), "addressing takes the first"


def test_networks_must_not_differ_in_more_than_their_label_to_inherit(prepared: Prepared) -> None:
    reference = run_config(prepared.folder).reference.network
    labelled = NetworkConfig(name="dcn", parameters=reference.parameters, label="proxy")
    inner = {"networks": [labelled.model_dump()]}
    config = run_config(prepared.folder, distill={"inner": inner})
    previous = flatten_parameters(load_reference(reference_uri(config, 1)).dense)
    assert torch.from_numpy(inner_start(config, 2, 0, 1, 1)).equal(previous)


@pytest.mark.parametrize("start", ["previous_reference", "fresh", "mixed"])
def test_inner_starts(prepared: Prepared, start: str) -> None:
    config = run_config(prepared.folder, distill={"inner": {"start": start}})
    previous = flatten_parameters(load_reference(reference_uri(config, 1)).dense).numpy()
    starts = {
        (step, shard): inner_start(config, 2, 0, step, shard)
        for step in range(2)
        for shard in range(2)
    }
    is_previous = {where: bool((theta == previous).all()) for where, theta in starts.items()}
    expected = {
        "previous_reference": dict.fromkeys(starts, True),
        "fresh": dict.fromkeys(starts, False),
        "mixed": {(step, shard): (step + shard) % 2 == 0 for step, shard in starts},
    }
    assert is_previous == expected[start]
    fresh = [theta.tobytes() for where, theta in starts.items() if not is_previous[where]]
    assert len(set(fresh)) == len(fresh), "each fresh start is a draw of its own"
    assert (inner_start(config, 2, 0) == previous).all() == (start != "fresh")


def test_stage_one_starts_fresh(prepared: Prepared) -> None:
    config = run_config(prepared.folder)
    first = load_reference(reference_uri(config, 1))
    theta = inner_start(config, 1, 0)
    assert not (theta == flatten_parameters(first.dense).numpy()).all()
    assert theta.tobytes() == inner_start(config, 1, 0).tobytes()
