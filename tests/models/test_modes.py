"""Eval mode for a while: inside, afterwards, and after an error."""

from __future__ import annotations

import pytest
from torch import nn

from diet_ray.models.modes import evaluating


def part_frozen() -> nn.Module:
    network = nn.Sequential(nn.BatchNorm1d(2), nn.Sequential(nn.Dropout(0.5)))
    network[0].eval()
    return network


def modes(network: nn.Module) -> list[bool]:
    return [module.training for module in network.modules()]


def test_every_module_evaluates_and_gets_its_own_mode_back() -> None:
    network = part_frozen()
    before = modes(network)
    with evaluating(network):
        assert not any(modes(network))
    assert modes(network) == before == [True, False, True, True]


def test_an_error_leaves_no_module_in_eval_mode() -> None:
    network = part_frozen()
    before = modes(network)
    with pytest.raises(ArithmeticError), evaluating(network):
        raise ArithmeticError
    assert modes(network) == before
