"""A forward pass's cost per row, against sums over the layers by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from diet_ray.config import MMoEConfig, ModelsConfig, NetworkConfig
from diet_ray.models.flop import forward_flop
from diet_ray.models.registry import fresh_network
from tests.networks import SMALL_NETWORKS, small_network

FIELDS, WIDTH, TASKS = 3, 4, 2
MODELS = ModelsConfig(
    embedding_dim=WIDTH,
    mmoe=MMoEConfig(experts=5, expert_units=[6], gate_units=[7], tower_units=[8]),
)


def test_equals_the_sum_over_layers_by_hand() -> None:
    units = 9
    parameters = {"num_cross_layers": 2, "dnn_hidden_units": [units]}
    network = fresh_network(NetworkConfig(name="dcn", parameters=parameters), MODELS, 3, TASKS, 0)
    inputs = FIELDS * WIDTH
    dcn = 2 * inputs + inputs * units
    representation = inputs + units
    experts = 5 * representation * 6
    gates = TASKS * (representation * 7 + 7 * 5)
    mixture = TASKS * 5 * 6
    towers = TASKS * (6 * 8 + 8)
    expected = 2 * (dcn + experts + gates + mixture + towers)
    assert forward_flop(network, FIELDS, WIDTH) == expected


@pytest.mark.parametrize("name", SMALL_NETWORKS)
def test_every_built_in_network_is_counted(name: str) -> None:
    network = fresh_network(small_network(name), MODELS, FIELDS, TASKS, 0)
    assert forward_flop(network, FIELDS, WIDTH) > 0
    assert network.training


def test_a_module_with_batch_norm_is_counted_and_left_as_it_was() -> None:
    inputs = FIELDS * WIDTH
    network = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(inputs), nn.Linear(inputs, TASKS))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    assert forward_flop(network, FIELDS, WIDTH) == 2 * inputs * TASKS
    assert network.training
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name])


def test_a_network_that_refuses_has_no_count() -> None:
    class Refuses(nn.Linear):
        def forward(self, inputs: Tensor) -> Tensor:
            raise RuntimeError("not today")

    assert math.isnan(forward_flop(Refuses(1, 1), FIELDS, WIDTH))
