"""An ensemble is its members side by side, each trained on the labels alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from diet_ray.config import ConfigError, MMoEConfig, ModelsConfig, NetworkConfig
from diet_ray.models.functional import row_losses
from diet_ray.models.registry import DenseNetwork, fresh_network, parameters_of
from tests.networks import SMALL_NETWORKS, small_network

FIELDS, DIM, TASKS = 3, 4, 2
MODELS = ModelsConfig(
    embedding_dim=DIM,
    mmoe=MMoEConfig(experts=2, expert_units=[6], gate_units=[4], tower_units=[4]),
)


def ensemble(*names: str) -> NetworkConfig:
    members = [{"name": name, "parameters": SMALL_NETWORKS[name]} for name in names]
    return NetworkConfig(name="ensemble", parameters={"networks": members})


def made(network: NetworkConfig) -> DenseNetwork:
    return fresh_network(network, MODELS, FIELDS, TASKS, 0).double()


def alone(together: DenseNetwork, member: int, name: str, heads: list[int]) -> list[torch.Tensor]:
    """A member's branches, computed by a network of its own with the same parameters."""
    single = made(small_network(name))
    state = {}
    for key, value in together.state_dict().items():
        if key.startswith(f"interaction.members.{member}."):
            state[key.replace(f"members.{member}.", "")] = value
        for number, head in enumerate(heads):
            mine = "mmoe." if len(heads) == 1 else f"mmoe.{number}."
            if key.startswith(f"mmoe.{head}."):
                state[key.replace(f"mmoe.{head}.", mine)] = value
    single.load_state_dict(state)
    return single.branch_logits(ROWS)


ROWS = torch.randn(7, FIELDS, DIM, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
LABELS = torch.rand(7, TASKS, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


def test_is_the_mean_over_its_members_branches() -> None:
    together = made(ensemble("dcn", "finalnet"))
    branches = alone(together, 0, "dcn", [0]) + alone(together, 1, "finalnet", [1, 2])
    torch.testing.assert_close(together(ROWS), torch.stack(branches).mean(dim=0))
    losses = torch.stack([row_losses(branch, LABELS) for branch in branches]).mean(dim=0)
    torch.testing.assert_close(together(ROWS, LABELS), losses)


def test_the_same_network_twice_is_two_networks() -> None:
    together = made(ensemble("dcn", "dcn"))
    first, second = alone(together, 0, "dcn", [0]) + alone(together, 1, "dcn", [1])
    assert not torch.allclose(first, second)


@pytest.mark.parametrize(
    ("networks", "words"),
    [
        ([{"name": "dcn"}], "networks.*at least 2"),
        ([{"name": "dcn"}, {"nam": "dcn"}], "nam: unknown key"),
    ],
)
def test_what_is_no_ensemble(networks: list[Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        parameters_of(NetworkConfig(name="ensemble", parameters={"networks": networks}))


def test_an_unknown_member_is_refused_before_work_starts() -> None:
    members = [{"name": "dcn"}, {"name": "wukongg"}]
    with pytest.raises(ConfigError, match="did you mean 'wukong'"):
        parameters_of(NetworkConfig(name="ensemble", parameters={"networks": members}))
